"""What training with images costs in bytes, by the strategy (DICM, section 7.3 and table 2).

Three formulas, one for each strategy, for the mean batch of a job. The paper prints the results;
the formulas were derived from them (docs/models.md). Parameters of models are not in the paper's
sums, nor here.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

FLOAT_BYTES: Final = 4
INDEX_BYTES: Final = 8


class Strategy(StrEnum):
    """Where images live and are embedded (DICM, sections 4.2 and 7.3)."""

    AMS = "ams"
    PS_WORKER = "ps-worker"
    PS_SERVER = "ps-server"


@dataclass(frozen=True)
class Job:
    """What one batch of all workers wants, in the mean, and what there is.

    Attributes:
        images: distinct images that a worker wants, summed over workers; count.
        image_places: places in the samples that show an image (history of a group, impressions);
            count.
        ids: distinct IDs that a worker wants, summed over workers; images' ids are IDs too; count.
        id_floats: floats of these IDs' embeddings; count.
        sample_bytes: of the samples without images.
        stored_images: distinct images of the whole training; count.
        batches: of the whole training; count.
        feature_width: numbers of an image's features.
        embedding_width: numbers of its embedding.
    """

    images: float
    image_places: float
    ids: float
    id_floats: float
    sample_bytes: float
    stored_images: float
    batches: float
    feature_width: int
    embedding_width: int


@dataclass(frozen=True)
class Bytes:
    """A row of table 2: bytes for a batch.

    Attributes:
        worker_store: what workers store.
        server_store: what servers store, over the batches of the training.
        image_wire: vectors or features of images and their gradients, between workers and servers.
        id_wire: embeddings of IDs and their gradients.
        request_wire: indices that say what is wanted; the paper's sums leave them out.
    """

    worker_store: float
    server_store: float
    image_wire: float
    id_wire: float
    request_wire: float

    @property
    def store(self) -> float:
        """Workers and servers together."""
        return self.worker_store + self.server_store

    @property
    def wire(self) -> float:
        """Images and IDs together, without requests."""
        return self.image_wire + self.id_wire


def cost(strategy: Strategy, job: Job) -> Bytes:
    """Bytes for a batch of a job.

    - PS-worker: features lie in the samples; nothing of images travels.
    - PS-server: features are stored once, and travel to each worker that wants them; features
      have no gradient.
    - AMS: features are stored once, embeddings and their gradients travel.
    """
    feature = FLOAT_BYTES * job.feature_width
    ids = 2 * FLOAT_BYTES * job.id_floats
    requests = INDEX_BYTES * job.ids
    stored_once = job.stored_images * feature / job.batches
    if strategy is Strategy.PS_WORKER:
        in_samples = job.sample_bytes + job.image_places * feature
        return Bytes(in_samples, 0.0, 0.0, ids, requests)
    requests += INDEX_BYTES * job.images
    travels = job.images * feature
    if strategy is Strategy.AMS:
        travels = 2 * FLOAT_BYTES * job.images * job.embedding_width
    return Bytes(job.sample_bytes, stored_once, travels, ids, requests)


def storage_ratio(job: Job) -> float:
    """How many times less AMS stores than PS-worker."""
    return cost(Strategy.PS_WORKER, job).store / cost(Strategy.AMS, job).store


def wire_ratio(job: Job) -> float:
    """How many times less AMS sends than PS-server."""
    return cost(Strategy.PS_SERVER, job).wire / cost(Strategy.AMS, job).wire


# Section 7.3: 20 nodes of 3,000 samples; 3.9 billion samples. The samples' own 134 MiB are
# printed, and not to be derived from anything else that is.
PAPER: Final = Job(
    images=320_000,
    image_places=320_000,
    ids=1_400_000,
    id_floats=1_400_000 * 12,
    sample_bytes=134 * 2**20,
    stored_images=120_000_000,
    batches=65_000,
    feature_width=4096,
    embedding_width=12,
)
# As printed in table 2 and its text: bytes for a batch (M = 2^20, G = 2^30), and the two ratios.
PRINTED: Final = {
    Strategy.PS_WORKER: ("5.1G", "0", "128M", "0"),
    Strategy.PS_SERVER: ("134M", "30.3M", "5.1G", "5.0G"),
    Strategy.AMS: ("134M", "30.3M", "158M", "30M"),
}
PRINTED_STORAGE_RATIO: Final = 31
PRINTED_WIRE_RATIO: Final = 32


def mean_of(total: Job, batches: int) -> Job:
    """A job whose counts were summed over `batches` batches, for one batch."""
    names = ("images", "image_places", "ids", "id_floats", "sample_bytes")
    return replace(
        total, batches=batches, **{name: getattr(total, name) / batches for name in names}
    )
