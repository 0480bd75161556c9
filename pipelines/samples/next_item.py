"""The next-item protocol on a full log: targets are behaviours, negatives are items of their time.

Each behaviour of a chosen kind on the days of a run is a target: a clicked impression at its time,
and beside it one of another item, not clicked. A target's time is when it happened, or when the
log took it if that was earlier, so that no history holds the target; what happened on another day
than the log took it is left out, or a day's samples would depend on the days after it.

A negative is drawn from what was shown or happened on the target's day (or on some days around
it, to both sides alike) with the probability of its share of those events, never an item of the
user's own day. So targets and negatives are of the same time, and items that live short give
popularity neither less nor more than it is worth: drawn from all days, negatives are older than
targets, and popularity ranks the wrong way round.

Which item is drawn depends on the seed and on the event, not on the run's days or buckets.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from uic.models.hashing import stable_hash
from uic.pipelines.log.event_log import LogFile
from uic.pipelines.negatives import ROUNDS, ItemPool, Random
from uic.pipelines.samples.log_parts import log_parts, read_columns
from uic.pipelines.samples.order import (
    IMPRESSION_COLUMNS,
    column,
    events_before,
    sorted_behaviors,
)
from uic.pipelines.samples.plan import SamplesPlan

_ITEM: Final = pa.schema([("item_id", pa.int64()), ("category_id", pa.int64())])
# Seeds of the hashes that put a target and its negative into an order that tells nothing.
_ORDERS: Final = (-2, -3)


@dataclass(frozen=True)
class NextItemTargets:
    """What is predicted, and from what negatives are drawn.

    Attributes:
        behaviors: kinds of targets, indices into `BEHAVIORS`; None is all.
        min_history: events that a target's window holds before it, at least; count.
        window_days: days before and after the target's own that negatives may be of; 0 is its own.
        seed: of the negatives.
    """

    behaviors: tuple[int, ...] | None = None
    min_history: int = 1
    window_days: int = 0
    seed: int = 0

    def document(self) -> dict[str, Any]:
        """For a manifest: the same again gives the same samples."""
        kinds = None if self.behaviors is None else list(self.behaviors)
        return {"name": "next-item", **vars(self), "behaviors": kinds}


@dataclass(frozen=True)
class TargetCounts:
    """What became of the behaviours of the chosen kinds; counts of targets.

    Attributes:
        found: on the run's days.
        too_few_events: left out: fewer than `min_history` events before it.
        no_negative: left out: every item drawn was one of the user's own day.
        late: left out: happened on another day than the log took it.
    """

    found: int = 0
    too_few_events: int = 0
    no_negative: int = 0
    late: int = 0

    def __add__(self, other: "TargetCounts") -> "TargetCounts":
        """The counts of both together."""
        return TargetCounts(*(getattr(self, name) + getattr(other, name) for name in vars(self)))


@dataclass(frozen=True)
class DayPools:
    """For each day of a run the items that negatives are drawn from: a file a day.

    Attributes:
        folder: of the files; all workers share it.
    """

    folder: Path

    def write(self, files: Sequence[LogFile], days: Iterable[date], window_days: int) -> None:
        """Write the pools of some days.

        Args:
            files: of behaviours and impressions, of these days and those around them.
            days: of the run.
            window_days: around each day, to both sides.

        Raises:
            LogFileError: a file is not readable.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        by_day: dict[date, list[pa.Table]] = {}
        for part in log_parts(files, _ITEM):
            for piece in part:
                table = read_columns(piece, _ITEM.names)
                counted = table.append_column("events", pa.array(np.ones(len(table), np.int64)))
                by_day.setdefault(piece.dt, []).append(_summed(counted))
        for day in days:
            around = [day + timedelta(at) for at in range(-window_days, window_days + 1)]
            tables = [table for one in around for table in by_day.get(one, ())]
            if tables:
                pq.write_table(_summed(pa.concat_tables(tables)), self._path(day))

    def of(self, day: date) -> ItemPool:
        """The pool of one of the days."""
        return _read_pool(self._path(day))

    def _path(self, day: date) -> Path:
        return self.folder / f"{day}.pool"


def _summed(table: pa.Table) -> pa.Table:
    """One row an item, ascending."""
    summed = table.group_by("item_id").aggregate([("category_id", "max"), ("events", "sum")])
    named = summed.select(["item_id", "category_id_max", "events_sum"])
    return named.rename_columns(["item_id", "category_id", "events"]).sort_by("item_id")


@lru_cache(maxsize=4)
def _read_pool(path: Path) -> ItemPool:
    if not path.is_file():
        nothing = np.zeros(0, np.int64)
        return ItemPool(nothing, nothing, nothing)
    table = pq.read_table(path)
    return ItemPool(*(column(table, name) for name in ("item_id", "category_id", "events")))


