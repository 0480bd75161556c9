"""`uic features asof`: what the record's parts said just before each row, from the log, by Beam.

A row sees the events of its user that lie before it in the log: those whose log time is earlier
than its time, strictly. Log time never falls along a partition; where a later epoch of an import
has earlier ones, the largest so far counts. An event that came late is seen from when it came, not
from when it happened. What is written is what the stream's records would have said at that moment:
the same code folds and reads. What a generation leaves out (sale days, rules), a row does not see.
"""

import functools
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from uic.models.errors import BadInputError
from uic.models.features.event_columns import EventColumn
from uic.models.published import drafted_part
from uic.models.records.positions import EventBatch, compare_positions
from uic.models.records.record import empty_records, header_view
from uic.models.state.definition import StateDefinition
from uic.models.state.part import Asked, Features
from uic.models.state.shown import with_shown
from uic.pipelines.beam_run import pipeline_options, publish_together, run_pipeline
from uic.pipelines.days import CalendarDays, day_number
from uic.pipelines.importers.plausible import YEAR_2000_MS
from uic.pipelines.log.columns import event_batch, with_columns
from uic.pipelines.log.event_log import open_log
from uic.pipelines.log.schemas import BEHAVIOR_EVENTS
from uic.pipelines.log.shown import event_files
from uic.pipelines.memories.exclude import Exclusion
from uic.pipelines.memories.fold_bucket import events_in_order
from uic.pipelines.memories.read import event_schema, read_events
from uic.pipelines.samples.log_parts import log_parts
from uic.pipelines.state.rows import CATEGORY, ITEM, ROW, TIME, USER, asked_rows, read_rows
from uic.pipelines.user_buckets import BucketInput, UserBuckets

_EVENTS, _ROWS = "events", "rows"
SEEN: Final = "seen"
_BUCKET_EVENTS: Final = 500_000
_BUCKET_ROWS: Final = 200_000
_PART_ROWS: Final = 250_000
# Key of the written file's metadata: which parts its features are of.
STATE_METADATA: Final = b"uic.state"


class AsOfError(BadInputError):
    """The log has nothing to read, or the output cannot be written."""


@dataclass(frozen=True)
class AsOfRequest:
    """What `uic features asof` was asked for.

    Args:
        log: folder of the event log.
        state: parts of the record.
        columns: of events that the parts read.
        time_zone: of the log's days.
        exclusion: what is left out, as of a build.
    """

    log: Path
    state: StateDefinition
    columns: tuple[EventColumn, ...] = ()
    time_zone: str = "UTC"
    exclusion: Exclusion = field(default_factory=Exclusion)

    @property
    def keys(self) -> list[EventColumn]:
        """The columns that candidates have, too."""
        return [column for column in self.columns if column.name in self.state.reads]


@dataclass(frozen=True)
class AsOfFacts:
    """What was written.

    Attributes:
        rows: of the output.
        features: columns beside the given ones.
        with_events: rows whose user had an event before.
    """

    rows: int
    features: int
    with_events: int


def features_as_of(
    request: AsOfRequest,
    asked: Path,
    out: Path,
    runner: str = "DirectRunner",
    beam_arguments: Sequence[str] = (),
) -> AsOfFacts:
    """Write the features of rows as of each row's time.

    Args:
        request: log and parts.
        asked: Parquet file of users and times (`uic.pipelines.state.rows`).
        out: Parquet file to write: the rows, in their order, with a column a feature.
        runner: of Beam.
        beam_arguments: for Beam.

    Raises:
        RowsError: the file of rows is none.
        AsOfError: the log has no behaviours, or the output cannot be written.
        UicError: a file of the log cannot be read.
    """
    given = read_rows(asked)
    rows = asked_of(request, given, str(asked))
    names = [one.name for one in request.state.described]
    doubled = [name for name in names if name in given.column_names]
    if doubled:
        msg = f"{asked}: has a column {doubled[0]} already; rename it"
        raise AsOfError(msg)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".asof-") as scratch:
        found = folded_rows(request, rows, Path(scratch), runner, beam_arguments)
        table = given
        for name in names:
            table = table.append_column(name, found.column(name))
        metadata = {STATE_METADATA: json.dumps(request.state.document()).encode()}
        draft = Path(scratch) / "out.parquet"
        with drafted_part(draft, AsOfError):
            pq.write_table(table.replace_schema_metadata(metadata), draft, compression="zstd")
        draft.replace(out)
    seen = int(np.count_nonzero(found.column(SEEN).to_numpy()))
    return AsOfFacts(table.num_rows, len(names), seen)


