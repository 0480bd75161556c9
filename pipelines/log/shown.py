"""What was shown, in the log: files of their own beside the behaviours', in the same positions.

A list of the wire is a row an item in `log/shown/dt=…/*.parquet`: `BEHAVIOR_EVENTS` with behaviour
`shown` and the columns `event.shown_place` and `event.shown_request`, by (partition, offset,
place). So what reads behaviours reads none of them, and a fold that wants both takes the files of
both (`event_files`) and puts them in order.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from uic.models.features.event_columns import EventColumn
from uic.models.hashing import stable_hash
from uic.models.records.positions import SHOWN_CODE
from uic.models.state.shown import SHOWN_COLUMNS
from uic.pipelines.log.columns import behavior_codes, event_table, one_chunk, times_ms
from uic.pipelines.log.event_log import EventLog, LogFile
from uic.pipelines.log.files import ROW_GROUP_ROWS, open_writer
from uic.pipelines.log.schemas import TIMESTAMP

TABLE: Final = "shown"
Split = tuple[pa.Table, pa.Table]  # behaviours, and what was shown


def event_files(
    log: EventLog, first: date | None = None, last: date | None = None, *, shown: bool
) -> list[LogFile]:
    """The published files of behaviours, and of what was shown if that is wanted.

    Raises:
        ManifestError: a named file is missing or of another size.
    """
    behaviors = log.behavior_files(first, last)
    return behaviors if not shown else [*behaviors, *log.shown_files(first, last)]


def without_offsets(manifest: Mapping[str, Any]) -> bool:
    """Whether behaviours of an import may leave out offsets: users went out, or lists are apart."""
    return bool(manifest.get("forgotten")) or any(
        entry["table"] == TABLE for entry in manifest["files"]
    )


def split(
    table: pa.Table, offsets: NDArray[np.int64], epoch: int, columns: Iterable[EventColumn]
) -> Split:
    """Placed rows as they lie in the log: behaviours, and what was shown.

    Args:
        table: as the spool has it; behaviours as codes.
        offsets: (rows,).
        epoch: its number.
        columns: of events.
    """
    known = tuple(columns)
    shown = one_chunk(table, "behavior").to_numpy() == SHOWN_CODE
    if not shown.any():
        behaviors = event_table(table, offsets, epoch, known)
        return behaviors, behaviors.slice(0, 0)
    return (
        event_table(table.filter(pa.array(~shown)), offsets[~shown], epoch, known),
        event_table(table.filter(pa.array(shown)), offsets[shown], epoch, (*known, *SHOWN_COLUMNS)),
    )


class ShownFile:
    """A file that is opened with the first rows, beside that of the same rows' behaviours.

    Args:
        path: of it.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, 0
        self._stack = ExitStack()
        self._writer: pq.ParquetWriter | None = None

    def apart(self, tables: Iterable[Split]) -> Iterator[pa.Table]:
        """Write what was shown; the behaviours."""
        with self._stack:
            for behaviors, shown in tables:
                if shown.num_rows:
                    if self._writer is None:
                        self.path.parent.mkdir(parents=True, exist_ok=True)
                        opened = open_writer(self.path, shown.schema)
                        self._writer = self._stack.enter_context(opened)
                    self._writer.write_table(shown, row_group_size=ROW_GROUP_ROWS)
                    self.rows += shown.num_rows
                yield behaviors


def with_lists(behaviors: pa.Table, impressions: pa.Table | None) -> pa.Table:
    """Rows of `LogWriter.add_behaviors`: behaviours, and each impression as a list of one.

    The impressions of a user at one moment are one request.

    Args:
        behaviors: of an importer; may be empty.
        impressions: of the same part of its files; None for none.
    """
    place, request = (column.logged for column in SHOWN_COLUMNS)
    codes = behavior_codes(behaviors["behavior"])
    at = behaviors.column_names.index("behavior")
    aligned = behaviors.set_column(at, "behavior", codes)
    for name in (place, request):
        aligned = aligned.append_column(name, pa.nulls(behaviors.num_rows, pa.int64()))
    if impressions is None or not impressions.num_rows:
        return aligned
    rows = impressions.num_rows
    users = one_chunk(impressions, "user_id").to_numpy()
    times = times_ms(one_chunk(impressions, "event_time").cast(TIMESTAMP))
    requests = stable_hash(users ^ stable_hash(times).view(np.int64)).view(np.int64)
    shown = pa.table(
        {
            **{name: impressions[name] for name in ("user_id", "item_id", "category_id")},
            "behavior": pa.array(np.full(rows, SHOWN_CODE, np.int8)),
            "event_time": impressions["event_time"].cast(behaviors.schema.field("event_time").type),
            place: pa.array(np.zeros(rows, np.int64)),
            request: pa.array(requests),
        }
    )
    return pa.concat_tables([aligned, shown], promote_options="default")
