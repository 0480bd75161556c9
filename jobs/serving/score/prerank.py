"""Pre-rank: of several thousand candidates the best some hundred, by two towers' inner product.

A `PrerankScorer` is one bundle, the vectors of all items of one item table, and the images that
both were made of; it is swapped as a whole, so a request never mixes two of any. The user's vector
is made in the request from the ring of last events (view `user_sequence`), so it follows an event
as soon as the stream has written it; while the ring stays where it is what it adds up to is kept.
Features of items are in the items' vectors; those of the user are read with the ring, and those of
the context come with the request.
"""

import logging
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uic.jobs.serving.read.reasons import DegradedReason
from uic.jobs.serving.score.asks import Ask, FeatureFaults
from uic.jobs.serving.score.features import ServedFeatures
from uic.jobs.serving.score.item_vectors import NO_IMAGES, ItemVectors, ReadImages
from uic.jobs.serving.score.items import UNKNOWN_CATEGORY, ItemTable
from uic.jobs.serving.score.sequences import NO_EVENTS, RING, Shown, ranker_batch
from uic.models.bundles.bundle import Bundle
from uic.models.bundles.documents import BundleError
from uic.models.rankers.dicm.image_ranker import PassImages
from uic.models.rankers.dicm.prerank import Prerank
from uic.models.records.sequence_ring import RING_HEADER, Sequences
from uic.models.samples.batch import RankerBatch

LOG: Final = logging.getLogger("uic.serve")
_BLOCK_ITEMS: Final = 4096
_USERS_KEPT: Final = 10_000  # of some tens of floats each
# Everything of a ring's header that moves with an event.
_POSITION: Final = slice(8, RING_HEADER.itemsize)


@dataclass(frozen=True)
class Preranked:
    """The answer to one user's candidates.

    Args:
        item_ids: (candidates,), int64, distinct, in the order of the request.
        logits: (candidates,), float32.
        known: (candidates,), bool: in the item table.
        best: indices of the kept candidates, best first; ties in the order of the request.
        bundle: `model/version`.
        reasons: why the answer is degraded; empty if it is not.
        faults: features that were served with their defaults.
    """

    item_ids: NDArray[np.int64]
    logits: NDArray[np.float32]
    known: NDArray[np.bool_]
    best: NDArray[np.int64]
    bundle: str
    reasons: tuple[DegradedReason, ...]
    faults: FeatureFaults = field(default_factory=FeatureFaults)


@dataclass(frozen=True)
class PrerankCandidates:
    """Some items, and where the matrix has their vectors.

    Attributes:
        item_ids: (candidates,), int64, distinct.
        rows: (candidates,), int64, rows of the matrix; the last one for unknown items.
        known: (candidates,), bool: in the item table.
    """

    item_ids: NDArray[np.int64]
    rows: NDArray[np.int64]
    known: NDArray[np.bool_]