def folded_rows(
    request: AsOfRequest,
    rows: pa.Table,
    scratch: Path,
    runner: str = "DirectRunner",
    beam_arguments: Sequence[str] = (),
) -> pa.Table:
    """The features of rows, float32 columns by name, in the order of `row`, and `seen` events.

    Args:
        request: log and parts.
        rows: as `uic.pipelines.state.rows`.
        scratch: an empty folder that all workers share.
        runner: of Beam.
        beam_arguments: for Beam.

    Raises:
        AsOfError: the log has no behaviours.
        UicError: a file of the log cannot be read.
    """
    options = pipeline_options(runner, beam_arguments)
    log = open_log(request.log, request.time_zone, AsOfError)
    files = event_files(log, shown=request.state.reads_shown)
    columns = with_shown(request.columns, shown=request.state.reads_shown)
    events = sum(file.rows for file in files)
    if not events:
        msg = f"{request.log}: no behaviours; import some, or stream and compact them"
        raise AsOfError(msg)
    buckets = max(-(-events // _BUCKET_EVENTS), -(-rows.num_rows // _BUCKET_ROWS), 1)
    read = functools.partial(read_events, covered={}, exclusion=request.exclusion, columns=columns)
    parts = log_parts(files, with_columns(BEHAVIOR_EVENTS, columns))
    tables = {
        _EVENTS: BucketInput(parts, read, event_schema(columns)),
        _ROWS: BucketInput(_scattered(rows, scratch), _read_piece, rows.schema),
    }
    build = functools.partial(_build, request.state, request.keys, scratch)

    def steps(pipeline: Any) -> None:
        built = pipeline | "AsOf" >> UserBuckets(tables, buckets, build)
        publish_together(pipeline, [built["buckets"]], _only_named)

    run_pipeline(steps, options)
    return _gathered(request.state, scratch)


def asked_of(request: AsOfRequest, given: pa.Table, where: str) -> pa.Table:
    """What a table asks of a log: an item's category is the log's, if the table has none.

    Raises:
        RowsError: a column is missing, or not what it has to be.
        AsOfError: there is no log.
    """
    log = open_log(request.log, request.time_zone, AsOfError)
    first = min((file.dt for file in log.behavior_files()), default=date.max)
    begin_ms = CalendarDays(request.time_zone).start_ms(day_number(first))
    path, categories = log.items_file(), {}
    if path is not None and CATEGORY not in given.column_names:
        table = pq.read_table(path, columns=["item_id", "category_id"])
        categories = dict(zip(*(column.to_pylist() for column in table.columns), strict=True))
    return asked_rows(given, where, request.keys, categories, min(begin_ms, YEAR_2000_MS))


def _scattered(asked: pa.Table, scratch: Path) -> list[Path]:
    """The rows as files that workers read; as one element each they would travel with the plan."""
    paths = []
    for first in range(0, asked.num_rows, _PART_ROWS):
        path = scratch / f"rows-{first}.parquet"
        pq.write_table(asked.slice(first, _PART_ROWS), path, compression="lz4")
        paths.append(path)
    return paths


def _read_piece(path: Path) -> tuple[pa.Table, None]:
    return pq.read_table(path), None


def _build(
    state: StateDefinition,
    columns: Sequence[EventColumn],
    scratch: Path,
    bucket: int,
    tables: Mapping[str, pa.Table],
) -> str | None:
    rows = tables[_ROWS]
    if not rows.num_rows:
        return None
    found, seen = bucket_features(state, columns, tables[_EVENTS], rows)
    path = scratch / f"features-{bucket:05d}.parquet"
    columns_of = {ROW: rows.column(ROW), SEEN: pa.array(seen)}
    for at, one in enumerate(state.described):
        columns_of[one.name] = pa.array(found[:, at])
    pq.write_table(pa.table(columns_of), path, compression="lz4", use_dictionary=False)
    return path.name


def bucket_features(
    state: StateDefinition, columns: Sequence[EventColumn], events: pa.Table, rows: pa.Table
) -> tuple[Features, NDArray[np.int64]]:
    """Features of one bucket's rows, (rows, features), and how many events each has seen.

    Args:
        state: parts of the record.
        columns: of events.
        events: `event_schema`, in any order.
        rows: as `uic.pipelines.state.rows`.
    """
    ids = rows.column(USER).to_numpy()
    users = np.unique(np.concatenate([ids, events.column("user_id").to_numpy()]))
    batch = event_batch(events_in_order(events), users)
    # What a record would not take, it does not know: repeats, and events in a second partition.
    fresh = header_view(empty_records(len(users), 0))
    skipped, moved = compare_positions(fresh, batch, np.arange(len(batch)))
    batch = batch.select(~(skipped | moved))
    owners = np.searchsorted(users, ids)
    now = rows.column(TIME).to_numpy()
    begins = np.searchsorted(batch.user_index, owners, side="left")
    ends = events_before(batch, owners, now)
    named = {column.name for column in columns} & set(rows.column_names)
    asked = Asked(
        owners=owners,
        now_ms=now,
        item_ids=rows.column(ITEM).to_numpy(),
        category_ids=rows.column(CATEGORY).to_numpy(),
        columns={name: rows.column(name).to_numpy() for name in named},
    )
    return state.as_of(batch, asked, ends), ends - begins


def events_before(
    events: EventBatch, owners: NDArray[np.int64], now_ms: NDArray[np.int64]
) -> NDArray[np.int64]:
    """One past the last event of each owner before a time, strictly, by log time: (rows,).

    Args:
        events: users ascending, each user's in the order of the log.
        owners: (rows,).
        now_ms: (rows,).
    """
    if not len(events):
        return np.zeros(len(owners), np.int64)
    low = min(int(events.log_times_ms.min()), int(now_ms.min(initial=0)))
    high = max(int(events.log_times_ms.max()), int(now_ms.max(initial=0)))
    span = high - low + 2
    # The largest log time so far within each user; users are numbered, so one maximum does it.
    keys = np.maximum.accumulate(events.user_index * span + (events.log_times_ms - low))
    return np.searchsorted(keys, owners * span + (now_ms - low), side="left")


def _only_named(files: Iterable[str | None]) -> None:
    """The files lie in the scratch folder under their buckets' names; nothing to publish."""


def _gathered(state: StateDefinition, scratch: Path) -> pa.Table:
    """The buckets' features in the order of the rows."""
    nothing = pa.table(
        {ROW: pa.array([], pa.int64()), SEEN: pa.array([], pa.int64())}
        | {one.name: pa.array([], pa.float32()) for one in state.described}
    )
    pieces = [pq.read_table(path) for path in sorted(scratch.glob("features-*.parquet"))]
    joined = pa.concat_tables([nothing, *pieces])
    return joined.take(pa.array(np.argsort(joined.column(ROW).to_numpy())))
