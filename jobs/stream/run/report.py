"""The lines of `uic stream status`."""

import math
import time
from collections.abc import Iterator
from typing import Final

from uic.jobs.config.context import Context
from uic.jobs.stream.fold.counters import FRESHNESS_BOUNDS_MS, freshness_quantile
from uic.jobs.stream.fold.status import StreamStatus, read_status
from uic.jobs.stream.run.lag import lag_lines
from uic.jobs.stream.run.planner import Planner, RunOptions
from uic.jobs.stream.run.start_positions import folder_name
from uic.jobs.stream.run.supervisor import running

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
    if before.workers:
        time.sleep(_RATE_SECONDS)
        after = read_status(planner.client, project, number, str(planner.address))
        yield from _figures(before, after)
    yield from lag_lines(planner, number)


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
