"""Folds the events of one bucket of users on top of their memories, and writes the file.

A bucket's events come in any order (a shuffle gives them so) and are sorted by (user, epoch,
offset), which is the log's order for each user. The file has a name that holds its sum, so that a
bucket that a runner works on twice gives the same file, and a reader never finds other bytes under
a name that it knows.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from uic.feature_repo.snapshots.published_values import column_of, values_of
from uic.feature_repo.snapshots.snapshots import SNAPSHOT
from uic.models.bundles.bundle import load_bundle
from uic.models.errors import BadInputError
from uic.models.memory.fold import MemoryFolder
from uic.models.published import MANIFEST_NAME, drafted_part, sha256_of, stamp_of
from uic.models.records.record import Records, has_events, header_view
from uic.models.state.shown import PLACED
from uic.pipelines.log.columns import event_batch
from uic.pipelines.log.positions import at_or_before
from uic.pipelines.memories.take_over import TakenParts, without

DRAFT_SUFFIX: Final = ".draft"
_ROW_GROUP_ROWS: Final = 20_000
# Of a header: which event was the last.
POSITION_FIELDS: Final = ("epoch", "offset", "partition", "last_event_time_ms")


class SnapshotWriteError(BadInputError):
    """A file of a snapshot could not be written: the disk is full, or the folder not writable."""


class TakeOverError(BadInputError):
    """A snapshot has other users, or ends elsewhere, than the log up to its positions."""


@dataclass(frozen=True)
class BucketFile:
    """What travels on from a bucket: its file, and what became of its events."""

    bucket: int
    path: str
    draft: str
    rows: int
    bytes: int
    sha256: str
    folded: int
    skipped: int
    moved: int


@dataclass(frozen=True)
class BucketPlan:
    """What every bucket needs to know.

    Args:
        bundle: folder of the bundle.
        generation: stamped on every record.
        root: the snapshot's folder, which all workers must share.
        cut_ms: `event_timestamp` of every row, milliseconds since 1970 UTC.
        learns_from_ms: see `MemoryFolder`.
        taken: exact parts of another bundle's snapshot that the records begin with.
        forgotten: users who were deleted on request, who get no record.
    """

    bundle: Path
    generation: int
    root: Path
    cut_ms: int
    learns_from_ms: int
    taken: TakenParts | None = None
    forgotten: tuple[int, ...] = ()


def _folder(plan: BucketPlan, lacking: tuple[str, ...] = ()) -> MemoryFolder:
    """Of the plan's bundle, but for the parts of these names."""
    stamp = stamp_of(plan.bundle / MANIFEST_NAME)
    return _loaded(plan.bundle, plan.generation, plan.learns_from_ms, lacking, stamp)


@lru_cache(maxsize=4)
def _loaded(
    path: Path,
    generation: int,
    learns_from_ms: int,
    lacking: tuple[str, ...],
    stamp: tuple[int, ...],  # noqa: ARG001 - another bundle under one name is loaded again
) -> MemoryFolder:
    """One per worker: loading a bundle costs more than folding a small bucket."""
    bundle = load_bundle(path)
    folding = without(bundle, lacking) if lacking else bundle
    return MemoryFolder(folding, generation, learns_from_ms)


def fold_bucket(
    plan: BucketPlan, bucket: int, memories: pa.Table, events: pa.Table
) -> BucketFile | None:
    """Fold and write one bucket; None if it holds no user.

    Args:
        plan: of the build.
        bucket: its number.
        memories: `MEMORY_COLUMNS` of the snapshot that the build starts from, or takes parts from.
        events: `event_schema` of the bundle's columns, in any order.

    Raises:
        SnapshotWriteError: names the file and the system's reason.
        TakeOverError: the log is not the one that the snapshot's parts were folded from.
        UicError: a memory is of another bundle, or not of this version.
    """
    folder = _folder(plan)
    memories, events = (_without(table, plan.forgotten) for table in (memories, events))
    if plan.taken is None:
        users, records = fold_tables(folder, memories, events_in_order(events))
    else:
        users, records = _fold_over(plan, plan.taken, folder, memories, events_in_order(events))
    outcome = records[1]
    if not len(users):
        return None
    header_view(records[0])["generation"] = plan.generation
    return _write(plan, bucket, users, records[0], outcome)


def events_in_order(events: pa.Table) -> pa.Table:
    """Events by (user, epoch, offset), and the items of a list by their places."""
    keys = [events.column(name).to_numpy() for name in ("offset", "epoch", "user_id")]
    if PLACED in events.column_names:
        keys.insert(0, events.column(PLACED).to_numpy())
    return events.take(pa.array(np.lexsort(keys)))


