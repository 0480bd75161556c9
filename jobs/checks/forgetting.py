"""Takes forgotten users out of the files of a workspace: what `uic log compact` does every night.

The store knows a forgotten user by a tombstone at once. The files are large and published, so they
are written anew together: log, snapshots, the stream's archive and dead letters, and what the
service wrote down. Only files newer than the last time are read, unless a user is newer.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from uic.feature_repo.snapshots.forgetting import forget_in_snapshot
from uic.feature_repo.snapshots.snapshots import Snapshot, list_snapshots
from uic.feature_repo.store.tombstones import Tombstones
from uic.feature_repo.user_features import rows_file
from uic.jobs.config.context import Context
from uic.jobs.stream.letters.erasing import erase_payloads
from uic.models.features.definition import Owner
from uic.models.features.tables import table_path
from uic.models.published import (
    MANIFEST_NAME,
    lock_of,
    only_writer,
    replacement,
    write_json_atomically,
)
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.forgetting import forget_in_log

_STATE: Final = "erasures.json"
Chosen = Callable[[Path], bool]


@dataclass(frozen=True)
class Erased:
    """How many rows of forgotten users went from a place."""

    place: str
    rows: int


def erase_forgotten(context: Context) -> list[Erased]:
    """Write the files of a workspace anew without forgotten users; places that had some.

    Can be stopped and repeated: each file is replaced in one rename.

    Raises:
        LogBusyError: another process writes to the log.
    """
    users = Tombstones(context.workspace).ids()
    if not len(users):
        return []
    began = time.time_ns()
    chosen = _newer(context.workspace / _STATE, users)
    erased = [Erased(place, rows) for place, rows in _places(context, users, chosen) if rows]
    write_json_atomically(context.workspace / _STATE, {"users": users.tolist(), "began_ns": began})
    return erased


def _newer(state: Path, users: NDArray[np.int64]) -> Chosen:
    """Which files may hold users: those changed since the last time, or all for a new user."""
    if not state.exists():
        return lambda _path: True
    document = json.loads(state.read_text())
    if len(np.setdiff1d(users, np.array(document["users"], dtype=np.int64))):
        return lambda _path: True
    began = int(document["began_ns"])
    return lambda path: path.stat().st_mtime_ns >= began


def _places(
    context: Context, users: NDArray[np.int64], chosen: Chosen
) -> Iterator[tuple[str, int]]:
    log = EventLog(context.log)
    if log.held_back() is None:  # else its days are aside; `uic replay undo` brings them back first
        yield "log", forget_in_log(log, users, chosen)
    rows = 0
    for snapshot in list_snapshots(context.memories):
        with only_writer(lock_of(snapshot.path)):
            if chosen(snapshot.path / MANIFEST_NAME):
                # Opened again: a build may have published it anew before the lock was ours.
                rows += forget_in_snapshot(Snapshot.open(snapshot.path), users)
    yield "snapshots", rows
    names = frozenset(users.tolist())
    for place, folder in (("archive", "archive"), ("dead letters", "dead-letters")):
        paths = (context.workspace / "stream" / folder).glob("epoch=*/**/*")
        yield place, sum(erase_payloads(path, names) for path in paths if _is_closed(path, chosen))
    loaded = rows_file(context.workspace)
    if loaded.exists() and chosen(loaded):
        yield "loaded features", _without(loaded, users)
    features = (context.workspace / "serving" / "features").glob("dt=*/*.parquet")
    yield "served features", sum(_without(path, users) for path in features if chosen(path))
    path = table_path(context.workspace, Owner.USER)
    if path.exists() and chosen(path):
        with log.locked():  # an import holds it, too, and adds rows to this table
            yield "features of users", _without(path, users)


def _is_closed(path: Path, chosen: Chosen) -> bool:
    """A file that Flink has named, and that is no note of ours beside them."""
    hidden = path.name.startswith(".") or path.suffix == ".json"
    return not hidden and path.is_file() and chosen(path)


def _without(path: Path, users: NDArray[np.int64]) -> int:
    table = pq.read_table(path)
    others = table.filter(pc.invert(pc.is_in(table["user_id"], value_set=pa.array(users))))
    gone: int = table.num_rows - others.num_rows
    if gone:
        with replacement(path) as draft:
            pq.write_table(others, draft, compression="zstd")
    return gone
