"""Pre-rank: of several thousand candidates the best some hundred, by two towers' inner product.

A `PrerankScorer` is one bundle, the vectors of all items of one item table, and the images that
both were made of; it is swapped as a whole, so a request never mixes two of any. The user's vector
is made in the request from the ring of last events (view `user_sequence`), so it follows an event
as soon as the stream has written it; while the ring stays where it is the vector is kept.
"""

import time
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from uic.jobs.serving.read.metrics import Metrics
from uic.jobs.serving.read.reasons import Reason
from uic.jobs.serving.read.store import MemoryReader
from uic.jobs.serving.score.item_vectors import ItemVectors
from uic.jobs.serving.score.items import UNKNOWN_CATEGORY, ItemTable
from uic.jobs.serving.score.sequences import Shown, ranker_batch
from uic.models.bundles.bundle import Bundle, BundleError
from uic.models.rankers.dicm.prerank import Prerank
from uic.models.records.sequence_ring import RING_HEADER, SequenceRing, Sequences

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
    reasons: tuple[Reason, ...]


class PrerankScorer:
    """A bundle with the vectors of all items.

    Args:
        bundle: of the model `prerank`.
        table: items to make vectors of ahead of requests.
        images: vectors of items' images, for a bundle that looks at them.
        ring: format of the stored sequences.

    Raises:
        BundleError: of another model.
    """

    def __init__(
        self,
        bundle: Bundle,
        table: ItemTable,
        images: ItemVectors | None = None,
        ring: SequenceRing | None = None,
    ) -> None:
        model = bundle.model
        if not isinstance(model, Prerank):
            msg = f"{bundle.path}: model {bundle.name} has no two towers; give a bundle of prerank"
            raise BundleError(msg)
        if images is not None:
            images.serve(model)
        self.bundle, self.table, self.images = bundle, table, images
        self.label = f"{bundle.name}/{bundle.version}"
        self._model = model
        self._bias = np.float32(float(model.bias))
        self._ring = ring or SequenceRing()
        self._nobody = self._ring.empty(1)
        self._users: dict[int, tuple[bytes, NDArray[np.float32]]] = {}
        # `flaws`: what every answer says, since some vectors are not what they could be.
        vectors, self.flaws = self._items(table.item_ids, table.category_ids)
        self.matrix = np.pad(vectors, ((0, 1), (0, 0)))  # last row: of unknown items, filled in

    def understands(self, record: bytes) -> bool:
        """Whether a value is a ring of this capacity."""
        return self._ring.holds(record)

    def renew(self, item_ids: NDArray[np.int64]) -> None:
        """Make the vectors of items of the table again, since their images changed."""
        places, known = self._places(item_ids)
        places = places[known]
        vectors, flaws = self._items(item_ids[known], self.table.category_ids[places])
        self.matrix[places] = vectors
        self.flaws |= flaws
        self.forget_users()

    def forget_users(self) -> None:
        """Make the vectors of all users again when they are next asked for."""
        self._users.clear()

    def user_vector(
        self, user_id: int, record: bytes | None
    ) -> tuple[NDArray[np.float32], set[Reason]]:
        """(vector width,), and what is said of the images behind it.

        Args:
            user_id: whose vector is kept while the ring stays at its position.
            record: the user's ring; None for somebody without behaviours.
        """
        position = b"" if record is None else record[_POSITION]
        kept = self._users.get(user_id)
        if kept is not None and kept[0] == position:
            return kept[1], set()
        rings = self._nobody
        if record is not None:
            rings = np.frombuffer(record, dtype=np.uint8).reshape(1, -1)
        history = self._ring.read(rings, self._model.limit)
        nothing = np.zeros(0, dtype=np.int64)
        vector = self._run(history, nothing, nothing, of_users=True)[0]
        reasons = self._reasons()
        if not reasons:
            if len(self._users) >= _USERS_KEPT:
                self._users.pop(next(iter(self._users)))
            self._users[user_id] = (position, vector)
        return vector, reasons

    def score(self, user_id: int, item_ids: NDArray[np.int64], record: bytes | None) -> Preranked:
        """All candidates of a user, none left out yet: one matrix-vector product."""
        places, known = self._places(item_ids)
        user, reasons = self.user_vector(user_id, record)
        reasons = reasons | self.flaws
        vectors = self.matrix[places]  # (candidates, vector width), a copy
        if not known.all():
            unknown = item_ids[~known]
            categories = np.full(len(unknown), UNKNOWN_CATEGORY)
            vectors[~known], more = self._items(unknown, categories)
            reasons |= more | {Reason.UNKNOWN_ITEM}
        logits = vectors @ user + self._bias
        best = np.argsort(-logits, kind="stable")
        return Preranked(item_ids, logits, known, best, self.label, tuple(sorted(reasons)))

    async def answer(
        self, user_id: int, item_ids: NDArray[np.int64], record: bytes | None
    ) -> Preranked:
        """As `score`; vectors of images that the cache lacks do not hold up the loop."""
        if self.images is None:
            return self.score(user_id, item_ids, record)
        return await self.images.answer(lambda: self.score(user_id, item_ids, record))

    def _places(self, item_ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Rows of the matrix, the last one for unknown items, and (n,) bool: known."""
        have = self.table.item_ids
        if not len(have):
            return np.zeros(len(item_ids), np.int64), np.zeros(len(item_ids), np.bool_)
        places = np.minimum(np.searchsorted(have, item_ids), len(have) - 1)
        known = have[places] == item_ids
        return np.where(known, places, len(have)), known

    def _items(
        self, item_ids: NDArray[np.int64], category_ids: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], set[Reason]]:
        """The item tower, block after block: (n, vector width), and what is said of the images."""
        parts = [np.zeros((0, self._model.settings.vector_width), dtype=np.float32)]
        reasons: set[Reason] = set()
        history = self._ring.read(self._nobody, 0)
        for at in range(0, len(item_ids), _BLOCK_ITEMS):
            block = slice(at, at + _BLOCK_ITEMS)
            parts.append(self._run(history, item_ids[block], category_ids[block], of_users=False))
            reasons |= self._reasons()
        return np.concatenate(parts), reasons

    @torch.inference_mode()
    def _run(
        self,
        history: Sequences,
        item_ids: NDArray[np.int64],
        category_ids: NDArray[np.int64],
        *,
        of_users: bool,
    ) -> NDArray[np.float32]:
        if self.images is not None:
            self.images.begin()
        sizes = np.array([len(item_ids)])
        # Towers look at neither user ids nor times.
        nothing = np.zeros(len(item_ids), np.int64)
        shown = Shown(np.zeros_like(sizes), sizes, item_ids, category_ids, nothing)
        batch = ranker_batch(self.bundle, history, shown)
        tower = self._model.user_vectors if of_users else self._model.item_vectors
        vectors: NDArray[np.float32] = tower(batch).numpy()
        return vectors

    def _reasons(self) -> set[Reason]:
        """What the last pass says of images."""
        return set() if self.images is None else set(self.images.reasons())


class PrerankStage:
    """One worker's pre-rank: reads the user's ring, then scores.

    Args:
        scorer: replaced as a whole by `uic.jobs.serving.follow.prerank_watch`.
        reader: of the view `user_sequence`; every failure is a reason.
        metrics: counters.
        keep: candidates that are kept unless a request says otherwise; count.
    """

    def __init__(
        self, scorer: PrerankScorer, reader: MemoryReader, metrics: Metrics, keep: int
    ) -> None:
        self.scorer = scorer
        self.reader = reader
        self.keep = keep
        self.metrics = metrics
        self._store = metrics.seconds.labels("prerank_store")
        self._score = metrics.seconds.labels("prerank_score")

    async def prerank(self, user_id: int, item_ids: list[int]) -> Preranked:
        """Score a user's distinct candidates; never raises for what the store does."""
        started = time.perf_counter()
        fetched = await self.reader.fetch([user_id])
        read = time.perf_counter()
        scorer = self.scorer
        record, reason = fetched.values[0], fetched.reasons[0]
        if record is not None and not scorer.understands(record):
            record, reason = None, Reason.FOREIGN_VALUE
        found = await scorer.answer(user_id, np.array(item_ids, dtype=np.int64), record)
        self._store.observe(read - started)
        self._score.observe(time.perf_counter() - read)
        reasons = (() if reason is None else (reason,)) + found.reasons
        for one in reasons:
            self.metrics.degraded.labels(one.value).inc()
        return Preranked(
            found.item_ids, found.logits, found.known, found.best, found.bundle, reasons
        )