class PrerankScorer:
    """A bundle with the vectors of all items; only its memo of users' histories changes.

    Args:
        bundle: of the model `prerank`.
        table: items to make vectors of ahead of requests.
        images: vectors of items' images, for a bundle that looks at them.
        vectors: (items, vector width), made before; None makes them now.
        flaws: what every answer says, since some of `vectors` are not what they could be.

    Raises:
        BundleError: of another model.
    """

    def __init__(
        self,
        bundle: Bundle,
        table: ItemTable,
        images: ItemVectors | None = None,
        *,
        vectors: NDArray[np.float32] | None = None,
        flaws: frozenset[DegradedReason] = frozenset(),
    ) -> None:
        model = bundle.model
        if not isinstance(model, Prerank):
            msg = f"{bundle.path}: model {bundle.name} has no two towers; give a bundle of prerank"
            raise BundleError(msg)
        self.bundle, self.table, self.images = bundle, table, images
        self.label = f"{bundle.name}/{bundle.version}"
        self._model = model
        self._bias = np.float32(float(model.bias))
        self._users: dict[int, tuple[bytes, Tensor]] = {}
        self.features = ServedFeatures(bundle, table.features)
        self._user_side = bool(self.features.users or self.features.context)
        lacking = self.features.lacking_items(table.item_ids)
        self._lacking = np.pad(lacking, ((0, 1), (0, 0)))  # last row: as of `matrix`
        self.flaws = flaws
        if vectors is None:
            vectors, self.flaws = self._all_items()
        self.matrix = np.pad(vectors, ((0, 1), (0, 0)))  # last row: of unknown items, filled in

    @property
    def incomplete(self) -> bool:
        """Whether some vectors were made without images that the store has."""
        return DegradedReason.ITEM_VECTORS_UNAVAILABLE in self.flaws

    def with_images(self, images: ItemVectors) -> "PrerankScorer":
        """The same bundle with the vectors of all items made of other images."""
        return PrerankScorer(self.bundle, self.table, images)

    def with_new_images(self, item_ids: NDArray[np.int64], read: ReadImages) -> "PrerankScorer":
        """The same bundle with the vectors of some items made again; users' are not kept."""
        candidates = self.find(item_ids)
        rows = candidates.rows[candidates.known]
        vectors = self.matrix[:-1].copy()
        categories = self.table.category_ids[rows]
        vectors[rows] = self._items(item_ids[candidates.known], categories, read)
        flaws = self.flaws.union(read.reasons)
        return PrerankScorer(self.bundle, self.table, self.images, vectors=vectors, flaws=flaws)

    async def answer(self, user_id: int, ask: Ask) -> Preranked:
        """Plan, read the images' vectors without holding up the loop, score.

        Args:
            user_id: whose history is not summed again while the ring stays at its position.
            ask: distinct candidates, the user's ring and row of features, the context.
        """
        record = ask.record
        position = b"" if record is None else record[_POSITION]
        kept_position, sums = self._users.get(user_id, (None, None))
        if kept_position != position:
            sums = None
        history = self.history(record if sums is None else None)
        candidates = self.find(np.array(ask.item_ids, np.int64))
        wanted = self.vectors_needed(candidates, history)
        read = NO_IMAGES if self.images is None else await self.images.read(wanted)
        if sums is None:
            sums = self.sums(history, read)
            if not read.reasons:
                if len(self._users) >= _USERS_KEPT:
                    self._users.pop(next(iter(self._users)))
                self._users[user_id] = (position, sums)
        return self.score(candidates, sums, read, ask)

    def history(self, record: bytes | None) -> Sequences:
        """The events of a ring that the model looks at."""
        ring = NO_EVENTS if record is None else record
        return RING.read(np.frombuffer(ring, dtype=np.uint8).reshape(1, -1), self._model.limit)

    def vectors_needed(
        self, candidates: PrerankCandidates, history: Sequences
    ) -> NDArray[np.int64]:
        """Distinct items, ascending, whose images the scores depend on: the table's are done."""
        unknown = candidates.item_ids[~candidates.known]
        return self._model.wanted_items(history.item_ids, unknown)

    @torch.inference_mode()
    def sums(self, history: Sequences, read: ReadImages) -> Tensor:
        """(1, width), what the user tower takes of a history and the images of its items."""
        nothing = np.zeros(0, dtype=np.int64)
        batch, images = self._batch(history, nothing, nothing, read)
        return self._model.history_sums(batch, images)

    def score(
        self, candidates: PrerankCandidates, sums: Tensor, read: ReadImages, ask: Ask
    ) -> Preranked:
        """All candidates of a user, none left out yet: one matrix-vector product.

        Args:
            candidates: found in the matrix.
            sums: of the user's history, (1, width).
            read: images of `vectors_needed`.
            ask: the same candidates, and the user's features.
        """
        item_ids, known = candidates.item_ids, candidates.known
        reasons = self.flaws.union(read.reasons)
        users, faults = self._user_vectors(sums, ask)
        vectors = self.matrix[candidates.rows]  # (candidates, vector width), a copy
        lacking = self._lacking[candidates.rows]
        if not known.all():
            unknown = item_ids[~known]
            vectors[~known] = self._items(unknown, np.full(len(unknown), UNKNOWN_CATEGORY), read)
            lacking[~known] = self.features.lacking_items(unknown)
            reasons |= {DegradedReason.UNKNOWN_ITEM}
        faults.add_items(self.features.items, lacking)
        reasons |= set(faults.reasons())
        # A context of one value a candidate gives each a vector of its own.
        products = vectors @ users[0] if len(users) == 1 else (vectors * users).sum(axis=1)
        logits = products + self._bias
        best = np.argsort(-logits, kind="stable")
        said = tuple(sorted(reasons))
        return Preranked(item_ids, logits, known, best, self.label, said, faults)

    @torch.inference_mode()
    def _user_vectors(self, sums: Tensor, ask: Ask) -> tuple[NDArray[np.float32], FeatureFaults]:
        """(1 or candidates, vector width), and features that had their defaults."""
        if not self._user_side:
            return self._model.user_vectors(sums).numpy(), FeatureFaults()
        features, faults = self.features.of_user(ask)
        vectors = self._model.user_vectors(sums.expand(len(features), -1), features)
        return vectors.numpy(), faults

    def find(self, item_ids: NDArray[np.int64]) -> PrerankCandidates:
        """Where the matrix has the vectors of items."""
        have = self.table.item_ids
        if not len(have):
            rows = np.zeros(len(item_ids), np.int64)
            return PrerankCandidates(item_ids, rows, rows > 0)
        rows = np.minimum(np.searchsorted(have, item_ids), len(have) - 1)
        known = have[rows] == item_ids
        return PrerankCandidates(item_ids, np.where(known, rows, len(have)), known)

    def _all_items(self) -> tuple[NDArray[np.float32], frozenset[DegradedReason]]:
        """Vectors of the table's items, block after block, and what is said of their images."""
        parts = [np.zeros((0, self._model.settings.vector_width), dtype=np.float32)]
        reasons: frozenset[DegradedReason] = frozenset()
        for at in range(0, len(self.table.item_ids), _BLOCK_ITEMS):
            block = slice(at, at + _BLOCK_ITEMS)
            item_ids = self.table.item_ids[block]
            read = NO_IMAGES
            if self.images is not None:
                read = self.images.read_now(self._model.wanted_items(item_ids[:0], item_ids))
            reasons = reasons.union(read.reasons)
            parts.append(self._items(item_ids, self.table.category_ids[block], read))
        return np.concatenate(parts), reasons

    @torch.inference_mode()
    def _items(
        self,
        item_ids: NDArray[np.int64],
        category_ids: NDArray[np.int64],
        read: ReadImages,
    ) -> NDArray[np.float32]:
        """The item tower: (n, vector width)."""
        batch, images = self._batch(RING.read(RING.empty(1), 0), item_ids, category_ids, read)
        features = self.features.embed_items(item_ids)[0] if self.features.items else None
        vectors: NDArray[np.float32] = self._model.item_vectors(batch, images, features).numpy()
        return vectors

    def _batch(
        self,
        history: Sequences,
        item_ids: NDArray[np.int64],
        category_ids: NDArray[np.int64],
        read: ReadImages,
    ) -> tuple[RankerBatch, PassImages | None]:
        """What the towers take."""
        sizes = np.array([len(item_ids)])
        # Towers look at neither user ids nor times.
        nothing = np.zeros(len(item_ids), np.int64)
        shown = Shown(np.zeros_like(sizes), sizes, item_ids, category_ids, nothing)
        batch = ranker_batch(self.bundle, history, shown)
        return batch, self._model.precomputed_images(batch, read.images)
