"""Makes and publishes the samples of some days: the edges around `group_bucket`.

The log is read once, however many days are asked for: their windows overlap, and a bucket holds
all of them.
"""

import functools
import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

import apache_beam as beam
import pyarrow as pa

from uic.models.errors import BadInputError
from uic.models.features.event_columns import EventColumn
from uic.models.published import MANIFEST_NAME, lock_of, only_writer, read_manifest
from uic.models.samples.schema import SAMPLES_KIND, SAMPLES_SCHEMA_VERSION
from uic.models.state.shown import SHOWN_COLUMNS
from uic.pipelines.beam_run import pipeline_options, publish_together, run_pipeline
from uic.pipelines.log.columns import with_columns
from uic.pipelines.log.event_log import EventLog, LogFile, open_log, range_of_days
from uic.pipelines.log.schemas import BEHAVIOR_EVENTS
from uic.pipelines.log.schemas import IMPRESSIONS as IMPRESSION_EVENTS
from uic.pipelines.log.shown import event_files
from uic.pipelines.sale_calendar import SaleCalendar
from uic.pipelines.samples.bucket_files import BucketResult, bucket_writer
from uic.pipelines.samples.build import group_bucket
from uic.pipelines.samples.days import DayRange
from uic.pipelines.samples.features import FeatureJoin
from uic.pipelines.samples.labels import check_labels
from uic.pipelines.samples.log_parts import Part, log_parts, read_behaviors, read_impressions
from uic.pipelines.samples.next_item import (
    DayPools,
    NextItemTargets,
    next_item_impressions,
)
from uic.pipelines.samples.order import BEHAVIOR_COLUMNS, IMPRESSION_COLUMNS
from uic.pipelines.samples.plan import SamplesPlan
from uic.pipelines.samples.publish import Gate, SamplesPublication
from uic.pipelines.settings import SaleSettings, SamplesSettings
from uic.pipelines.user_buckets import BucketInput, UserBuckets

# Rows of the log in one bucket. A worker holds `THREADS` + 1 buckets, at about 300 bytes a row.
BUCKET_ROWS: Final = 500_000
BEHAVIORS: Final = "behaviors"
IMPRESSIONS: Final = "impressions"
SHOWN: Final = "shown"


class DaysError(BadInputError):
    """The days asked for are reversed, or the log has none of them."""


class SamplesBusyError(BadInputError):
    """Another run writes the same samples."""


@dataclass(frozen=True)
class SamplesRequest:
    """What `uic samples` was asked for.

    `gate` judges the samples before they are published; `features` are joined to impressions;
    `labels` stand beside the click: None for those of the settings. `next_item` makes impressions
    of behaviours; None takes those of the log.
    """

    log: Path
    output: Path
    first: date
    last: date
    time_zone: str
    samples: SamplesSettings
    sale: SaleSettings
    gate: Gate | None = None
    features: FeatureJoin = field(default_factory=FeatureJoin)
    labels: Sequence[str] | None = None
    next_item: NextItemTargets | None = None


@dataclass(frozen=True)
class _Input:
    plan: SamplesPlan
    behaviors: list[LogFile]
    impressions: list[LogFile]
    shown: list[LogFile]
    pool: list[LogFile] = field(default_factory=list)  # what negatives are drawn from


