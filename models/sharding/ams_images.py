"""Where a worker's image vectors come from: AMS, and the two strategies that it replaces.

All three give the same vectors and the same gradients of the embedding model E; they differ in
where features lie, what travels, and how often an image is embedded (DICM, sections 4 and 7.3):

- AMS: an image lies on one server, which embeds it once however many workers want it, and takes
  back the gradient of its vector.
- PS-server: an image lies on one server, its features travel to each worker that wants them.
- PS-worker: features lie in the samples of the worker.

Afterwards the gradients of E are summed over all ranks (`uic.models.sharding.ams`).
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from uic.models.images.embedding import ImageEmbedding
from uic.models.images.features import ImageFeatures
from uic.models.rankers.dicm.batch_images import ImageCounts, LocalImages
from uic.models.sharding.ams_bytes import Strategy
from uic.models.sharding.router import Route, Router
from uic.models.sharding.world import ShardWorld


class WorkerImages(LocalImages):
    """PS-worker: features of the samples at hand, E at the worker."""

    stored_images = 0

    def backward(self) -> None:
        """Nothing is left to do: E is part of the worker's graph."""


class ServedImages:
    """Images over the servers: image `i` lies on rank `i % size`.

    Args:
        world: the ranks, with the counters of image traffic.
        features: of the fixed encoder; this rank answers for its own rows only.
        embedding: E, the same weights on every rank.
    """

    def __init__(
        self, world: ShardWorld, features: ImageFeatures, embedding: ImageEmbedding
    ) -> None:
        self.router = Router(world, len(features))
        self.embedding = embedding
        self.counts = ImageCounts()
        self._own = features.features[world.rank :: world.size]

    @property
    def stored_images(self) -> int:
        """Images that lie here."""
        return len(self._own)

    def route(self, rows: NDArray[np.int64]) -> Route:
        """Ask the owners; every rank must call it."""
        return self.router.route(torch.from_numpy(rows).to(self.router.world.device))

    def features(self, local: Tensor) -> Tensor:
        """Features that lie here: (n,) local rows to (n, features), float32."""
        own = np.ascontiguousarray(self._own[local.cpu().numpy()])
        return torch.from_numpy(own).to(self.router.world.device)

    def embed(self, features: Tensor) -> Tensor:
        """Embed images with E, and count them."""
        self.counts.embedded += features.shape[0]
        vectors: Tensor = self.embedding(features.to(self.embedding.default.dtype))
        return vectors


class PsServerImages(ServedImages):
    """PS-server: features travel, E is at the worker."""

    def vectors(self, rows: NDArray[np.int64]) -> Tensor:
        """See `uic.models.rankers.dicm.batch_images.ImageVectors`."""
        route = self.route(rows)
        return functional.embedding(
            route.index, self.embed(self.router.fetch(route, self.features))
        )

    def backward(self) -> None:
        """Nothing is left to do: E is part of the worker's graph, features have no gradient."""


class AmsImages(ServedImages):
    """AMS: `SERVEREMBED` and `SERVERUPDATE` of algorithm 1."""

    def __init__(
        self, world: ShardWorld, features: ImageFeatures, embedding: ImageEmbedding
    ) -> None:
        super().__init__(world, features, embedding)
        self._answered: Tensor | None = None
        self._taken: tuple[Route, Tensor] | None = None

    def vectors(self, rows: NDArray[np.int64]) -> Tensor:
        """Forward at the servers; see `uic.models.rankers.dicm.batch_images.ImageVectors`."""
        route = self.route(rows)
        leaf = self.router.fetch(route, self._answer)
        leaf.requires_grad_()
        self._taken = (route, leaf)
        return functional.embedding(route.index, leaf)

    def backward(self) -> None:
        """Send the gradients of vectors back; each server goes on into its E."""
        if self._taken is None or self._answered is None:
            return
        route, leaf = self._taken
        gradient = self.router.push(
            route, torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        )
        self._answered.backward(gradient)  # type: ignore[no-untyped-call]
        self._taken = self._answered = None

    def _answer(self, local: Tensor) -> Tensor:
        self._answered = self.embed(self.features(local))
        return self._answered


RankImages = WorkerImages | PsServerImages | AmsImages


def images_on_ranks(
    strategy: Strategy, world: ShardWorld, features: ImageFeatures, embedding: ImageEmbedding
) -> RankImages:
    """This rank's part of a strategy."""
    if strategy is Strategy.PS_WORKER:
        return WorkerImages(features, embedding)
    kind = AmsImages if strategy is Strategy.AMS else PsServerImages
    return kind(world, features, embedding)