def next_item_impressions(
    behaviors: pa.Table, plan: SamplesPlan, targets: NextItemTargets, pools: DayPools
) -> tuple[pa.Table, TargetCounts]:
    """The impressions that the behaviours of some users make.

    Args:
        behaviors: `BEHAVIOR_COLUMNS`, in any order: all of these users on `plan.log_days`.
        plan: days, window, cut and sale days.
        targets: which behaviours, and how negatives are drawn.
        pools: of the plan's days.

    Returns:
        `IMPRESSION_COLUMNS`, and what became of the targets.

    Raises:
        LogOrderError: the positions of a user contradict the log times, or are not unique.
    """
    log_times = column(behaviors, "log_time")
    days = plan.days.index_of(log_times)
    found = (days >= 0) & (days < plan.days.count)
    if targets.behaviors is not None:
        found &= np.isin(behaviors["behavior"].to_numpy(), targets.behaviors)
    times = np.minimum(column(behaviors, "event_time"), log_times)
    late = found & (plan.days.index_of(times) != days)
    rows = np.flatnonzero(found & ~late)
    enough = _long_enough(behaviors, rows, times[rows], plan, targets.min_history)
    kept = rows[enough]
    negatives = _negatives(
        behaviors, kept, days, lambda day: pools.of(plan.days.day(day)), targets.seed
    )
    chosen = negatives[0] >= 0
    counts = TargetCounts(
        found=int(found.sum()),
        too_few_events=len(rows) - len(kept),
        no_negative=len(kept) - int(chosen.sum()),
        late=int(late.sum()),
    )
    items, categories = (of_negative[chosen] for of_negative in negatives)
    return _pairs(behaviors, kept[chosen], times, items, categories), counts


def _long_enough(
    behaviors: pa.Table,
    rows: NDArray[np.int64],
    times: NDArray[np.int64],
    plan: SamplesPlan,
    least: int,
) -> NDArray[np.bool_]:
    """Which targets have enough events in the window before what they see ends, (rows,)."""
    all_users = column(behaviors, "user_id")
    user_ids, users = np.unique(all_users[rows], return_inverse=True)
    events, _ = sorted_behaviors(behaviors, user_ids, plan)
    before = events_before(events, len(user_ids), plan)
    cuts = plan.days.bounds_ms[plan.days.index_of(times)] if plan.cuts_at_day_start else times
    seen = before(users, cuts) - before(users, times - plan.window_ms)
    enough: NDArray[np.bool_] = seen >= least
    return enough


def _negatives(
    behaviors: pa.Table,
    rows: NDArray[np.int64],
    days: NDArray[np.int64],
    pool_of: Callable[[int], ItemPool],
    seed: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Item and category for each target, (rows,) each; -1 for none."""
    items = np.full((2, len(rows)), -1, np.int64)
    users, keys = column(behaviors, "user_id"), _keys(behaviors, rows)
    for day in np.unique(days[rows]).tolist():
        of_day = np.flatnonzero(days[rows] == day)
        pool = pool_of(day)
        owner_ids, owners = np.unique(users[rows[of_day]], return_inverse=True)
        own = np.flatnonzero((days == day) & np.isin(users, owner_ids))
        owned = np.searchsorted(owner_ids, users[own]), column(behaviors, "item_id")[own]
        drawn = pool.outside(owners, owned, _hashed(keys[of_day], seed, pool.events))
        items[0, of_day[drawn >= 0]] = pool.items[drawn[drawn >= 0]]
        items[1, of_day[drawn >= 0]] = pool.categories[drawn[drawn >= 0]]
    return items[0], items[1]


def _hashed(keys: NDArray[np.uint64], seed: int, events: int) -> Random:
    """Numbers of the draws of `keys`."""

    def numbers(attempt: int, still: NDArray[np.int64]) -> NDArray[np.int64]:
        hashed = stable_hash(keys[still].view(np.int64), seed * ROUNDS + attempt)
        return (hashed % np.uint64(events)).astype(np.int64)

    return numbers


def _keys(behaviors: pa.Table, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A number of each event that is its own: from its user and its place in the log."""
    names = ("epoch", "offset", "user_id")
    epochs, offsets, users = (column(behaviors, name)[rows] for name in names)
    places = stable_hash(stable_hash(epochs).view(np.int64) ^ offsets)
    return stable_hash(users ^ places.view(np.int64))


def _pairs(
    behaviors: pa.Table,
    rows: NDArray[np.int64],
    times: NDArray[np.int64],
    items: NDArray[np.int64],
    categories: NDArray[np.int64],
) -> pa.Table:
    """Each target and its negative, as `IMPRESSION_COLUMNS`."""
    keys = _keys(behaviors, rows).view(np.int64)
    orders = [(stable_hash(keys, seed) >> np.uint64(1)).astype(np.int64) for seed in _ORDERS]
    taken = behaviors.select(["user_id", "item_id", "category_id"]).take(pa.array(rows))
    shown = taken.append_column("event_time", pa.array(times[rows], pa.timestamp("ms")))
    target = shown.append_column("clicked", pa.array(np.ones(len(rows), np.bool_)))
    negative = pa.table(
        {
            **{name: shown[name] for name in ("user_id", "event_time")},
            "item_id": items,
            "category_id": categories,
            "clicked": pa.array(np.zeros(len(rows), np.bool_)),
        }
    )
    both = [
        table.append_column("sequence", pa.array(order)).select(IMPRESSION_COLUMNS.names)
        for table, order in zip((target, negative), orders, strict=True)
    ]
    return pa.concat_tables(both).cast(IMPRESSION_COLUMNS).combine_chunks()
