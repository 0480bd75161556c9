"""The other architecture: interest is computed in the request, from the stored last events.

`uic serve --bundle din --history-from log` runs it, so that the gain of memories can be measured on
one machine, one store and one HTTP stack. `SequenceScorer` runs a trained ranker over candidates
and histories; `uic.jobs.stream.fold.sequence_fill` puts what the event log has into the store.

1. Plan: the histories say which items' images matter, beside those of the candidates.
2. Read the vectors of these images, if the model looks at images.
3. Score: a function of the asks and of what was read.

A bundle that was trained with features of a record reads the user's record beside the ring, in the
same round trip. Exact parts depend on `state.yaml` alone, so the record may be of any bundle that
has the same ones: of this one, of MIMN, or of the parts alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uic.feature_repo.store.layout import NO_GENERATION
from uic.jobs.serving.read.reasons import DegradedReason
from uic.jobs.serving.score.asks import (
    Ask,
    RecordFacts,
    Scored,
    by_task,
    candidates_of,
    header_facts,
    part_of_tasks,
    rows_by_ask,
)
from uic.jobs.serving.score.features import ServedFeatures
from uic.jobs.serving.score.item_vectors import NO_IMAGES, ItemVectors, ReadImages
from uic.jobs.serving.score.items import ItemTable
from uic.jobs.serving.score.state import RecordFeatures
from uic.models.bundles.bundle import Bundle
from uic.models.rankers.dicm.image_ranker import ImageRanker
from uic.models.records.record import BUNDLE_HASH, RECORD_MAGIC
from uic.models.records.sequence_ring import SequenceRing, Sequences
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
        features: (candidates, width), embedded; None for a bundle without.
    """

    user_ids: NDArray[np.int64]
    sizes: NDArray[np.int64]
    item_ids: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    moments_ms: NDArray[np.int64]
    features: Tensor | None = None


