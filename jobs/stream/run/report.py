"""The lines of `uic stream status`."""

import math
import time
from collections.abc import Iterator
from typing import Final

from uic.jobs.config.context import Context
from uic.jobs.stream.fold.counters import FRESHNESS_BOUNDS_MS, freshness_quantile
from uic.jobs.stream.fold.plan import JobPlan
from uic.jobs.stream.fold.status import StreamStatus, read_status
from uic.jobs.stream.run.planner import Planner, RunOptions
from uic.jobs.stream.run.start_positions import folder_name
from uic.jobs.stream.run.supervisor import running
from uic.jobs.stream.run.topic_watch import events_ahead, grown
from uic.jobs.stream.topics.brokers import brokers_of
from uic.jobs.stream.topics.event_files import scan_folder
from uic.jobs.stream.topics.kafka_topic import end_offsets, partitions_of
from uic.models.errors import UicError

_RATE_SECONDS: Final = 2.5


def status_lines(context: Context, generation: int | None) -> Iterator[str]:
    """What there is to say of one generation's stream, by the store, its workers and the source."""
    planner = Planner(context, RunOptions(generation=generation))
    number = planner.generation().number
    found = running(planner.folder / folder_name(number))
    project = planner.keys.project
    if found is None:
        yield f"generation {number}: not streaming (from this workspace)"
    else:
        yield (
            f"generation {number}: streaming, attempt {found['attempt']}, process {found['pid']}, "
            f"http://127.0.0.1:{found['rest_port']}/jobs/overview"
        )
    before = read_status(planner.client, project, number, str(planner.address))
    if not before.workers:
        return
    time.sleep(_RATE_SECONDS)
    after = read_status(planner.client, project, number, str(planner.address))
    yield from _figures(before, after)
    if found is not None:
        with open(found["plan"], encoding="utf-8") as stream:  # noqa: PTH123
            plan = JobPlan.model_validate_json(stream.read())
        # A plan's file has no password.
        security = planner.stream.security
        plan = plan.model_copy(
            update={"stream": plan.stream.model_copy(update={"security": security})}
        )
        yield from lag_lines(planner, plan)


def _figures(before: StreamStatus, after: StreamStatus) -> Iterator[str]:
    seconds = after.at - before.at
    gained = {name: after.totals.get(name, 0) - count for name, count in before.totals.items()}
    folded = after.totals.get("folded", 0)
    rate = gained.get("folded", 0) / seconds if seconds > 0 else 0.0
    yield f"folded      {folded:,} events since the attempt began, {rate:,.0f} a second now"
    yield f"skipped     {after.totals.get('skipped', 0):,}"
    rejects = ", ".join(f"{reason} {count:,}" for reason, count in after.rejects().items())
    yield f"rejected    {after.totals.get('rejected', 0):,}" + (f" ({rejects})" if rejects else "")
    if after.totals.get("refused_writes"):
        yield f"refused     {after.totals['refused_writes']:,} writes (another writer is ahead)"
    # Of this moment, if something came: a catch-up long ago says nothing about now.
    recent = gained if gained.get("folded") else after.totals
    p50, p99 = (freshness_quantile(recent, quantile) for quantile in (0.5, 0.99))
    if p50 is not None and p99 is not None:
        yield f"freshness   p50 {_bound(p50)}, p99 {_bound(p99)} (log to memory)"
    hits, misses = after.totals.get("cache_hits", 0), after.totals.get("cache_misses", 0)
    if hits + misses:
        yield f"cache       {hits / (hits + misses):.0%} of memories found in the workers"
    shares = ", ".join(f"{stage} {share:.0%}" for stage, share in after.stage_shares().items())
    yield f"time        {shares}"


def _bound(milliseconds: float) -> str:
    """The upper bound of a bucket in words."""
    if math.isinf(milliseconds):
        return f"more than {FRESHNESS_BOUNDS_MS[-1]:,} ms"
    return f"up to {milliseconds:,.0f} ms"


def lag_lines(planner: Planner, plan: JobPlan) -> Iterator[str]:
    """Events that wait in each partition, and whether there are partitions that are not read."""
    try:
        lag = lag_of(planner, plan)
        partitions = (
            partitions_of(brokers_of(plan.stream), plan.stream.topic)
            if plan.source == "kafka"
            else len(plan.starts)
        )
    except UicError as error:
        yield f"lag         unknown: {error}"
        return
    yield f"lag         {sum(lag.values()):,} events: " + ", ".join(
        f"{partition}: {events:,}" for partition, events in lag.items()
    )
    text = grown(partitions, len(plan.starts), plan.epoch)
    if text is not None:
        yield f"partitions  {text}"


def lag_of(planner: Planner, plan: JobPlan) -> dict[int, int]:
    """By partition, events in the source after the store's marker.

    On a transactional topic commits and aborted events between them count, too; where no event
    waits, it is 0.

    Raises:
        UicError: the store or the source does not answer.
    """
    marks = planner.generations.markers(plan.generation).get(plan.epoch, {})
    if plan.source == "kafka":
        ends = end_offsets(brokers_of(plan.stream), plan.stream.topic, len(plan.starts))
        ahead = events_ahead(plan, marks)
        return {partition: ends[partition] - at for partition, at in ahead.items()}
    files = scan_folder(planner.event_folder)
    ends = {partition: own[-1].last + 1 for partition, own in files.items()}
    return {
        partition: max(0, ends[partition] - marks.get(partition, start - 1) - 1)
        for partition, start in plan.starts.items()
    }