def fold_tables(
    folder: MemoryFolder, memories: pa.Table, events: pa.Table
) -> tuple[NDArray[np.int64], tuple[Records, tuple[int, int, int]]]:
    """Fold events in order on top of memories.

    Returns:
        Users (n,), ascending, and their records (n, record_bytes) with the counts of events that
        were folded, skipped (at or before the memory's position), and moved (other partition).
    """
    known = memories.column("user_id").to_numpy()
    of_event = events.column("user_id").to_numpy()
    users = np.union1d(known, of_event)
    records = folder.initial_records(len(users))
    if len(known):
        stored = values_of(memories.column("memory").chunk(0), folder.record_bytes, "snapshot")
        folder.check(stored, "snapshot")
        records[np.searchsorted(users, known)] = stored
    batch = event_batch(events, users)
    outcome = folder.fold(records, batch)
    skipped, moved = int(outcome.skipped.sum()), int(outcome.moved.sum())
    # A user all of whose events were refused has learnt nothing and gets no row.
    there = has_events(header_view(outcome.records))
    folded = len(batch) - skipped - moved
    return users[there], (outcome.records[there], (folded, skipped, moved))


def _without(table: pa.Table, forgotten: tuple[int, ...]) -> pa.Table:
    """The rows of other users, in one chunk a column."""
    gone = np.isin(table.column("user_id").to_numpy(), np.array(forgotten, dtype=np.int64))
    return table.filter(pa.array(~gone)).combine_chunks() if gone.any() else table


def _fold_over(
    plan: BucketPlan, taken: TakenParts, folder: MemoryFolder, memories: pa.Table, events: pa.Table
) -> tuple[NDArray[np.int64], tuple[Records, tuple[int, int, int]]]:
    """Fold events in order over parts that are taken over; returns as `fold_tables`."""
    known = memories.column("user_id").to_numpy()
    users = np.union1d(known, events.column("user_id").to_numpy())
    stored = np.zeros((0, taken.record_bytes), np.uint8)
    if len(known):
        stored = values_of(memories.column("memory").chunk(0), taken.record_bytes, "snapshot")
    records, held = folder.initial_records(len(users)), np.searchsorted(users, known)
    batch = event_batch(events, users)
    old = at_or_before(batch.epochs, batch.partitions, batch.offsets, taken.positions)
    skipped = moved = folded = 0
    # 1. What the snapshot does not have, up to its positions.
    if taken.folds:
        partial = _folder(plan, taken.names)
        before = partial.fold(partial.initial_records(len(users)), batch.select(old))
        _refuse_other_log(taken, users, before.records, held, stored)
        kept = kept_bytes(folder.record_bytes, taken.columns)
        records[:, kept] = before.records
        folded = int(old.sum())
    # 2. The parts, and the position that they are of.
    for there, here, size in taken.columns:
        records[held, here : here + size] = stored[:, there : there + size]
    own, theirs = header_view(records), header_view(stored)
    for name in POSITION_FIELDS if taken.folds else (*POSITION_FIELDS, "events"):
        own[name][held] = theirs[name]
    # 3. Everything since.
    outcome = folder.fold(records, batch.select(~old))
    skipped, moved = int(outcome.skipped.sum()), int(outcome.moved.sum())
    folded += int((~old).sum()) - skipped - moved
    there_is = has_events(header_view(outcome.records))
    return users[there_is], (outcome.records[there_is], (folded, skipped, moved))


def kept_bytes(record_bytes: int, columns: Sequence[tuple[int, int, int]]) -> NDArray[np.int64]:
    """The bytes of a record that no column of `TakenParts` covers, ascending."""
    kept = np.ones(record_bytes, dtype=np.bool_)
    for _, here, size in columns:
        kept[here : here + size] = False
    return np.flatnonzero(kept)


def _refuse_other_log(
    taken: TakenParts,
    users: NDArray[np.int64],
    folded: Records,
    held: NDArray[np.int64],
    stored: Records,
) -> None:
    """A user with events up to the snapshot's positions must end there as the snapshot says."""
    header, theirs = header_view(folded), header_view(stored)
    agree = np.zeros(len(users), dtype=np.bool_)
    agree[held] = np.all([header[name][held] == theirs[name] for name in POSITION_FIELDS], axis=0)
    wrong = np.flatnonzero(has_events(header) & ~agree)
    if wrong.size:
        user = int(users[wrong[0]])
        msg = (
            f"{taken.snapshot}: its record of user {user} does not end where the log does up to "
            "the snapshot's positions, so its parts are not this log's; build with --from-nothing"
        )
        raise TakeOverError(msg)


def _write(
    plan: BucketPlan,
    bucket: int,
    users: NDArray[np.int64],
    records: Records,
    counts: tuple[int, int, int],
) -> BucketFile:
    path = plan.root / f"{bucket:05d}-{uuid.uuid4().hex}{DRAFT_SUFFIX}"
    cut = pa.array(np.full(len(users), plan.cut_ms), SNAPSHOT.field("event_timestamp").type)
    table = pa.Table.from_arrays([pa.array(users), cut, column_of(records)], schema=SNAPSHOT)
    with drafted_part(path, SnapshotWriteError):
        # Memories do not compress (float16 of a trained network), and a dictionary of them only
        # makes the file larger.
        pq.write_table(
            table, path, row_group_size=_ROW_GROUP_ROWS, compression="none", use_dictionary=False
        )
    digest, size = sha256_of(path), path.stat().st_size
    final = f"{bucket:05d}-{digest[:16]}.parquet"
    return BucketFile(bucket, final, path.name, len(users), size, digest, *counts)