class SequenceScorer:
    """A bundle of a ranker that reads histories; it alone scores every user.

    Args:
        bundle: of any model without a memory.
        table: gives candidates their categories.
        images: vectors of items' images, for a model that looks at them.
        records: whose records have the bundle's exact parts, by the hash of their bundle, with
            their width in bytes.
    """

    incomplete: Final = False  # nothing is computed ahead that could lack an image

    def __init__(
        self,
        bundle: Bundle,
        table: ItemTable,
        images: ItemVectors | None = None,
        records: Mapping[bytes, int] | None = None,
    ) -> None:
        self.bundle, self.table, self.images = bundle, table, images
        self.label = f"{bundle.name}/{bundle.version}"
        self.features = ServedFeatures(bundle, table.features)
        self.records = {} if records is None else records
        self._parts = RecordFeatures(bundle, table)
        self._ranker = images_ranker(bundle)
        # What a model of images does not look at is not read; others may look at everything.
        self._limit = None if self._ranker is None else self._ranker.limit

    def with_images(self, images: ItemVectors) -> "SequenceScorer":
        """The same bundle with other vectors of images."""
        return SequenceScorer(self.bundle, self.table, images, self.records)

    def with_new_images(self, item_ids: NDArray[np.int64], read: ReadImages) -> Self:  # noqa: ARG002
        """Itself: vectors are taken from the cache in each request."""
        return self

    def with_table(self, table: ItemTable) -> "SequenceScorer":
        """The same bundle with another item table."""
        return SequenceScorer(self.bundle, table, self.images, self.records)

    def with_records(self, records: Mapping[bytes, int]) -> "SequenceScorer":
        """The same bundle, which reads the parts of other bundles' records."""
        return SequenceScorer(self.bundle, self.table, self.images, records)

    # Scoring

    def cache_counts(self) -> tuple[int, int]:
        """Items whose image vectors the cache had, and those it lacked, since it was made."""
        return (0, 0) if self.images is None else (self.images.cache.hits, self.images.cache.misses)

    async def answer(self, asks: Sequence[Ask]) -> list[Scored]:
        """Steps 1 to 3."""
        history = self.histories(asks)
        wanted = self.vectors_needed(asks, history)
        read = NO_IMAGES if self.images is None else await self.images.read(wanted)
        return self.score(asks, history, read)

    def answer_now(self, asks: Sequence[Ask]) -> list[Scored]:
        """As `answer`, holding up the caller."""
        history = self.histories(asks)
        wanted = self.vectors_needed(asks, history)
        read = NO_IMAGES if self.images is None else self.images.read_now(wanted)
        return self.score(asks, history, read)

    def histories(self, asks: Sequence[Ask]) -> Sequences:
        """Step 1: the events of users, as many as the model may look at."""
        rings = bytearray().join(ask.record or NO_EVENTS for ask in asks)
        stacked = np.frombuffer(rings, dtype=np.uint8).reshape(len(asks), RING.ring_bytes)
        return RING.read(stacked, self._limit)

    def vectors_needed(self, asks: Sequence[Ask], history: Sequences) -> NDArray[np.int64]:
        """Step 1: distinct items, ascending, whose images the scores depend on."""
        if self._ranker is None:
            return np.zeros(0, dtype=np.int64)
        candidates = np.array(candidates_of(asks), dtype=np.int64)
        return self._ranker.wanted_items(history.item_ids, candidates)

    def score(self, asks: Sequence[Ask], history: Sequences, read: ReadImages) -> list[Scored]:
        """Step 3: one forward pass over the candidates and histories of some users.

        Args:
            asks: users.
            history: theirs.
            read: images of `vectors_needed`.
        """
        item_ids = np.array(candidates_of(asks), dtype=np.int64)
        sizes = np.array([len(ask.item_ids) for ask in asks])
        categories, known = self.table.categories(item_ids)
        moments = np.repeat([ask.moment_ms for ask in asks], sizes)
        users = np.array([ask.user_id for ask in asks])
        of_parts = self._parts.of_histories(asks, categories)
        features = self.features.of(asks, *self.features.embed_items(item_ids), of_parts)
        shown = Shown(users, sizes, item_ids, categories, moments, features.embedded)
        all_logits, without_image = self._logits(history, shown, read)
        logits, tasks = by_task(all_logits, self.bundle.model.tasks)
        new_user = None
        if any(ask.explain for ask in asks):
            one = replace(shown, user_ids=users[:1] * 0, sizes=np.array([len(item_ids)]))
            of_all, _ = self._logits(RING.read(RING.empty(1)), one, read)
            new_user, _ = by_task(of_all, self.bundle.model.tasks)
        answers = []
        for at, (ask, rows) in enumerate(zip(asks, rows_by_ask(asks), strict=True)):
            faults = features.faults[at]
            without = new_user[rows] if new_user is not None and ask.explain else None
            answers.append(
                Scored(
                    logits[rows],
                    known[rows],
                    self.label,
                    without,
                    reasons=(*read.reasons, *faults.reasons()),
                    without_image=without_image,
                    faults=faults,
                    features=features.values(at, ask),
                    tasks=part_of_tasks(tasks, rows),
                    record=ask.beside,
                )
            )
            without_image = 0  # of the whole pass, counted once
        return answers

    @torch.inference_mode()
    def _logits(
        self, history: Sequences, shown: Shown, read: ReadImages
    ) -> tuple[NDArray[np.float32], int]:
        """`Outputs.all_logits`, and how many items were scored with the default image."""
        batch = ranker_batch(self.bundle, history, shown)
        if self._ranker is None:
            logits: NDArray[np.float32] = self.bundle.model.all_logits(batch).numpy()
            return logits, 0
        images = self._ranker.precomputed_images(batch, read.images)
        rows = self._ranker.embedding.rows(batch)
        logits = self._ranker.outputs_with(batch, rows, images).all_logits.numpy()
        return logits, 0 if images is None else images.found.missing

    # What the engine asks of scorers, this one being all there are

    @property
    def current(self) -> Self:
        """Itself."""
        return self

    @property
    def others(self) -> list[Self]:
        """None: a ring belongs to no bundle."""
        return []

    @property
    def item_version(self) -> int | None:
        """The item version of its vectors; None without images."""
        return None if self.images is None else self.images.source.version

    def choose(self, record: bytes) -> Self | None:
        """Itself, if the value is a ring of the capacity that it reads."""
        return self if RING.holds(record) else None

    @property
    def reads_parts(self) -> bool:
        """Whether records are read beside the rings."""
        return self._parts.bytes > 0

    def beside(self, record: bytes | None) -> tuple[bytes | None, DegradedReason | None]:
        """The record of a user if its exact parts are those of the bundle, or why it is not used.

        Args:
            record: as the store has it; None for none.
        """
        if not self.reads_parts:
            return None, None
        if record is None:
            return None, DegradedReason.PARTS_MISSING
        if not record.startswith(RECORD_MAGIC):
            return None, DegradedReason.FOREIGN_VALUE
        if self.records.get(record[BUNDLE_HASH]) != len(record):
            return None, DegradedReason.UNKNOWN_BUNDLE
        return record, None

    def facts(self, record: bytes) -> RecordFacts:
        """Position and events; a ring has neither a generation nor a bundle, a record has both.

        Raises:
            RingFormatError: the value is neither.
        """
        if record.startswith(RECORD_MAGIC):
            return header_facts(record)
        stored = np.frombuffer(record, dtype=np.uint8).reshape(1, -1)
        RING.check(stored, "user_sequence")
        header = RING.header(stored)[0]
        last = RING.read(stored, limit=1)
        return RecordFacts(
            generation=NO_GENERATION,
            events=int(header["appended"]),
            last_event_time_ms=int(last.event_times_ms[-1]) if len(last.event_times_ms) else 0,
            bundle="",
            epoch=int(header["epoch"]),
            partition=int(header["partition"]),
            offset=int(header["offset"]),
        )

    def state_numbers(self, record: bytes) -> None:  # noqa: ARG002 - as `MemoryScorers`
        """A history has no state to show."""
        return


def images_ranker(bundle: Bundle) -> ImageRanker | None:
    """The bundle's model, if it needs to know which image an item shows."""
    model = bundle.model
    return model if isinstance(model, ImageRanker) and model.settings.wants_images else None


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
        embedded_features=shown.features,
    )


def _tensor(values: NDArray[np.int64]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64))
