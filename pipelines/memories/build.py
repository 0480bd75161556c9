"""Builds and publishes a snapshot of all memories: the edges around `fold_bucket`.

One command for three things: the warm-up (120 days from nothing), the daily snapshot (yesterday's
plus one day), and the rebuild after an incident (an older, clean snapshot plus the days since,
with exclude rules, under a new generation number). The order of a build:

1. Find the files of the log and the snapshot to start from; refuse what does not fit.
2. Fold, bucket by bucket; files are written under draft names.
3. Hold what was read against the snapshot's positions: a gap is refused, nothing is published.
4. Rename the files, write `manifest.json`, point `memories/current` to the snapshot.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

import apache_beam as beam
import pyarrow as pa

from uic.feature_repo.snapshots.snapshots import Snapshot
from uic.models.bundles.bundle import Bundle, load_bundle
from uic.models.errors import BadInputError
from uic.models.kernels.compiled import folded_by
from uic.models.memory.fold import MemoryFolder
from uic.models.published import lock_of, only_writer
from uic.pipelines.beam_run import pipeline_options, publish_together, run_pipeline
from uic.pipelines.days import CalendarDays, day_number
from uic.pipelines.log.columns import with_columns
from uic.pipelines.log.event_log import EventLog, LogFile, open_log, range_of_days
from uic.pipelines.log.schemas import BEHAVIOR_EVENTS
from uic.pipelines.log.shown import event_files, without_offsets
from uic.pipelines.memories.exclude import ExcludeRule, ExcludeRulesError, Exclusion
from uic.pipelines.memories.fold_bucket import BucketFile, BucketPlan, fold_bucket
from uic.pipelines.memories.publish import SnapshotPublication
from uic.pipelines.memories.read import (
    MEMORY_COLUMNS,
    event_schema,
    read_events,
    read_memories,
)
from uic.pipelines.memories.take_over import PartsWanted, columns_of, files_to_read, find_taken
from uic.pipelines.sale_calendar import SaleCalendar
from uic.pipelines.samples.log_parts import Part, log_parts
from uic.pipelines.settings import MemoriesSettings, SaleSettings
from uic.pipelines.user_buckets import BucketInput, UserBuckets

# Events of one bucket: with the float32 states of their users well under a gigabyte a worker.
BUCKET_EVENTS: Final = 250_000
BUCKET_MEMORIES: Final = 50_000
EVENTS: Final = "events"
MEMORIES: Final = "memories"


class MemoriesError(BadInputError):
    """The days, the snapshot, the bundle and the log of a build do not fit each other."""


class MemoriesBusyError(BadInputError):
    """Another run builds the same snapshot."""


@dataclass(frozen=True)
class MemoriesRequest:
    """What `uic memories build` was asked for.

    Args:
        log: folder of the event log.
        memories: folder of all snapshots.
        bundle: folder of the bundle that folds.
        until: last day that is folded, by log time.
        time_zone: whose calendar days are meant.
        memories_settings: days of a warm-up, number of buckets.
        sale: sale days and whether their behaviours stay.
        start: snapshot to start from; None: from nothing.
        days: of a build from nothing; None: as the settings say.
        rules: of an incident; with `start` they begin a new generation.
        generation: number; None: the snapshot's, or the next free one.
        take_over: whether a build from nothing takes exact parts over from a snapshot of another
            bundle, where that gives the same bytes (`uic.pipelines.memories.take_over`).
        forgotten: users who were deleted on request, who get no record.
    """

    log: Path
    memories: Path
    bundle: Path
    until: date
    time_zone: str
    memories_settings: MemoriesSettings
    sale: SaleSettings
    start: Path | None = None
    days: int | None = None
    rules: tuple[ExcludeRule, ...] = ()
    generation: int | None = None
    take_over: bool = True
    forgotten: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Input:
    """What a build reads, and what its snapshot will say of it.

    `base` is the snapshot that it starts from, or takes parts over from; `again_from_ms` is the log
    time from which events that it covers are folded again, and `not_taken` says why it takes none.
    """

    plan: BucketPlan
    bundle: Bundle
    start: Snapshot | None
    base: Snapshot | None
    again_from_ms: int | None
    not_taken: str | None
    exclusion: Exclusion
    first: date
    files: list[LogFile]
    buckets: int


def build_memories(
    request: MemoriesRequest, runner: str = "DirectRunner", beam_arguments: Sequence[str] = ()
) -> Snapshot:
    """Build and publish a snapshot.

    Raises:
        MemoriesError: days, snapshot, bundle and log do not fit each other.
        LogGapError: events between the snapshot and the first file are missing.
        MemoriesBusyError: another run builds the same snapshot.
        UicError: an input cannot be read; the output cannot be written.
    """
    options = pipeline_options(runner, beam_arguments)
    inputs = _find_input(request)
    parts = log_parts(inputs.files, with_columns(BEHAVIOR_EVENTS, inputs.bundle.read_columns))
    log = EventLog(request.log)
    publication = SnapshotPublication(
        root=inputs.plan.root,
        start=inputs.base,
        epochs=log.epochs(),
        thinned=frozenset(m["epoch"] for m in log.manifests() if without_offsets(m)),
        facts=_facts(request, inputs),
    )
    msg = f"{inputs.plan.root}: another run builds this snapshot; wait for it to end"
    with only_writer(lock_of(inputs.plan.root), MemoriesBusyError(msg)):
        run_pipeline(lambda pipeline: _steps(pipeline, parts, inputs, publication), options)
    return Snapshot.open(inputs.plan.root)


def _find_input(request: MemoriesRequest) -> _Input:
    log = open_log(request.log, request.time_zone, MemoriesError)
    bundle = load_bundle(request.bundle)
    start = None if request.start is None else Snapshot.open(request.start)
    if start is not None:
        _check_start(request, start, bundle)
    # The snapshot's own last day is read again: what was published of it since lies after the cut.
    first, learns_from = (
        (date.fromisoformat(start.manifest["until"]), None)
        if start is not None
        else _first_days(request, log, bundle)
    )
    files = event_files(log, first, request.until, shown=bundle.reads_shown)
    if start is None and not sum(file.rows for file in files):
        has = range_of_days(log.behavior_files())
        msg = f"{request.log}: no behaviours from {first} to {request.until}; {has}"
        raise MemoriesError(msg)
    number = _number(request, start)
    root = request.memories / f"generation={number:03d}" / f"dt={request.until}"
    exclusion, calendar = _exclusion(request, start), CalendarDays(request.time_zone)
    taken, not_taken, again_from_ms = None, None, None
    if start is None and request.take_over and bundle.state is not None:
        size = MemoryFolder(bundle, number).record_bytes
        wanted = PartsWanted(bundle, size, first, request.until, exclusion)
        taken, not_taken = find_taken(request.memories, log, wanted)
    if taken is not None:
        changed = len(taken.names) < len(bundle.state.parts if bundle.state else ())
        read_from = (first if changed else learns_from or first) if taken.folds else None
        files = files_to_read(files, taken, read_from)
        again_from_ms = None if read_from is None else calendar.start_ms(day_number(read_from))
    base = start if taken is None else Snapshot.open(taken.snapshot)
    rows = sum(file.rows for file in files)
    buckets = max(-(-rows // BUCKET_EVENTS), -(-(base.rows if base else 0) // BUCKET_MEMORIES), 1)
    plan = BucketPlan(
        bundle=request.bundle,
        generation=number,
        root=root,
        cut_ms=calendar.start_ms(day_number(request.until) + 1),
        learns_from_ms=start.learns_from_ms
        if start
        else (calendar.start_ms(day_number(learns_from)) if learns_from else 0),
        taken=taken,
        forgotten=request.forgotten,
    )
    return _Input(
        plan=plan,
        bundle=bundle,
        start=start,
        base=base,
        again_from_ms=again_from_ms,
        not_taken=not_taken,
        exclusion=exclusion,
        first=first,
        files=files,
        buckets=request.memories_settings.buckets or buckets,
    )


def _first_days(
    request: MemoriesRequest, log: EventLog, bundle: Bundle
) -> tuple[date, date | None]:
    """The first day of a build from nothing, and that of its memories if that is a later one.

    Exact parts count all that the log has, as samples and `uic features asof` do; a memory is
    warmed up over `memories.warm_up_days`. `days` is said of both.
    """
    warm_up = request.days or request.memories_settings.warm_up_days
    first = request.until - timedelta(days=warm_up - 1)
    if bundle.state is None or request.days is not None:
        return first, None
    files = event_files(log, None, request.until, shown=bundle.reads_shown)
    days = [file.dt for file in files]
    learns_from = max(days, default=request.until) - timedelta(days=warm_up - 1)
    first = min([first, *days])
    later = bundle.has_memory and learns_from > min(days, default=first)
    return first, learns_from if later else None


def _check_start(request: MemoriesRequest, start: Snapshot, bundle: Bundle) -> None:
    if start.bundle != bundle.hash8:
        msg = (
            f"{start.path}: built with bundle {start.manifest['bundle']} ({start.bundle.hex()}), "
            f"{request.bundle} is {bundle.hash8.hex()}; a new bundle starts from nothing: leave "
            "out --from"
        )
        raise MemoriesError(msg)
    if request.until.isoformat() <= start.manifest["until"]:
        msg = (
            f"{start.path}: holds the log until {start.manifest['until']}, --until is "
            f"{request.until}; choose a later day or an older snapshot"
        )
        raise MemoriesError(msg)


def _number(request: MemoriesRequest, start: Snapshot | None) -> int:
    """The generation: the snapshot's, unless rules make it another line of descent."""
    if request.generation is not None:
        if start is not None and request.rules and request.generation == start.generation:
            msg = (
                f"--generation {request.generation} is the snapshot's own; exclude rules need a "
                "generation of their own: leave out --generation"
            )
            raise MemoriesError(msg)
        return request.generation
    if start is not None and not request.rules:
        return start.generation
    numbers = [int(path.name.split("=")[1]) for path in request.memories.glob("generation=*")]
    return max(numbers, default=0) + 1


