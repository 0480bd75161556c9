"""The other architecture: interest is computed in the request, from the stored last events.

`uic serve --model din --history-from log` runs it, so that the gain of memories can be measured on
one machine, one store and one HTTP stack. `SequenceScorer` runs a trained ranker over candidates
and histories; `uic.jobs.stream.fold.sequence_fill` puts what the event log has into the store.

1. Plan: read the histories, look up categories; the items whose images matter are known.
2. Read the vectors of their images, if the model looks at images.
3. Score: a function of the plan and of what was read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uic.feature_repo.store.layout import NO_GENERATION
from uic.jobs.serving.score.asks import Ask, RecordFacts, Scored, candidates_of, rows_by_ask
from uic.jobs.serving.score.item_vectors import ItemVectors, ReadImages
from uic.jobs.serving.score.items import ItemTable
from uic.models.bundles.bundle import Bundle
from uic.models.rankers.dicm.image_ranker import ImageRanker
from uic.models.records.sequence_ring import RING_HEADER, RING_MAGIC, SequenceRing, Sequences
from uic.models.samples.batch import RankerBatch
from uic.models.samples.groups import GroupBatch, offsets_of

RING: Final = SequenceRing()
NO_EVENTS: Final = RING.empty(1).tobytes()
_NO_DAY: Final = np.datetime64("1970-01-01", "D")


@dataclass(frozen=True)
class Shown:
    """Candidates of some users, user after user.

    Attributes:
        user_ids: (users,), int64.
        sizes: (users,), candidates of each.
        item_ids: (candidates,), int64.
        category_ids: (candidates,), int64.
        moments_ms: (candidates,), when they are shown; milliseconds since 1970 UTC.
    """

    user_ids: NDArray[np.int64]
    sizes: NDArray[np.int64]
    item_ids: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    moments_ms: NDArray[np.int64]


@dataclass(frozen=True)
class SequencePlan:
    """All that some asks are scored with, but for images.

    Attributes:
        history: of the users; of a model that looks at images, the events that it looks at.
        shown: their candidates.
        known: (candidates,), bool: in the item table.
    """

    history: Sequences
    shown: Shown
    known: NDArray[np.bool_]


class SequenceScorer:
    """A bundle of a ranker that reads histories; it alone scores every user.

    Args:
        bundle: of any model without a memory.
        table: gives candidates their categories.
        images: vectors of items' images, for a model that looks at them.
    """

    def __init__(self, bundle: Bundle, table: ItemTable, images: ItemVectors | None = None) -> None:
        self.bundle = bundle
        self.table = table
        self.images = images
        self.label = f"{bundle.name}/{bundle.version}"
        self._ranker = images_ranker(bundle)
        self._limit = None if self._ranker is None else self._ranker.limit

    # A chooser of one scorer

    @property
    def current(self) -> Self:
        """Itself."""
        return self

    @property
    def item_version(self) -> int | None:
        """The item version of its vectors; None without images."""
        return None if self.images is None else self.images.source.version

    @property
    def incomplete(self) -> bool:
        """Nothing is computed ahead that could lack something."""
        return False

    def reads_also(self) -> list[str]:
        """A ring belongs to no bundle, so no other one is needed."""
        return []

    def choose(self, record: bytes) -> Self | None:
        """Itself, if the value is a ring of the capacity that it reads."""
        return self if is_ring(record) else None

    def facts(self, record: bytes) -> RecordFacts:
        """Position and events of a ring; it has neither a generation nor a bundle."""
        header = np.frombuffer(record, dtype=RING_HEADER, count=1)[0]
        ring = SequenceRing(int(header["capacity"]))
        last = ring.read(np.frombuffer(record, dtype=np.uint8).reshape(1, -1), limit=1)
        return RecordFacts(
            generation=NO_GENERATION,
            events=int(header["appended"]),
            last_event_time_ms=int(last.event_times_ms[-1]) if len(last.event_times_ms) else 0,
            bundle="",
            epoch=int(header["epoch"]),
            partition=int(header["partition"]),
            offset=int(header["offset"]),
        )

    def state_numbers(self, record: bytes) -> None:  # noqa: ARG002 - as the other choosers
        """A history has no state to show."""
        return

    # Others in its place

    def with_images(self, images: ItemVectors) -> "SequenceScorer":
        """The same bundle with other vectors of images."""
        return SequenceScorer(self.bundle, self.table, images)

    def with_table(self, table: ItemTable) -> "SequenceScorer":
        """The same bundle with another item table."""
        return SequenceScorer(self.bundle, table, self.images)

    def with_new_images(self, item_ids: NDArray[np.int64], read: ReadImages) -> Self:  # noqa: ARG002
        """Itself: vectors are taken from the cache in each request."""
        return self

    # Scoring

    def cache_counts(self) -> tuple[int, int]:
        """Items whose image vectors the cache had, and those it lacked, since it was made."""
        return (0, 0) if self.images is None else (self.images.cache.hits, self.images.cache.misses)

    async def answer(self, asks: Sequence[Ask]) -> list[Scored]:
        """Steps 1 to 3."""
        plan = self.plan(asks)
        read = None
        if self.images is not None:
            read = await self.images.read(self.vectors_needed(plan))
        return self.score(asks, plan, read)

    def answer_now(self, asks: Sequence[Ask]) -> list[Scored]:
        """As `answer`, holding up the caller."""
        plan = self.plan(asks)
        read = None
        if self.images is not None:
            read = self.images.read_now(self.vectors_needed(plan))
        return self.score(asks, plan, read)

    def plan(self, asks: Sequence[Ask]) -> SequencePlan:
        """Step 1."""
        item_ids = np.array(candidates_of(asks), dtype=np.int64)
        sizes = np.array([len(ask.item_ids) for ask in asks])
        categories, known = self.table.categories(item_ids)
        moments = np.repeat([ask.moment_ms for ask in asks], sizes)
        users = np.array([ask.user_id for ask in asks])
        rings = bytearray().join(ask.record or NO_EVENTS for ask in asks)
        stacked = np.frombuffer(rings, dtype=np.uint8).reshape(len(asks), RING.ring_bytes)
        history = RING.read(stacked, self._limit)
        return SequencePlan(history, Shown(users, sizes, item_ids, categories, moments), known)

    def vectors_needed(self, plan: SequencePlan) -> NDArray[np.int64]:
        """Distinct items, ascending, whose images the scores depend on."""
        if self._ranker is None:
            return np.zeros(0, dtype=np.int64)
        return self._ranker.wanted_items(plan.history.item_ids, plan.shown.item_ids)

    def score(
        self, asks: Sequence[Ask], plan: SequencePlan, read: ReadImages | None
    ) -> list[Scored]:
        """Step 3: one forward pass over the candidates and histories of some users.

        Args:
            asks: users.
            plan: of these asks.
            read: images of `vectors_needed`; None for a model that looks at none.
        """
        logits, without_image = self._logits(plan.history, plan.shown, read)
        new_user = None
        if any(ask.explain for ask in asks):
            shown = plan.shown
            one = Shown(
                user_ids=np.zeros(1, np.int64),
                sizes=np.array([len(shown.item_ids)]),
                item_ids=shown.item_ids,
                category_ids=shown.category_ids,
                moments_ms=shown.moments_ms,
            )
            new_user, _ = self._logits(RING.read(RING.empty(1)), one, read)
        answers = []
        for ask, rows in zip(asks, rows_by_ask(asks), strict=True):
            answers.append(
                Scored(
                    logits[rows],
                    plan.known[rows],
                    self.label,
                    new_user[rows] if new_user is not None and ask.explain else None,
                    None,
                    () if read is None else read.reasons,
                    without_image,
                )
            )
            without_image = 0  # of the whole pass, counted once
        return answers

    @torch.inference_mode()
    def _logits(
        self, history: Sequences, shown: Shown, read: ReadImages | None
    ) -> tuple[NDArray[np.float32], int]:
        """Logits, (candidates,), and how many items were scored with the default image."""
        batch = ranker_batch(self.bundle, history, shown)
        if self._ranker is None or read is None:
            logits: NDArray[np.float32] = self.bundle.model(batch).numpy()
            return logits, 0
        images = self._ranker.precomputed_images(batch, read.images)
        rows = self._ranker.embedding.rows(batch)
        logits = self._ranker.outputs_with(batch, rows, images).logits.numpy()
        return logits, 0 if images is None else images.found.missing


def images_ranker(bundle: Bundle) -> ImageRanker | None:
    """The bundle's model, if it needs to know which image an item shows."""
    model = bundle.model
    return model if isinstance(model, ImageRanker) and model.settings.wants_images else None


