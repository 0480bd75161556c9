"""The groups of one bucket of users: from behaviours and impressions to rows of `SAMPLES`.

A pure function from tables to a table, without a loop over users, events or impressions:

1. Impressions outside the run's days and on dropped sale days go; the rest are sorted by
   (day, user, event time, order in the log), so that a group is a run of rows.
2. Behaviours of users without impressions, and on dropped sale days, go; the rest are sorted by
   (user, epoch, offset), which is log order, so that a history is a run of rows.
3. Groups of inhuman users go (`machine_groups`).
4. In a user's events log time never falls. So what an impression saw is found by one binary
   search among keys (user, log time), and so is where a window begins.
5. The ranges are gathered into list columns, a bounded number of events at a time.

What a group's history is: the events with log time at or after the group's first impression minus
`window_days` times 24 hours, of those before the first cut the newest `history_cap`, up to the
last cut. The cut of an impression is its event time (`cut: impression`) or the start of its day
(`cut: day_start`); it sees the events whose log time is before the cut, strictly. The first
impression is the first that is not on a dropped sale day.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from uic.models.samples.groups import offsets_of, ranges
from uic.models.samples.schema import HISTORY_EVENT
from uic.pipelines.samples.features import FeatureJoin, JoinedFeatures
from uic.pipelines.samples.labels import LabelCounts
from uic.pipelines.samples.next_item import TargetCounts
from uic.pipelines.samples.order import (
    SortedBehaviors,
    SortedImpressions,
    events_before,
    machine_groups,
    sorted_behaviors,
    sorted_impressions,
    without_groups,
)
from uic.pipelines.samples.plan import SamplesPlan
from uic.pipelines.samples.state import shown_to_users, state_columns

# History events that one gathered table holds at most, unless a single group has more: 25 MB of
# columns, small beside a bucket, and a good size of a row group in the file.
GATHERED_EVENTS: Final = 1_000_000

# Column of `SAMPLES` -> column that it is gathered from.
HISTORY_COLUMNS: Final = {
    "history_item_ids": "item_id",
    "history_category_ids": "category_id",
    "history_behaviors": "behavior",
    "history_times": "event_time",
}
_SHOWN: Final = {
    "item_ids": "item_id",
    "category_ids": "category_id",
    "event_times": "event_time",
    "labels": "clicked",
}


@dataclass(frozen=True)
class BuildFacts:
    """What happened to the rows of a bucket.

    Attributes:
        impressions_by_day: int64 (days,), impressions in the samples, by day of the run.
        sale_impressions: impressions left out because of a sale day.
        sale_behaviors: behaviours of users with impressions, left out because of a sale day.
        inhuman_users: int64, sorted: users with a group left out by `max_events_per_day`.
        inhuman_impressions: impressions in those groups.
        missing: by feature, impressions without a value.
        labels: what is known of each label beside the click.
        targets: what became of the targets of the next-item protocol.
    """

    impressions_by_day: NDArray[np.int64]
    sale_impressions: int
    sale_behaviors: int
    inhuman_users: NDArray[np.int64]
    inhuman_impressions: int
    missing: dict[str, int] = field(default_factory=dict)
    labels: dict[str, LabelCounts] = field(default_factory=dict)
    targets: TargetCounts = field(default_factory=TargetCounts)


@dataclass(frozen=True)
class GroupedBucket:
    """The groups of a bucket, found but not yet gathered: histories repeat, so they may be large.

    Attributes:
        facts: what happened to the rows.
        group_days: int64 (groups,), index of each group's day, ascending.
    """

    facts: BuildFacts
    group_days: NDArray[np.int64]
    _plan: SamplesPlan
    _seen: SortedImpressions
    _events: dict[str, pa.Array]  # history column -> values in log order
    _shown: dict[str, pa.Array]  # impression column -> values in group order
    _starts: NDArray[np.int64]  # (groups,), into `_events`
    _lengths: NDArray[np.int64]  # (groups,)
    _history_lengths: NDArray[np.int32]  # (impressions,)
    _joined: JoinedFeatures

    def tables(self, first: int = 0, last: int | None = None) -> Iterator[pa.Table]:
        """The groups `first` to before `last` as rows of `schema`, sorted by (dt, user_id)."""
        last = len(self.group_days) if last is None else last
        events = offsets_of(self._lengths[first:last])
        start = 0
        while start < last - first:
            fitting = np.searchsorted(events, events[start] + GATHERED_EVENTS, side="right") - 1
            end = max(int(fitting), start + 1)
            yield self._gather(first + start, first + end)
            start = end

    def with_targets(self, counts: TargetCounts) -> Self:
        """With what became of the targets that the impressions are of."""
        return replace(self, facts=replace(self.facts, targets=counts))

    def table(self) -> pa.Table:
        """All groups as one table of `schema`."""
        return pa.concat_tables([self.schema.empty_table(), *self.tables()])

    @property
    def schema(self) -> pa.Schema:
        """`SAMPLES`, with features and labels."""
        return self._joined.schema()

    def _gather(self, first: int, last: int) -> pa.Table:
        lengths = self._lengths[first:last]
        history = pa.array(ranges(self._starts[first:last], lengths))
        history_offsets = pa.array(offsets_of(lengths).astype(np.int32))
        starts = self._seen.group_starts
        shown = slice(int(starts[first]), int(starts[last]))
        shown_offsets = pa.array((starts[first : last + 1] - starts[first]).astype(np.int32))
        columns: dict[str, pa.Array] = {
            "user_id": pa.array(self._seen.user_ids[self._seen.users[starts[first:last]]]),
            "dt": self._dates(self.group_days[first:last]),
            "history_lengths": _lists(shown_offsets, pa.array(self._history_lengths[shown])),
        }
        for name, values in self._events.items():
            columns[name] = _lists(history_offsets, values.take(history))
        for name, values in self._shown.items():
            columns[name] = _lists(shown_offsets, values[shown])
        columns |= self._joined.gather(first, last, shown, shown_offsets)
        schema = self.schema
        return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)

    def _dates(self, days: NDArray[np.int64]) -> pa.Array:
        first = np.datetime64(self._plan.first, "D").astype(np.int64)
        return pa.array((first + days).astype(np.int32)).cast(pa.date32())


def group_bucket(
    behaviors: pa.Table,
    impressions: pa.Table,
    plan: SamplesPlan,
    features: FeatureJoin | None = None,
    shown: pa.Table | None = None,
) -> GroupedBucket:
    """Group the impressions of some users with their histories.

    Args:
        behaviors: `BEHAVIOR_COLUMNS` and the columns of events, in any order: all behaviours of
            these users on the days `plan.log_days`; those of other users are ignored.
        impressions: `IMPRESSION_COLUMNS`, in any order, with the context's raw values.
        plan: days, window, cap, cut, sale days and guard.
        features: to join; none by default.
        shown: what was shown, like `behaviors`, with places and requests; None for none.

    Returns:
        The groups, sorted by (dt, user_id), and what was left out.

    Raises:
        LogOrderError: the positions of a user contradict the log times, or are not unique.
    """
    everything, sale_impressions = sorted_impressions(impressions, plan)
    events, sale_behaviors = sorted_behaviors(behaviors, everything.user_ids, plan)
    of_machines = machine_groups(everything, events, plan)
    seen, inhuman_impressions = without_groups(everything, of_machines)
    machines = everything.users[everything.group_starts[:-1][of_machines]]
    starts, lengths, history_lengths = _histories(seen, events, plan)
    features = features or FeatureJoin()
    state = features.state
    cuts = np.repeat(starts, np.diff(seen.group_starts)) + history_lengths
    columns = None
    if state is not None:
        columns = partial(
            state_columns,
            state,
            behaviors,
            events,
            impressions,
            seen,
            cuts=cuts.astype(np.int64),
            shown=shown_to_users(shown, everything.user_ids, plan),
        )
    joined = features.join(impressions, seen, columns and (lambda keys: columns(keys=keys)))
    of_history = HISTORY_COLUMNS | {
        f"{HISTORY_EVENT}{column.logged}": column.logged for column in features.event_columns
    }
    return GroupedBucket(
        facts=BuildFacts(
            impressions_by_day=np.bincount(seen.days, minlength=plan.days.count).astype(np.int64),
            sale_impressions=sale_impressions,
            sale_behaviors=sale_behaviors,
            inhuman_users=np.unique(everything.user_ids[machines]),
            inhuman_impressions=inhuman_impressions,
            missing=joined.missing(),
            labels=joined.label_counts(),
        ),
        group_days=seen.days[seen.group_starts[:-1]],
        _plan=plan,
        _seen=seen,
        _events={name: _taken(behaviors, of, events.rows) for name, of in of_history.items()},
        _shown={name: _taken(impressions, of, seen.rows) for name, of in _SHOWN.items()},
        _starts=starts,
        _lengths=lengths,
        _history_lengths=history_lengths,
        _joined=joined,
    )


def _taken(table: pa.Table, name: str, rows: NDArray[np.int64]) -> pa.Array:
    taken = table.column(name).take(pa.array(rows))
    return taken.combine_chunks() if taken.num_chunks != 1 else taken.chunk(0)


def _lists(offsets: pa.Array, values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(offsets, values)


def _histories(
    seen: SortedImpressions, events: SortedBehaviors, plan: SamplesPlan
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
    """Where each group's history starts in `events` and how long it is, and `history_lengths`."""
    firsts = seen.group_starts[:-1]
    cuts = plan.days.bounds_ms[seen.days] if plan.cuts_at_day_start else seen.times
    before = events_before(events, len(seen.user_ids), plan)
    seen_until = before(seen.users, cuts)
    in_window = before(seen.users[firsts], seen.times[firsts] - plan.window_ms)
    # With `day_start` a window can begin behind the cut only if it is shorter than a day.
    capped = np.maximum(in_window, seen_until[firsts] - plan.samples.history_cap)
    starts = np.minimum(capped, seen_until[firsts])
    lengths = seen_until[seen.group_starts[1:] - 1] - starts
    sizes = np.diff(seen.group_starts)
    return starts, lengths, (seen_until - np.repeat(starts, sizes)).astype(np.int32)
