"""The drill's log of events, and its batch fold without Flink and without a store."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from uic.feature_repo.store.packed import PackedStore
from uic.jobs.config.stream import StreamSettings
from uic.jobs.stream.letters.topic_reader import read_topic
from uic.jobs.stream.topics.brokers import Brokers, brokers_of
from uic.jobs.stream.topics.event_files import LoggedPayload, read_lines, scan_folder
from uic.jobs.stream.topics.produce import (
    Outgoing,
    Pace,
    payload_of,
    send_to_kafka,
    shown_payload,
    write_files,
)
from uic.models.features.event_columns import EventColumn
from uic.models.memory.fold import EventBatch, MemoryFolder
from uic.pipelines.log.events import EventParser
from uic.pipelines.log.positions import largest_so_far
from uic.pipelines.log.schemas import BEHAVIORS
from uic.pipelines.settings import LogSettings

ITEMS: Final = 5000
CATEGORIES: Final = 100
MALFORMED_SHARE: Final = 0.002
LISTS_SHARE: Final = 0.1
_MALFORMED: Final = (
    b"",
    b"{",
    b"\xff\xfe\x00",
    b"[1, 2, 3]",
    b'{"user_id": 1}',
    b'{"user_id": -5, "item_id": 1, "category_id": 1, "behavior": "click", "event_time": 1}',
    b'{"user_id": "a", "item_id": 1, "category_id": 1, "behavior": "click", "event_time": 1}',
    b'{"user_id": 1, "item_id": 1, "category_id": 1, "behavior": "stare", "event_time": 1}',
    b'{"user_id": 1, "item_id": 1, "category_id": 1, "behavior": "click", "event_time": 1}',
)
# Not the stream's batches: the fold must not depend on where they end.
_FOLD_ROWS: Final = 7919


@dataclass(frozen=True)
class DrillLog:
    """Payloads and keys of one log, in order of sending."""

    outgoing: Outgoing
    partitions: int

    @classmethod
    def make(cls, events: int, users: int, partitions: int, seed: int) -> Self:
        """A log of `events`, of users of very unequal activity.

        Some are lists of what was shown, a few are malformed.
        """
        draw = np.random.default_rng(seed)
        user_ids = (users * draw.random(events) ** 3).astype(np.int64)
        items = draw.integers(0, ITEMS, events).tolist()
        kinds = draw.integers(0, len(BEHAVIORS), events).tolist()
        bad = draw.random(events) < MALFORMED_SHARE
        now_ms = int(time.time() * 1000)
        payloads = [
            payload_of(user, item, item % CATEGORIES, BEHAVIORS[kind], now_ms)
            for user, item, kind in zip(user_ids.tolist(), items, kinds, strict=True)
        ]
        lists = np.flatnonzero(draw.random(events) < LISTS_SHARE).tolist()
        for row, size in zip(lists, draw.integers(1, 20, len(lists)).tolist(), strict=True):
            shown = draw.integers(0, ITEMS, size)
            payloads[row] = shown_payload(
                int(user_ids[row]), shown.tolist(), (shown % CATEGORIES).tolist(), row, now_ms
            )
        for count, row in enumerate(np.flatnonzero(bad).tolist()):
            payloads[row] = _MALFORMED[count % len(_MALFORMED)]
        return cls(Outgoing(payloads, user_ids, np.full(events, now_ms, np.int64)), partitions)

    def send(self, brokers: Brokers, topic: str) -> None:
        """Send it to Kafka as fast as it goes."""
        send_to_kafka([self.outgoing], brokers, topic, Pace())

    def write_files(self, folder: Path) -> None:
        """Write it as two files a partition."""
        half = len(self.outgoing.payloads) // 2
        for part in (slice(0, half), slice(half, None)):
            rows = Outgoing(
                self.outgoing.payloads[part],
                self.outgoing.user_ids[part],
                self.outgoing.log_times_ms[part],
            )
            write_files([rows], folder, self.partitions)

    def logged(self, stream: StreamSettings) -> Iterator[LoggedPayload]:
        """The log as it is in Kafka or in files, read without Flink."""
        if stream.source == "files" and stream.files is not None:
            for files in scan_folder(stream.files).values():
                for file in files:
                    yield from read_lines(file.path)
            return
        yield from read_topic(brokers_of(stream), stream.topic)


@dataclass(frozen=True)
class BatchFold:
    """Every memory by user, and every reject's reason by (partition, offset)."""

    memories: dict[int, NDArray[np.uint8]]
    rejects: dict[tuple[int, int], str]
    log_times: dict[int, int] = field(default_factory=dict)  # by partition, the largest so far

    def wrong_in(self, store: PackedStore, generation: int) -> int:
        """How many of these memories a generation of the store lacks, or has with other bytes."""
        users = np.array(sorted(self.memories), dtype=np.int64)
        right: NDArray[np.uint8] = np.stack([self.memories[user] for user in users.tolist()])
        records, found = store.read(generation, users, right.shape[1])
        return int(((records != right).any(axis=1) | ~found).sum())


def batch_fold(
    rows: Iterator[LoggedPayload],
    folder: MemoryFolder,
    limits: LogSettings,
    epoch: int = 1,
    start: Mapping[int, NDArray[np.uint8]] | None = None,
    *,
    columns: Sequence[EventColumn] = (),
) -> BatchFold:
    """Fold a log, from nothing or from the memories `start`.

    Args:
        rows: each partition's in order of offset.
        folder: the fold.
        limits: of the parser.
        epoch: of the rows.
        start: memory by user before the first row.
        columns: of the events that the bundle reads.
    """
    parser = EventParser(limits, columns, lists=folder.reads_shown)
    result = BatchFold(dict(start or {}), {})
    chunk: list[LoggedPayload] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == _FOLD_ROWS:
            _fold_chunk(chunk, parser, folder, epoch, result)
            chunk.clear()
    if chunk:
        _fold_chunk(chunk, parser, folder, epoch, result)
    return result


def _fold_chunk(
    chunk: list[LoggedPayload],
    parser: EventParser,
    folder: MemoryFolder,
    epoch: int,
    result: BatchFold,
) -> None:
    partitions = np.array([row.partition for row in chunk], np.int64)
    offsets = np.array([row.offset for row in chunk], np.int64)
    times = np.array([row.log_time_ms for row in chunk], np.int64)
    events = parser.parse([row.payload for row in chunk], times).refusing_wrong()
    for row, reason in zip(chunk, events.reasons, strict=True):
        if reason is not None:
            result.rejects[row.partition, row.offset] = reason
    users, index = np.unique(events.user_ids, return_inverse=True)
    records = folder.initial_records(len(users))
    for place, user in enumerate(users.tolist()):
        if user in result.memories:
            records[place] = result.memories[user]
    so_far = largest_so_far(times, partitions, result.log_times)
    for partition in np.unique(partitions).tolist():
        result.log_times[partition] = int(so_far[partitions == partition].max())
    batch = EventBatch(
        user_index=index.astype(np.int64),
        item_ids=events.item_ids,
        category_ids=events.category_ids,
        behaviors=events.behaviors,
        event_times_ms=events.event_times_ms,
        log_times_ms=so_far[events.index],
        epochs=np.full(len(index), epoch, np.int64),
        partitions=partitions[events.index],
        offsets=offsets[events.index],
        columns=events.columns,
    )
    folded = folder.fold(records, batch).records
    result.memories.update(zip(users.tolist(), folded, strict=True))
