"""Takes users out of the event log: their rows, and the texts of their ids.

Files are written anew without these rows, the manifests that name them say how many went
(`forgotten`), and `epochs.json` names the new manifests in one rename: before it nothing has
changed, after it the old files are removed. Positions of the other rows stay, so an epoch has gaps
where a user was.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.files import open_writer, table_entry, write_rows

# By table of the log, the column that holds users.
_TEXTS: Final = "user_ids"
_USER_COLUMNS: Final = {
    "behaviors": "user_id",
    "shown": "user_id",
    "impressions": "user_id",
    _TEXTS: "id",
}


def forget_in_log(
    log: EventLog,
    user_ids: NDArray[np.int64],
    chosen: Callable[[Path], bool] = lambda _path: True,
) -> int:
    """Publish the log without the rows of some users; how many rows went.

    Args:
        log: that nothing else writes to meanwhile.
        user_ids: (users,).
        chosen: which files may hold rows of them; others are not read.

    Raises:
        LogBusyError: another process writes to this log.
        ManifestError: a file is missing or of another size.
    """
    with log.locked():
        log.remove_unpublished()
        users = pa.array(user_ids)
        gone = 0
        changed: dict[int, dict[str, Any]] = {}
        for number, manifest in enumerate(log.manifests()):
            files, rows = _without(log.root, manifest["files"], users, chosen)
            if rows:
                forgotten = int(manifest.get("forgotten", 0)) + rows
                changed[number] = {**manifest, "files": files, "forgotten": forgotten}
                gone += rows
        if changed:
            log.replace(changed)
        return gone


def _without(
    root: Path,
    entries: Iterable[dict[str, Any]],
    users: pa.Array,
    chosen: Callable[[Path], bool],
) -> tuple[list[dict[str, Any]], int]:
    """The entries of files without these users, and how many rows went."""
    kept, gone = [], 0
    for entry in entries:
        column = _USER_COLUMNS.get(entry["table"])
        path = root / entry["path"]
        rows = _count(path, column, users) if column is not None and chosen(path) else 0
        if not rows:
            kept.append(entry)
            continue
        gone += rows
        target = _next_name(path)
        left = write_rows(target, _others(path, str(column), users))
        named = entry["table"] == _TEXTS
        if named and not left:  # without a table the log's users would be numbers from now on
            open_writer(target, pq.read_schema(path)).close()
        if left or named:
            kept.append({**entry, **table_entry(root, target, entry["table"], left)})
    return kept, gone


def _count(path: Path, column: str, users: pa.Array) -> int:
    ids = pq.ParquetFile(path).read(columns=[column])[column]
    return int(pc.sum(pc.is_in(ids, value_set=users)).as_py() or 0)


def _others(path: Path, column: str, users: pa.Array) -> Iterable[pa.Table]:
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            yield table.filter(pc.invert(pc.is_in(table[column], value_set=users)))


def _next_name(path: Path) -> Path:
    """A name that no version of this file has had: `x.parquet`, `x.2.parquet`, `x.3.parquet`."""
    stem, _, version = path.stem.partition(".")
    return path.with_name(f"{stem}.{int(version or 1) + 1}.parquet")