def _exclusion(request: MemoriesRequest, start: Snapshot | None) -> Exclusion:
    """What is left out: the snapshot's rules and further ones, and the calendar of today."""
    calendar = SaleCalendar.for_behaviors(request.sale)
    if start is None:
        return Exclusion.of(calendar, request.rules)
    before = Exclusion.from_json(start.manifest["exclude"])
    now = Exclusion.of(calendar, before.rules + request.rules)
    cut_ms = int(start.manifest["cut_ms"])
    if now.before(cut_ms).sale_edges_ms != before.before(cut_ms).sale_edges_ms:
        msg = (
            f"{start.path}: was built with other sale days before its cut; give the calendar that "
            "it was built with (further days may follow), or build from nothing"
        )
        raise ExcludeRulesError(msg)
    return now


def _facts(request: MemoriesRequest, inputs: _Input) -> dict[str, Any]:
    """The manifest's part that is known before the run."""
    bundle = inputs.bundle
    memory = bundle.memory.layout.fields if bundle.has_memory else ()
    start = inputs.start
    return {
        "generation": inputs.plan.generation,
        "bundle": f"{inputs.bundle.name}/{inputs.bundle.version}",
        "bundle_hash8": inputs.bundle.hash8.hex(),
        "state": [[field.name, list(field.shape)] for field in memory],
        "parts": None if bundle.state is None else bundle.state.document(),
        "record_bytes": MemoryFolder(inputs.bundle, inputs.plan.generation).record_bytes,
        "first_day": inputs.first.isoformat() if start is None else start.manifest["first_day"],
        "learns_from_ms": inputs.plan.learns_from_ms,
        "columns": columns_of(bundle),
        "until": request.until.isoformat(),
        "cut_ms": inputs.plan.cut_ms,
        "exclude": inputs.exclusion.to_json(),
        "from": None if start is None else start.name,
        "taken": _taken(inputs),
        "folded_by": folded_by(),
    }


