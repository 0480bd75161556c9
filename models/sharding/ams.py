"""Advanced Model Server: DICM trained over several processes (DICM, section 4, algorithm 1).

Every rank is a worker and a server, as in the paper (section 4.2). As a worker it has a part of
each batch, the aggregator and the MLP; as a server, a part of the images, the embedding model E
and a part of the ID embeddings. A step is that of `uic.models.sharding.rank_training`, and besides:

- In the forward pass the owners of images are asked for vectors (`SERVEREMBED`); how depends on
  the strategy.
- After the backward pass gradients of image vectors are pushed (`SERVERUPDATE`); those of E are
  summed over all ranks with the gradients of the worker's model.
"""

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from uic.models.rankers.dicm.batch_images import BatchImages, ImageSourceError
from uic.models.rankers.dicm.dicm import Dicm
from uic.models.rankers.dicm.image_id_table import ImageIds
from uic.models.samples.batch import RankerBatch
from uic.models.samples.groups import HISTORY, IMPRESSIONS, GroupBatch
from uic.models.sharding.ams_bytes import FLOAT_BYTES, Job, Strategy
from uic.models.sharding.ams_ids import RegularizedTable
from uic.models.sharding.ams_images import RankImages, images_on_ranks
from uic.models.sharding.rank_training import BatchLoss, RankTraining
from uic.models.sharding.table import ShardedTable
from uic.models.sharding.world import ShardWorld, Traffic
from uic.models.training.optimizer import Optimizer, RowAdam

_IMAGE_IDS = "image_ids.table"


@dataclass
class Wanted:
    """What this rank's parts of batches wanted so far; sums over ranks make a `Job`.

    Attributes:
        images: distinct images a batch.
        image_places: places of samples that show one.
        ids: distinct IDs a batch, over all tables.
        id_floats: floats of their embeddings.
        sample_bytes: of the samples without images.
    """

    images: int = 0
    image_places: int = 0
    ids: int = 0
    id_floats: int = 0
    sample_bytes: int = 0


class AmsRank(RankTraining):
    """One rank of a training of DICM.

    Args:
        model: as in `RankTraining`, with images attached.
        optimizer: of this model, moments included.
        world: the ranks.
        strategy: where images are embedded.

    Attributes:
        wanted: what was asked for, whether or not it lay on this rank.
        image_traffic: what left this rank for images.
    """

    model: Dicm

    def __init__(
        self, model: Dicm, optimizer: Optimizer, world: ShardWorld, strategy: Strategy
    ) -> None:
        super().__init__(model, optimizer, world)
        self.strategy = strategy
        self.wanted = Wanted()
        self.image_traffic = Traffic()
        self.images: RankImages | None = None
        self._local = model.vectors
        if model.image_embedding is not None:
            if model.features is None:
                msg = "dicm: image features are not attached"
                raise ImageSourceError(msg)
            self.images = images_on_ranks(
                strategy,
                replace(world, traffic=self.image_traffic),
                model.features,
                model.image_embedding,
            )

    # ------------------------------------------------------------------------- tables, apart
    def share(self) -> None:
        """See `RankTraining.share`."""
        super().share()
        self.model.vectors = self.images

    def gather(self, *, everywhere: bool) -> None:
        """See `RankTraining.gather`."""
        super().gather(everywhere=everywhere)
        self.model.vectors = self._local

    def _shard(self, name: str, world: ShardWorld, whole: RowAdam) -> ShardedTable:
        frequencies = self._frequencies(name)
        if frequencies is None:
            return super()._shard(name, world, whole)
        weight = self.model.settings.adaptive_regularization
        return RegularizedTable.part_of(world, whole).regularize(frequencies, weight)

    def _tensors(self, name: str) -> list[Tensor]:
        frequencies = self._frequencies(name)
        return [*super()._tensors(name), *([] if frequencies is None else [frequencies])]

    def _frequencies(self, name: str) -> Tensor | None:
        regularization = self.model.regularization
        if regularization is None:
            return None
        values: Tensor = getattr(regularization, "image_id" if name == _IMAGE_IDS else name)
        return values

    # ------------------------------------------------------------------------------- a step
    def _loss(self, part: RankerBatch, impressions: int) -> BatchLoss:
        """Of this rank's part; the regularisation is added by the owners of rows."""
        model = self.model
        rows = self._rows(part)
        images = model.find(part)
        vectors = ids = None
        if images is not None and self.images is not None:
            vectors = self.images.vectors(images.rows)
        if images is not None and model.image_ids is not None:
            id_rows, index = model.image_ids.find(images)
            ids = ImageIds(id_rows, self._pull(_IMAGE_IDS, id_rows), index)
        self._count(part.source, images)
        logits = model.logits(part, rows, images, vectors, ids)
        loss = self._cross_entropy(logits, part, impressions)
        return BatchLoss(loss, loss)

    def _pull(self, name: str, rows: Tensor) -> Tensor:
        vectors = super()._pull(name, rows)
        if vectors.shape[1]:
            self.wanted.ids += rows.numel()
            self.wanted.id_floats += vectors.numel()
        return vectors

    def _after_backward(self) -> None:
        if self.images is not None:
            self.images.backward()

    def _count(self, part: GroupBatch, images: BatchImages | None) -> None:
        columns = (getattr(part, name) for name in (*HISTORY, *IMPRESSIONS))
        self.wanted.sample_bytes += sum(column.nbytes for column in columns)
        if images is not None and self.images is not None:
            self.wanted.images += images.rows.size
            self.wanted.image_places += images.wanted

    # ---------------------------------------------------------------------------- the costs
    def costs(self) -> dict[str, Any]:
        """See `RankTraining.costs`; with what was wanted, for the formulas."""
        job = vars(self.job())
        return {"strategy": self.strategy.value, **super().costs(), "job": job}

    def job(self) -> Job:
        """What this training wanted so far, summed over batches and ranks; all must call it."""
        summed = self._over_ranks(vars(self.wanted))
        batches = summed.pop("batches")
        features = self.model.features
        return Job(
            **summed,
            stored_images=0 if features is None else len(features),
            batches=batches,
            feature_width=0 if features is None else features.width,
            embedding_width=self.model.settings.image_widths[-1],
        )

    def measured(self) -> dict[str, float]:
        """Counters of all ranks together, since the start; bytes and counts. All must call it."""
        stored = 0 if self.images is None else self.images.stored_images
        width = 0 if self.model.features is None else self.model.features.width
        counts = None if self.images is None else self.images.counts
        in_samples = self.strategy is Strategy.PS_WORKER
        return self._over_ranks(
            {
                "image_values": self.image_traffic.values,
                "image_gradients": self.image_traffic.gradients,
                "image_requests": self.image_traffic.ids,
                **self._shared_counts(),
                "server_store": stored * width * FLOAT_BYTES,
                "worker_store": self.wanted.sample_bytes
                + (self.wanted.image_places * width * FLOAT_BYTES if in_samples else 0),
                "images_wanted": 0 if counts is None else counts.wanted,
                "images_embedded": 0 if counts is None else counts.embedded,
                "images_missing": 0 if counts is None else counts.missing,
            }
        )
