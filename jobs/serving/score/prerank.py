"""Pre-rank: of several thousand candidates the best some hundred, by two towers' inner product.

A `PrerankScorer` is one bundle, the vectors of all items of one item table, and the images that
both were made of; it is swapped as a whole, so a request never mixes two of any. The user's vector
is made in the request from the ring of last events (view `user_sequence`), so it follows an event
as soon as the stream has written it; while the ring stays where it is the vector is kept.
"""

import time
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from uic.jobs.serving.read.metrics import ServiceMetrics
from uic.jobs.serving.read.reasons import DegradedReason
from uic.jobs.serving.read.records import MemoryReader
from uic.jobs.serving.read.unexpected import log_unexpected
from uic.jobs.serving.score.item_vectors import NO_IMAGES, ItemVectors, ReadImages
from uic.jobs.serving.score.items import UNKNOWN_CATEGORY, ItemTable
from uic.jobs.serving.score.sequences import NO_EVENTS, RING, Shown, ranker_batch
from uic.models.bundles.bundle import Bundle
from uic.models.bundles.documents import BundleError
from uic.models.rankers.dicm.image_ranker import PassImages
from uic.models.rankers.dicm.prerank import Prerank
from uic.models.records.sequence_ring import RING_HEADER, Sequences
from uic.models.samples.batch import RankerBatch

_BLOCK_ITEMS: Final = 4096
_USERS_KEPT: Final = 10_000  # of 12 floats each
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
    """

    item_ids: NDArray[np.int64]
    logits: NDArray[np.float32]
    known: NDArray[np.bool_]
    best: NDArray[np.int64]
    bundle: str
    reasons: tuple[DegradedReason, ...]


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
    """A bundle with the vectors of all items; only its memo of users' vectors changes.

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
        self._users: dict[int, tuple[bytes, NDArray[np.float32]]] = {}
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

    async def answer(
        self, user_id: int, item_ids: NDArray[np.int64], record: bytes | None
    ) -> Preranked:
        """Plan, read the images' vectors without holding up the loop, score.

        Args:
            user_id: whose vector is kept while the ring stays at its position.
            item_ids: (candidates,), distinct.
            record: the user's ring; None for a user without behaviours.
        """
        position = b"" if record is None else record[_POSITION]
        kept_position, user = self._users.get(user_id, (None, None))
        if kept_position != position:
            user = None
        history = self.history(record if user is None else None)
        candidates = self.find(item_ids)
        wanted = self.vectors_needed(candidates, history)
        read = NO_IMAGES if self.images is None else await self.images.read(wanted)
        if user is None:
            user = self.user_vector(history, read)
            if not read.reasons:
                if len(self._users) >= _USERS_KEPT:
                    self._users.pop(next(iter(self._users)))
                self._users[user_id] = (position, user)
        return self.score(candidates, user, read)

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
    def user_vector(self, history: Sequences, read: ReadImages) -> NDArray[np.float32]:
        """(vector width,), of one user's history and the images of its items."""
        nothing = np.zeros(0, dtype=np.int64)
        batch, images = self._batch(history, nothing, nothing, read)
        vector: NDArray[np.float32] = self._model.user_vectors(batch, images)[0].numpy()
        return vector

    def score(
        self, candidates: PrerankCandidates, user: NDArray[np.float32], read: ReadImages
    ) -> Preranked:
        """All candidates of a user, none left out yet: one matrix-vector product.

        Args:
            candidates: found in the matrix.
            user: (vector width,).
            read: images of `vectors_needed`.
        """
        item_ids, known = candidates.item_ids, candidates.known
        reasons = self.flaws.union(read.reasons)
        vectors = self.matrix[candidates.rows]  # (candidates, vector width), a copy
        if not known.all():
            unknown = item_ids[~known]
            vectors[~known] = self._items(unknown, np.full(len(unknown), UNKNOWN_CATEGORY), read)
            reasons |= {DegradedReason.UNKNOWN_ITEM}
        logits = vectors @ user + self._bias
        best = np.argsort(-logits, kind="stable")
        return Preranked(item_ids, logits, known, best, self.label, tuple(sorted(reasons)))

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
        vectors: NDArray[np.float32] = self._model.item_vectors(batch, images).numpy()
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


class PrerankStage:
    """One worker's pre-rank: reads the user's ring, then scores.

    Args:
        scorer: replaced as a whole when a bundle is swapped.
        reader: of the view `user_sequence`; every failure is a reason.
        metrics: counters.
        keep: candidates that are kept unless a request says otherwise; count.
    """

    def __init__(
        self, scorer: PrerankScorer, reader: MemoryReader, metrics: ServiceMetrics, keep: int
    ) -> None:
        self.scorer = scorer
        self.reader = reader
        self.keep = keep
        self.metrics = metrics
        self._store = metrics.seconds.labels("prerank_store")
        self._score = metrics.seconds.labels("prerank_score")

    def use(self, scorer: PrerankScorer) -> None:
        """Score with this one from the next request on."""
        self.scorer = scorer

    async def prerank(self, user_id: int, item_ids: list[int]) -> Preranked:
        """Score a user's distinct candidates; never raises for what the store does."""
        started = time.perf_counter()
        fetched = await self.reader.fetch([user_id])
        read = time.perf_counter()
        scorer = self.scorer
        record, reason = fetched.values[0], fetched.reasons[0]
        if record is not None and not RING.holds(record):
            record, reason = None, DegradedReason.FOREIGN_VALUE
        items = np.array(item_ids, dtype=np.int64)
        answer, failure = await _scored(scorer, user_id, items, record)
        if failure is not None:  # the record is the likeliest cause: once more without
            reason = failure
            answer, failure = await _scored(scorer, user_id, items, None)
        if failure is not None:
            answer = _unscored(scorer, items)
        assert answer is not None  # noqa: S101 - or there was a failure
        self._store.observe(read - started)
        self._score.observe(time.perf_counter() - read)
        reasons = (() if reason is None else (reason,)) + answer.reasons
        for one in reasons:
            self.metrics.degraded.labels(one.value).inc()
        return replace(answer, reasons=reasons)


async def _scored(
    scorer: PrerankScorer, user_id: int, item_ids: NDArray[np.int64], record: bytes | None
) -> tuple[Preranked | None, DegradedReason | None]:
    """An answer of finite scores, or why there is none."""
    try:
        answer = await scorer.answer(user_id, item_ids, record)
    except Exception as error:  # an answer of equal scores, and never a 5xx
        log_unexpected(f"the pre-rank of one user with {scorer.label}", error)
        return None, DegradedReason.INTERNAL_ERROR
    if not np.isfinite(answer.logits).all():
        return None, DegradedReason.NOT_FINITE
    return answer, None


def _unscored(scorer: PrerankScorer, item_ids: NDArray[np.int64]) -> Preranked:
    """Equal scores, which leave the candidates in the order of the request."""
    count = len(item_ids)
    logits, known = np.zeros(count, np.float32), np.ones(count, np.bool_)
    return Preranked(item_ids, logits, known, np.arange(count), scorer.label, ())