def _taken(inputs: _Input) -> dict[str, Any] | None:
    """What the manifest says of exact parts that were taken over, or why none were."""
    taken, base = inputs.plan.taken, inputs.base
    if taken is None or base is None:
        return None if inputs.not_taken is None else {"not": inputs.not_taken}
    return {
        "from": base.name,
        "bundle": base.manifest["bundle"],
        "parts": list(taken.names),
        "positions": base.manifest["positions"],
    }


def _steps(
    pipeline: beam.Pipeline,
    parts: list[Part],
    inputs: _Input,
    publication: SnapshotPublication,
) -> None:
    base = inputs.base
    files: list[Mapping[str, Any]] = [] if base is None else list(base.manifest["files"])

    def read_memory_file(entry: Mapping[str, Any]) -> tuple[pa.Table, None]:
        path = (base.path if base else Path()) / entry["path"]
        return read_memories(path, entry["sha256"]), None

    def fold(bucket: int, bucket_tables: Mapping[str, pa.Table]) -> BucketFile | None:
        return fold_bucket(inputs.plan, bucket, bucket_tables[MEMORIES], bucket_tables[EVENTS])

    columns = inputs.bundle.read_columns
    events = functools.partial(
        read_events,
        covered={} if base is None else base.positions,
        exclusion=inputs.exclusion,
        columns=columns,
        again_from_ms=inputs.again_from_ms,
    )
    tables = {
        EVENTS: BucketInput(parts, events, event_schema(columns)),
        MEMORIES: BucketInput(files, read_memory_file, MEMORY_COLUMNS),
    }
    built = pipeline | "Fold" >> UserBuckets(tables, inputs.buckets, fold)
    publish_together(pipeline, [built["buckets"], built["read"]], publication.publish)
