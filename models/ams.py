"""Advanced Model Server: DICM trained over several processes (DICM, section 4, algorithm 1).

Every rank is a worker and a server, as in the paper (section 4.2). As a worker it has a part of
each batch, the aggregator and the MLP; as a server, a part of the images, the embedding model E
and a part of the ID embeddings. One step, the same on all ranks:

1. Pull embeddings of IDs from their owners.
2. Ask the owners of images for vectors (`SERVEREMBED`); how depends on the strategy.
3. Forward and backward of the worker's part: the sum over its impressions, divided by the
   impressions of the whole batch, so that gradients of ranks add up.
4. Push gradients of ID embeddings, and of image vectors (`SERVERUPDATE`).
5. Sum the gradients of the worker's model and of E over all ranks.
6. Clip by the norm of everything, and move: dense weights on all ranks alike, rows at their owners.

The result is that of one process, but for the order of sums.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from models.ams_bytes import FLOAT_BYTES, Job, Strategy
from models.ams_ids import IdServer
from models.ams_images import RankImages, images_on_ranks
from models.batch import RankerBatch
from models.batch_images import BatchImages, ImageSourceError
from models.dicm import Dicm
from models.embedding import BatchRows
from models.groups import GroupBatch
from models.head import RunningNorm
from models.image_id_table import ImageIds
from models.optimizer import Optimizer
from models.shard_world import ShardWorld, Traffic

# What `torch.nn.utils.clip_grad_norm_` adds to the norm.
_CLIP_EPSILON = 1e-6
_IMAGE_IDS = "image_ids.table"


@dataclass
class Wanted:
    """What this rank's parts of batches wanted so far; sums over ranks make a `Job`.

    Attributes:
        steps: batches.
        images: distinct images a batch.
        image_places: places of samples that show one.
        ids: distinct IDs a batch, over all tables.
        id_floats: floats of their embeddings.
        sample_bytes: of the samples without images.
    """

    steps: int = 0
    images: int = 0
    image_places: int = 0
    ids: int = 0
    id_floats: int = 0
    sample_bytes: int = 0


class AmsRank:
    """One rank of a training.

    Args:
        model: with images attached; whole, the same on every rank. Its tables are taken apart:
            between `share` and `gather` they hold nothing.
        optimizer: of this model, moments included.
        world: the ranks.
        strategy: where images are embedded.

    Attributes:
        wanted: what was asked for, whether or not it lay on this rank.
        image_traffic: what left this rank for images.
        id_traffic: the same for IDs.
    """

    def __init__(
        self, model: Dicm, optimizer: Optimizer, world: ShardWorld, strategy: Strategy
    ) -> None:
        self.model, self.optimizer, self.world = model, optimizer, world
        self.strategy = strategy
        self.wanted = Wanted()
        self.image_traffic, self.id_traffic = Traffic(), Traffic()
        self.images: RankImages | None = None
        self._local = model.vectors
        self._ids: dict[str, IdServer] = {}
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
        for module in model.modules():
            if isinstance(module, RunningNorm):
                module.sum_over_ranks = world.sum

    # ------------------------------------------------------------------------- tables, apart
    def share(self) -> None:
        """Take the tables apart, if they are whole: each rank keeps its rows."""
        if self._ids:
            return
        self.model.vectors = self.images
        for name, whole in self.optimizer.rows.items():
            if not whole.table.numel():  # a table without width
                continue
            frequencies = self._frequencies(name)
            self._ids[name] = IdServer(
                replace(self.world, traffic=self.id_traffic),
                whole,
                frequencies,
                self.model.settings.adaptive_regularization,
            )
            self._resize(name, 0)

    def gather(self) -> None:
        """Put the tables together again on every rank, if they are apart."""
        for name, server in self._ids.items():
            whole = self.optimizer.rows[name]
            self._resize(name, server.router.rows)
            server.gather(whole, self._frequencies(name))
        self._ids.clear()
        self.model.vectors = self._local

    def _frequencies(self, name: str) -> Tensor | None:
        regularization = self.model.regularization
        if regularization is None:
            return None
        found: Tensor = getattr(regularization, "image_id" if name == _IMAGE_IDS else name)
        return found

    def _resize(self, name: str, rows: int) -> None:
        """Give every whole tensor of a table so many rows, with any values."""
        whole = self.optimizer.rows[name]
        frequencies = self._frequencies(name)
        tensors = [whole.table, whole.mean, whole.square]
        for tensor in tensors if frequencies is None else [*tensors, frequencies]:
            tensor.data = tensor.data.new_empty((rows, *tensor.shape[1:]))
        # The model's parameter and the optimiser's table are one piece of memory.
        self._parameter(name).data = whole.table.data

    def _parameter(self, name: str) -> nn.Parameter:
        if name in {"item", "category"}:
            found: nn.Parameter = getattr(self.model.embedding, name)
            return found
        return self.model.get_parameter(f"{name}.weight")

    # ------------------------------------------------------------------------------- a step
    def part_of(self, batch: GroupBatch) -> GroupBatch:
        """This rank's groups of a batch; may be none."""
        mine = np.arange(self.world.rank, batch.groups, self.world.size)
        return batch.select(mine)

    def step(self, part: RankerBatch, impressions: int) -> Tensor:
        """One step of the whole batch.

        Args:
            part: this rank's, encoded.
            impressions: of the whole batch.

        Returns:
            scalar: the loss of the whole batch, the same on all ranks.

        Raises:
            RankDiedError: names the ranks that are gone.
        """
        self.share()
        loss = self._loss(part, impressions)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.images is not None:
            self.images.backward()
        squares = sum(
            (server.push() for server in self._ids.values()), torch.zeros((), dtype=torch.float64)
        )
        total, squares = self._sum_dense(loss.detach(), squares)
        scale = self._scale(squares)
        for weight in self.optimizer.dense:
            if weight.grad is not None:
                weight.grad *= scale
        rate = self.optimizer.step_dense()
        for server in self._ids.values():
            server.move(rate, self.optimizer.steps, scale)
        return total

    def _loss(self, part: RankerBatch, impressions: int) -> Tensor:
        """Steps 1 to 3."""
        model = self.model
        rows = BatchRows(
            self._pull("item", part.items, model.settings.item_width),
            self._pull("category", part.categories, model.settings.category_width),
        )
        images = model.find(part)
        vectors = ids = None
        if images is not None and self.images is not None:
            vectors = self.images.vectors(images.rows)
        if images is not None and model.image_ids is not None:
            id_rows, index = model.image_ids.find(images)
            ids = ImageIds(id_rows, self._pull(_IMAGE_IDS, id_rows, 0), index)
        self._count(part.source, images)
        logits = model.logits(part, rows, images, vectors, ids)
        return binary_cross_entropy_with_logits(logits, part.labels, reduction="sum") / impressions

    def _pull(self, name: str, ids: Tensor, width: int) -> Tensor:
        server = self._ids.get(name)
        if server is None:  # a table without width
            return self.optimizer.dense[0].new_zeros(ids.shape[0], width)
        self.wanted.ids += ids.numel()
        self.wanted.id_floats += ids.numel() * server.adam.table.shape[1]
        return server.take(ids)

    def _count(self, part: GroupBatch, images: BatchImages | None) -> None:
        self.wanted.steps += 1
        columns = (
            part.history_item_ids,
            part.history_category_ids,
            part.history_behaviors,
            part.history_times_ms,
            part.item_ids,
            part.category_ids,
            part.event_times_ms,
            part.labels,
            part.history_lengths,
        )
        self.wanted.sample_bytes += sum(column.nbytes for column in columns)
        if images is not None and self.images is not None:
            self.wanted.images += images.rows.size
            self.wanted.image_places += images.wanted

    @torch.no_grad()
    def _sum_dense(self, loss: Tensor, squares: Tensor) -> tuple[Tensor, Tensor]:
        """Step 5: one sum over ranks of the dense gradients, the loss and the squares of rows."""
        flat = [
            (torch.zeros_like(weight) if weight.grad is None else weight.grad).flatten()
            for weight in self.optimizer.dense
        ]
        summed = self.world.sum(torch.cat([*flat, loss.view(1)]))
        *gradients, total = torch.split(summed, [*(part.numel() for part in flat), 1])
        for weight, gradient in zip(self.optimizer.dense, gradients, strict=True):
            weight.grad = gradient.view_as(weight).clone()
        return total[0], self.world.sum(squares.to(self.world.device))

    def _scale(self, squares: Tensor) -> float:
        """Step 6: what gradients are multiplied by, from the squares of all rows of tables."""
        if not self.optimizer.gradient_clip:
            return 1.0
        for weight in self.optimizer.dense:
            if weight.grad is not None:
                squares = squares + weight.grad.double().square().sum()
        norm = float(squares.sqrt())
        return min(1.0, self.optimizer.gradient_clip / (norm + _CLIP_EPSILON))

    # ---------------------------------------------------------------------------- the costs
    def job(self) -> Job:
        """What this training wanted so far, summed over batches and ranks; all must call it."""
        counts = vars(self.wanted)
        names = [name for name in counts if name != "steps"]
        summed = self._over_ranks([counts[name] for name in names])
        features = self.model.features
        return Job(
            **dict(zip(names, summed, strict=True)),
            stored_images=0 if features is None else len(features),
            batches=self.wanted.steps,
            feature_width=0 if features is None else features.width,
            embedding_width=self.model.settings.image_widths[-1],
        )

    def measured(self) -> dict[str, float]:
        """Counters of all ranks together, since the start; bytes and counts. All must call it."""
        stored = 0 if self.images is None else self.images.stored_images
        width = 0 if self.model.features is None else self.model.features.width
        counts = None if self.images is None else self.images.counts
        in_samples = self.strategy is Strategy.PS_WORKER
        found = {
            "image_values": self.image_traffic.values,
            "image_gradients": self.image_traffic.gradients,
            "image_requests": self.image_traffic.ids,
            "id_values": self.id_traffic.values,
            "id_gradients": self.id_traffic.gradients,
            "id_requests": self.id_traffic.ids,
            "model_sums": self.world.traffic.sums,
            "server_store": stored * width * FLOAT_BYTES,
            "worker_store": self.wanted.sample_bytes
            + (self.wanted.image_places * width * FLOAT_BYTES if in_samples else 0),
            "images_wanted": 0 if counts is None else counts.wanted,
            "images_embedded": 0 if counts is None else counts.embedded,
            "images_missing": 0 if counts is None else counts.missing,
        }
        summed = self._over_ranks(list(found.values()))
        return {**dict(zip(found, summed, strict=True)), "batches": self.wanted.steps}

    def _over_ranks(self, counts: list[int]) -> list[float]:
        own = torch.tensor(counts, dtype=torch.float64, device=self.world.device)
        summed: list[float] = self.world.sum(own).tolist()
        return summed
