"""Folds the events of one bucket of users on top of their memories, and writes the file.

A bucket's events come in any order (a shuffle gives them so) and are sorted by (user, epoch,
offset), which is the log's order for each user. The file has a name that holds its sum, so that a
bucket that a runner works on twice gives the same file, and a reader never finds other bytes under
a name that it knows.
"""

import uuid
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
from uic.models.published import drafted_part, sha256_of
from uic.models.records.record import Records, header_view
from uic.pipelines.log.columns import event_batch

DRAFT_SUFFIX: Final = ".draft"
_ROW_GROUP_ROWS: Final = 20_000


class SnapshotWriteError(BadInputError):
    """A file of a snapshot could not be written: the disk is full, or the folder not writable."""


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
    """

    bundle: Path
    generation: int
    root: Path
    cut_ms: int


@lru_cache(maxsize=2)
def _folder(bundle: Path, generation: int) -> MemoryFolder:
    """One per worker: loading a bundle costs more than folding a small bucket."""
    return MemoryFolder(load_bundle(bundle), generation)


def fold_bucket(
    plan: BucketPlan, bucket: int, memories: pa.Table, events: pa.Table
) -> BucketFile | None:
    """Fold and write one bucket; None if it holds no user.

    Args:
        plan: of the build.
        bucket: its number.
        memories: `MEMORY_COLUMNS` of the snapshot that the build starts from.
        events: `event_schema` of the bundle's columns, in any order.

    Raises:
        SnapshotWriteError: names the file and the system's reason.
        UicError: a memory is of another bundle, or not of this version.
    """
    folder = _folder(plan.bundle, plan.generation)
    users, records = fold_tables(folder, memories, events_in_order(events))
    outcome = records[1]
    if not len(users):
        return None
    header_view(records[0])["generation"] = plan.generation
    return _write(plan, bucket, users, records[0], outcome)


def events_in_order(events: pa.Table) -> pa.Table:
    """Events by (user, epoch, offset)."""
    user, epoch, offset = (
        events.column(name).to_numpy() for name in ("user_id", "epoch", "offset")
    )
    return events.take(pa.array(np.lexsort((offset, epoch, user))))


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
    there = header_view(outcome.records)["events"] > 0
    folded = len(batch) - skipped - moved
    return users[there], (outcome.records[there], (folded, skipped, moved))


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