def is_ring(record: bytes) -> bool:
    """Whether a value is a ring of the store's capacity."""
    return len(record) == RING.ring_bytes and record.startswith(RING_MAGIC)


def ranker_batch(bundle: Bundle, history: Sequences, shown: Shown) -> RankerBatch:
    """A request as a ranker takes it; rows are looked up once, and not searched for repeats.

    Args:
        bundle: whose vocabulary.
        history: of the users.
        shown: their candidates.
    """
    counts = np.diff(history.offsets)
    events = len(history.item_ids)
    vocabulary = bundle.vocabulary
    items = vocabulary.item.lookup(np.concatenate([history.item_ids, shown.item_ids]))
    kinds = vocabulary.category.lookup(np.concatenate([history.category_ids, shown.category_ids]))
    users = np.arange(len(shown.sizes))
    owners = np.repeat(users, shown.sizes)
    lengths = counts[owners]
    source = GroupBatch(
        user_ids=shown.user_ids,
        days=np.full(len(users), _NO_DAY),
        history_offsets=history.offsets,
        history_item_ids=history.item_ids,
        history_category_ids=history.category_ids,
        history_behaviors=history.behaviors,
        history_times_ms=history.event_times_ms,
        impression_offsets=offsets_of(shown.sizes),
        item_ids=shown.item_ids,
        category_ids=shown.category_ids,
        event_times_ms=shown.moments_ms,
        labels=np.zeros(len(shown.item_ids), np.bool_),
        history_lengths=lengths,
    )
    places = torch.arange(events + len(shown.item_ids))
    return RankerBatch(
        items=_tensor(items),
        categories=_tensor(kinds),
        history_items=places[:events],
        history_categories=places[:events],
        history_starts=_tensor(history.offsets[:-1]),
        history_counts=_tensor(counts),
        candidate_items=places[events:],
        candidate_categories=places[events:],
        groups=_tensor(owners),
        lengths=_tensor(lengths),
        cut_groups=_tensor(users),
        cut_lengths=_tensor(counts),
        cuts=_tensor(owners),
        labels=torch.zeros(len(shown.item_ids)),
        source=source,
    )


def _tensor(values: NDArray[np.int64]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64))
