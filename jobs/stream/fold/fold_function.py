"""The body of the stream job: payloads in, memories in the store, reasons of rejected events out.

A plain class, so that tests call it with lists of payloads; `uic.jobs.stream.fold.udf` wraps it for
Flink. The order of one batch:

1. Parse and validate.
2. Hold the first offset of each partition against the store's marker, and drop what is folded.
3. Drop what the generation's rules and the sale calendar leave out.
4. Group by user; take memories from the cache, and read those that it lacks in one bulk read.
5. Fold.
6. Be sure that the topic was still the planned one after the batch had come in.
7. Add the folded events to their users' sequences, if those are kept; write the changed memories,
   then move the markers, on one connection.
8. Keep the written memories in the cache.

An event counts as dealt with when the marker has passed it. So a crash anywhere in here means that
the batch comes again, and that what had landed is skipped (docs/concepts.md, "Effectively once").
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from uic.feature_repo.store.errors import PartitionMovedError, StoreFellBehindError
from uic.feature_repo.store.markers import NO_OFFSET, Marker
from uic.feature_repo.store.writer import MarkerMove
from uic.jobs.stream.fold.batch import (
    StreamBatch,
    offset_ranges,
    readable_columns,
    refuse_gaps,
)
from uic.jobs.stream.fold.counters import PARTITION_MOVED, StreamCounters
from uic.jobs.stream.fold.memory_cache import MemoryCache
from uic.jobs.stream.fold.stores import MemoryStore, SequenceStore, SourceGuard
from uic.models.errors import UicError
from uic.models.memory.fold import EventBatch, MemoryFolder
from uic.models.records.record import Records, header_view
from uic.pipelines.log.epochs import NotedColumn
from uic.pipelines.log.events import EventParser, ParsedEvents
from uic.pipelines.log.positions import largest_so_far

_LONGEST_WAIT_SECONDS: Final = 5.0
_T = TypeVar("_T")


# Events that a generation leaves out: parsed columns and log times in, (events,) bool out.
Exclude = Callable[[ParsedEvents, NDArray[np.int64]], NDArray[np.bool_]]


@dataclass
class FoldFunction:
    """Folds batches of payloads into one generation's memories.

    Args:
        parser: of the wire format.
        folder: the bundle's fold; its `generation` is the one that is served.
        store: the packed memories.
        epoch: of the log that the offsets belong to.
        starts: offset that this run starts reading at, by partition.
        start_markers: marker of each partition when the starts were chosen; NO_OFFSET or no entry
            for none. The first event of a partition may lie anywhere up to the event after the
            marker, or at the start as long as the marker has not fallen; else the store has.
        offset_gaps: whether offsets may leave out some (a transactional topic).
        columns: of events that the bundle reads, and where each begins; the parser's, too.
        exclude: which events the generation leaves out; None for none.
        home: the partition of users (n,), where the topic's partitioner is declared; None binds a
            user to the partition of the first event.
        sequences: the last events of users, kept beside the memories; None to keep none.
        source: asked for each batch whether the topic is still the planned one; None for files.
        cache_users: memories kept between batches.
        retry_seconds: how long to wait for a store that is away.
        counters: totals.
        clock: seconds since 1970 UTC, for freshness only.
        sleep: waits between retries.
        elapsed: seconds of a clock that never steps back, for the limit on retries.
        position_check: False folds replayed events again. For the crash drill alone, which must
            be able to fail.
    """

    parser: EventParser
    folder: MemoryFolder
    store: MemoryStore
    epoch: int
    starts: Mapping[int, int]
    start_markers: Mapping[int, int] = field(default_factory=dict)
    offset_gaps: bool = False
    columns: Sequence[NotedColumn] = ()
    exclude: Exclude | None = None
    home: Callable[[NDArray[np.int64]], NDArray[np.int64]] | None = None
    sequences: SequenceStore | None = None
    source: SourceGuard | None = None
    cache_users: int = 100_000
    retry_seconds: float = 60.0
    counters: StreamCounters = field(default_factory=StreamCounters)
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    elapsed: Callable[[], float] = time.monotonic
    position_check: bool = True

    def __post_init__(self) -> None:
        """Start with an empty cache and no marker known."""
        self._cache = MemoryCache(self.cache_users, self.folder.record_bytes)
        # By partition, what this worker knows to be folded: read once, then its own writes.
        self._marks: dict[int, Marker] = {}
        # By partition, the largest offset that has come in.
        self._seen: dict[int, int] = {}

    def __call__(
        self,
        payloads: Sequence[bytes | None],
        partitions: NDArray[np.int64],
        offsets: NDArray[np.int64],
        log_times_ms: NDArray[np.int64],
    ) -> list[str | None]:
        """Fold one batch.

        Args:
            payloads: (events,), each partition's in order of offset.
            partitions: (events,), int64.
            offsets: (events,), int64.
            log_times_ms: (events,), int64, milliseconds since 1970 UTC, as the log stamped them. A
                broker's clock may step back; what an event counts at is the largest so far.

        Returns:
            (events,): None for an event that is dealt with, else why it was rejected.

        Raises:
            StoreFellBehindError: the store has lost what was folded; start again from its marker.
            TopicChangedError: the topic is another one by now; nothing of the batch was written.
            LogGapError: offsets are missing between this batch and the one before, or within it.
            StoreError: the store was away for longer than `retry_seconds`, or refuses the writer.
        """
        if not len(payloads):
            return []
        if self.source is not None:
            self.source.ask()  # answered while the batch is parsed and folded
        counters = self.counters
        counters.add("batches")
        counters.add("events", len(payloads))
        with counters.stage("parse"):
            parsed = self.parser.parse(payloads, log_times_ms)
            events = readable_columns(parsed, self.columns, partitions, offsets)
            first, last = offset_ranges(partitions, offsets)
        if not self.offset_gaps:
            refuse_gaps(self.epoch, partitions, offsets, self._seen)
        self._open_partitions(first)
        times = largest_so_far(
            log_times_ms, partitions, {at: mark.log_time_ms for at, mark in self._marks.items()}
        )
        batch = StreamBatch(partitions, offsets, log_times_ms, times, events, first, last)
        undone = self._undone(batch)
        try:
            self._fold(batch, undone)
        except PartitionMovedError:
            # Another worker has just put this user into its own partition. With the memory read
            # afresh the fold sees that, and refuses the event with a reason.
            self._cache.clear()
            self._fold(batch, undone)
        self._seen.update(last)
        counters.add_rejects(events.reasons)
        return events.reasons

    def _open_partitions(self, first: Mapping[int, int]) -> None:
        """Step 2, for partitions that this worker sees for the first time."""
        unknown = [partition for partition in first if partition not in self._marks]
        if not unknown:
            return
        stored = self._retried(lambda: self.store.markers(self.folder.generation, self.epoch))
        for partition in unknown:
            mark = stored.get(partition, Marker(NO_OFFSET))
            marker = mark.offset
            start = self.starts.get(partition, 0)
            stands = marker >= self.start_markers.get(partition, NO_OFFSET)
            beyond = first[partition] > (max(marker + 1, start) if stands else marker + 1)
            if beyond and not (self.offset_gaps and stands):
                msg = (
                    f"epoch {self.epoch}, partition {partition}: the first event is at "
                    f"{first[partition]}, but the store's marker is at {marker} and this run "
                    f"started at {start}: the store fell behind; start again from its marker"
                )
                raise StoreFellBehindError(msg)
            self._marks[partition] = mark

    def _undone(self, batch: StreamBatch) -> NDArray[np.int64]:
        """Steps 2 and 3: rows of the accepted columns that are to be folded."""
        at = batch.events.index
        partitions, offsets = batch.partitions[at], batch.offsets[at]
        # Of a list the first item is counted.
        counted = np.diff(at, prepend=-1) > 0
        undone = np.ones(len(at), dtype=np.bool_)
        if self.position_check:
            for partition in batch.first:
                undone &= (partitions != partition) | (offsets > self._marks[partition].offset)
            self.counters.add("skipped", int((~undone & counted).sum()))
            self._refuse_again(batch, np.flatnonzero(~undone))
        if self.home is not None:
            away = self.home(batch.events.user_ids) != partitions
            for position in at[away].tolist():
                batch.events.reasons[position] = PARTITION_MOVED
            undone &= ~away
        if self.exclude is not None:
            left_out = undone & self.exclude(batch.events, batch.log_times_ms[at])
            self.counters.add("excluded", int((left_out & counted).sum()))
            undone &= ~left_out
        return np.flatnonzero(undone)

    def _refuse_again(self, batch: StreamBatch, skipped: NDArray[np.int64]) -> None:
        """Give the events that moved their reason, too, when they are read once more.

        The letter of the first time may have been lost with a checkpoint, and the fold, which
        refused the event then, does not see it now.
        """
        if not skipped.size:
            return
        at = batch.events.index[skipped]
        users, index = np.unique(batch.events.user_ids[skipped], return_inverse=True)
        header = header_view(self._memories(users))[index]
        moved = (header["epoch"] == self.epoch) & (header["partition"] != batch.partitions[at])
        for position in at[moved].tolist():
            batch.events.reasons[position] = PARTITION_MOVED

    def _fold(self, batch: StreamBatch, chosen: NDArray[np.int64]) -> None:
        """Steps 4 to 8, for the `chosen` rows of the accepted columns."""
        events, at = batch.events, batch.events.index[chosen]
        users, user_index = np.unique(events.user_ids[chosen], return_inverse=True)
        records = self._memories(users)
        todo = EventBatch(
            user_index=user_index.astype(np.int64, copy=False),
            item_ids=events.item_ids[chosen],
            category_ids=events.category_ids[chosen],
            behaviors=events.behaviors[chosen],
            event_times_ms=events.event_times_ms[chosen],
            log_times_ms=batch.log_times_ms[at],
            epochs=np.full(len(at), self.epoch, dtype=np.int64),
            partitions=batch.partitions[at],
            offsets=batch.offsets[at],
            columns={name: values[chosen] for name, values in events.columns.items()},
        )
        with self.counters.stage("fold"):
            outcome = self.folder.fold(
                records if self.position_check else _without_positions(records), todo
            )
        if self.source is not None:
            with self.counters.stage("identity"):
                self._retried(self.source.confirm)
        folded = ~(outcome.skipped | outcome.moved)
        done = folded & ~todo.shown
        if self.sequences is not None and done.any():
            self._keep(self.sequences, users, todo.select(done))
        changed = np.unique(user_index[folded])
        self._write(users[changed], outcome.records[changed], batch)
        for position in at[outcome.moved].tolist():
            events.reasons[position] = PARTITION_MOVED
        messages = todo.begins_message(np.arange(len(todo)))
        self.counters.add("folded", int((folded & messages).sum()))
        self.counters.add("skipped", int((outcome.skipped & messages).sum()))
        fresh = batch.stamps_ms[at[folded & messages]]
        self.counters.add_freshness(int(self.clock() * 1000) - fresh)

    def _memories(self, users: NDArray[np.int64]) -> Records:
        """Step 4: (users, record_bytes); new users get the initial memory."""
        records = np.empty((len(users), self.folder.record_bytes), dtype=np.uint8)
        cached = self._cache.get(users, records)
        lacking = np.flatnonzero(~cached)
        self.counters.add("cache_hits", int(cached.sum()))
        self.counters.add("cache_misses", len(lacking))
        if len(lacking):
            with self.counters.stage("read"):
                found_records, found = self._retried(
                    lambda: self.store.read(
                        self.folder.generation, users[lacking], self.folder.record_bytes
                    )
                )
            records[lacking[found]] = found_records[found]
            new = lacking[~found]
            records[new] = self.folder.initial_records(len(new))
        return records

    def _keep(self, sequences: SequenceStore, users: NDArray[np.int64], folded: EventBatch) -> None:
        """Step 7, first half: an event that a memory has seen is in its user's sequence."""
        with self.counters.stage("sequence"):
            left_out = self._retried(lambda: sequences.append(users, folded))
        self.counters.add("left_out_of_sequences", left_out)

    def _write(self, users: NDArray[np.int64], records: Records, batch: StreamBatch) -> None:
        """Step 7, second half, and step 8."""
        moves = [
            MarkerMove(
                self.epoch,
                partition,
                offset,
                self._marks[partition].offset,
                int(batch.log_times_ms[batch.partitions == partition].max()),
            )
            for partition, offset in sorted(batch.last.items())
            if offset > self._marks[partition].offset
        ]
        if not moves and not len(users):
            return
        tries = self.counters.totals["retries"]
        with self.counters.stage("write"):
            landed = self._retried(
                lambda: self.store.write(self.folder.generation, users, records, moves)
            )
        for move in moves:
            self._marks[move.partition] = Marker(move.offset, move.log_time_ms)
        self.counters.add("users", len(users))
        self._cache.put(users[landed], records[landed])
        if not landed.all():
            self._cache.drop(users[~landed])
            # After a retry, what the first try had landed is found there, which is no refusal.
            if self.counters.totals["retries"] == tries:
                self.counters.add("refused_writes", int((~landed).sum()))

    def _retried(self, operation: Callable[[], _T]) -> _T:
        """Run `operation`, waiting for a store that is away; its last error after the limit."""
        wait, began = 0.05, self.elapsed()
        while True:
            try:
                return operation()
            except UicError as error:
                left = self.retry_seconds - (self.elapsed() - began)
                if left <= 0 or not error.passing:
                    raise
                self.counters.add("retries")
                self.sleep(min(wait, left))
                wait = min(wait * 2, _LONGEST_WAIT_SECONDS)


def _without_positions(records: Records) -> Records:
    """A copy whose positions lie before every event: the drill's negative control."""
    bare = records.copy()
    header = header_view(bare)
    header["epoch"] = 0
    header["offset"] = 0
    return bare