def make_samples(
    request: SamplesRequest, runner: str = "DirectRunner", beam_arguments: Sequence[str] = ()
) -> dict[str, Any]:
    """Make and publish the samples; the manifest.

    Raises:
        DaysError: the days are reversed, or the log has no impression (or, of the next-item
            protocol, no behaviour) on them.
        NoSamplesError: not one impression is left by sale days and guard.
        SamplesBusyError: another run writes to the same folder.
        LabelError: the log has no such label on these days.
        BadInputError: a file of the log, the calendar or a Beam option is wrong.
        QualityGateError: the gate refused the samples; nothing was published.
    """
    options = pipeline_options(runner, beam_arguments)
    inputs = _find_input(request)
    features = _joined(request)
    features.check()
    parts = {
        BEHAVIORS: log_parts(
            inputs.behaviors, with_columns(BEHAVIOR_EVENTS, features.event_columns)
        ),
        IMPRESSIONS: log_parts(inputs.impressions, IMPRESSION_EVENTS),
    }
    if inputs.shown:
        read = (*features.event_columns, *SHOWN_COLUMNS)
        parts[SHOWN] = log_parts(inputs.shown, with_columns(BEHAVIOR_EVENTS, read))
    check_labels(features.labels, (file.path for file in inputs.impressions))
    msg = f"{request.output}: another run writes these samples; wait for it or give another --out"
    with only_writer(lock_of(request.output), SamplesBusyError(msg)):
        publication = _publication(request, inputs)
        # Named anew: a worker keeps the pools that it has read, by their path.
        pools = DayPools(request.output / f"pools-{uuid.uuid4().hex}")
        try:
            if request.next_item is not None:
                pools.write(inputs.pool, inputs.plan.days.all(), request.next_item.window_days)
            run_pipeline(lambda pipeline: _build(pipeline, parts, publication, pools), options)
        except BaseException:
            publication.discard()
            raise
    return read_manifest(request.output, SAMPLES_KIND, SAMPLES_SCHEMA_VERSION)


def is_published(request: SamplesRequest) -> bool:
    """Whether the samples that a request would make are there: of these days, log and settings.

    Raises:
        DaysError: the days are reversed, or the log has no impression on them.
        ManifestError: what is there is damaged.
    """
    inputs = _find_input(request)
    if not (request.output / MANIFEST_NAME).is_file():
        return False
    manifest = read_manifest(request.output, SAMPLES_KIND, SAMPLES_SCHEMA_VERSION)
    asked = json.loads(json.dumps(_publication(request, inputs).asked()))
    return manifest.get("protocol") == asked.get("protocol") and all(
        manifest.get(name) == value for name, value in asked.items()
    )


def _publication(request: SamplesRequest, inputs: _Input) -> SamplesPublication:
    return SamplesPublication(
        request.output,
        inputs.plan,
        _source(inputs),
        request.gate,
        _joined(request),
        request.next_item,
    )


def _joined(request: SamplesRequest) -> FeatureJoin:
    """Features and labels that the samples have; behaviours have no labels."""
    own = () if request.next_item else request.samples.labels
    asked = own if request.labels is None else request.labels
    return replace(request.features, labels=tuple(dict.fromkeys(asked)))


def _find_input(request: SamplesRequest) -> _Input:
    if request.last < request.first:
        msg = f"--first {request.first} is after --last {request.last}; swap them"
        raise DaysError(msg)
    log = open_log(request.log, request.time_zone, DaysError)
    plan = SamplesPlan(
        first=request.first,
        last=request.last,
        time_zone=request.time_zone,
        samples=request.samples,
        dropped_behaviors=SaleCalendar.for_behaviors(request.sale),
        dropped_impressions=SaleCalendar.for_impressions(request.sale),
        buckets=1,
    )
    if request.features.state is not None:
        # All that there is: what a record says of a day must not depend on the days of a run.
        lists = request.features.state.reads_shown
        days = [file.dt for file in event_files(log, None, request.last, shown=lists)]
        plan = replace(plan, state_first=min(days, default=None))
    impressions = [] if request.next_item else log.impression_files(request.first, request.last)
    behaviors = log.behavior_files(plan.history_first, request.last)
    targets = [file for file in behaviors if file.dt >= request.first]
    if not sum(file.rows for file in (targets if request.next_item else impressions)):
        raise _nothing_on_these_days(request, log)
    rows = sum(file.rows for file in [*behaviors, *impressions])
    buckets = request.samples.buckets or -(-rows // BUCKET_ROWS)
    state = request.features.state
    reads_shown = state is not None and state.reads_shown
    shown = log.shown_files(plan.history_first, request.last) if reads_shown else []
    pool = [] if request.next_item is None else _pool_files(request, log, request.next_item)
    return _Input(replace(plan, buckets=buckets), behaviors, impressions, shown, pool)


def _nothing_on_these_days(request: SamplesRequest, log: EventLog) -> DaysError:
    days = f"{request.first} to {request.last}"
    if request.next_item:
        has = range_of_days(log.behavior_files())
        return DaysError(f"{request.log}: no behaviours from {days}; {has}")
    has = range_of_days(log.impression_files())
    msg = f"{request.log}: no impressions from {days}; {has}"
    if not log.impression_files():
        msg += "; --protocol next-item makes them of behaviours"
    return DaysError(msg)


def _pool_files(request: SamplesRequest, log: EventLog, targets: NextItemTargets) -> list[LogFile]:
    around = timedelta(targets.window_days)
    days = request.first - around, request.last + around
    return [*log.behavior_files(*days), *log.impression_files(*days)]


def _source(inputs: _Input) -> dict[str, Any]:
    """What the samples were made from; equal sources and settings give equal samples."""
    digest = hashlib.sha256()
    tables = (
        (BEHAVIORS, inputs.behaviors),
        (IMPRESSIONS, inputs.impressions),
        (SHOWN, inputs.shown),
        ("pool", inputs.pool),
    )
    for table, files in tables:
        for file in files:
            line = f"{table} {file.dt} {file.epoch} {file.path.name} {file.rows} {file.bytes}\n"
            digest.update(line.encode())
    return {
        "behavior_files": len(inputs.behaviors),
        "impression_files": len(inputs.impressions),
        "epochs": sorted({file.epoch for file in inputs.behaviors if file.epoch is not None}),
        "fingerprint": digest.hexdigest(),
    }


def _build(
    pipeline: beam.Pipeline,
    parts: Mapping[str, list[Part]],
    publication: SamplesPublication,
    pools: DayPools,
) -> None:
    plan, features, targets = publication.plan, publication.features, publication.next_item
    write = bucket_writer(publication.root, plan)

    def build(bucket: int, tables: Mapping[str, pa.Table]) -> BucketResult:
        shown = tables.get(SHOWN)
        if targets is None:
            impressions = tables[IMPRESSIONS]
            return write(
                bucket, group_bucket(tables[BEHAVIORS], impressions, plan, features, shown)
            )
        impressions, counts = next_item_impressions(tables[BEHAVIORS], plan, targets, pools)
        impressions = features.with_context(impressions, Path(IMPRESSIONS))
        grouped = group_bucket(tables[BEHAVIORS], impressions, plan, features, shown)
        return write(bucket, grouped.with_targets(counts))

    columns = features.event_columns
    behaviors = functools.partial(read_behaviors, days=plan.log_days, columns=columns)
    inputs = {
        BEHAVIORS: BucketInput(parts[BEHAVIORS], behaviors, with_columns(BEHAVIOR_COLUMNS, columns))
    }
    if targets is None:
        impressions = functools.partial(read_impressions, days=plan.days, features=features)
        inputs[IMPRESSIONS] = BucketInput(
            parts[IMPRESSIONS], impressions, features.context_schema(IMPRESSION_COLUMNS)
        )
    if SHOWN in parts:
        lists = (*columns, *SHOWN_COLUMNS)
        inputs[SHOWN] = BucketInput(
            parts[SHOWN],
            functools.partial(_read_shown, days=plan.log_days, columns=lists),
            with_columns(BEHAVIOR_COLUMNS, lists),
        )
    grouped = pipeline | "Group" >> UserBuckets(inputs, plan.buckets, build)
    publish_together(pipeline, [grouped["buckets"], grouped["read"]], publication.publish)


def _read_shown(
    part: Part, days: DayRange, columns: Sequence[EventColumn]
) -> tuple[pa.Table, dict[str, Any]]:
    """As `read_behaviors`; the positions are the behaviours' matter."""
    table, facts = read_behaviors(part, days, columns)
    return table, {"table": SHOWN, "rows": facts["rows"]}
