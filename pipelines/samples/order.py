"""One bucket's impressions and behaviours in the order in which groups are runs of rows.

Impressions are sorted by (day, user, event time, place in the impression log), behaviours by
(user, epoch, offset), which is log order. What is not used is dropped here, and counted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from uic.models.errors import BadInputError
from uic.models.samples.groups import offsets_of
from uic.models.samples.schema import TIMESTAMP
from uic.pipelines.log.positions import LogOrderError
from uic.pipelines.samples.plan import SamplesPlan

_INT64_BITS: Final = 63

# What a behaviour and an impression are on their way to `build_bucket`. `sequence` is the place in
# the impression log, which orders impressions of one moment.
BEHAVIOR_COLUMNS: Final = pa.schema(
    [
        ("user_id", pa.int64()),
        ("item_id", pa.int64()),
        ("category_id", pa.int64()),
        ("behavior", pa.int8()),
        ("event_time", TIMESTAMP),
        ("log_time", TIMESTAMP),
        ("epoch", pa.int32()),
        ("offset", pa.int64()),
    ]
)
IMPRESSION_COLUMNS: Final = pa.schema(
    [
        ("user_id", pa.int64()),
        ("item_id", pa.int64()),
        ("category_id", pa.int64()),
        ("event_time", TIMESTAMP),
        ("clicked", pa.bool_()),
        ("sequence", pa.int64()),
    ]
)


@dataclass(frozen=True)
class SortedImpressions:
    """Impressions sorted by (day, user, event time, sequence), and the groups that they make."""

    user_ids: NDArray[np.int64]  # (users,), sorted, without repeats
    users: NDArray[np.int64]  # (impressions,), index into `user_ids`
    days: NDArray[np.int64]  # (impressions,), index of the day
    times: NDArray[np.int64]  # (impressions,), ms
    rows: NDArray[np.int64]  # (impressions,), row of the input table
    group_starts: NDArray[np.int64]  # (groups + 1,)


@dataclass(frozen=True)
class SortedBehaviors:
    """Behaviours of users with impressions, in log order of each user."""

    users: NDArray[np.int64]  # (events,), index into `SortedImpressions.user_ids`
    log_times: NDArray[np.int64]  # (events,), ms
    rows: NDArray[np.int64]  # (events,), row of the input table


def column(table: pa.Table, name: str) -> NDArray[np.int64]:
    """A column without nulls as numpy; times as int64 milliseconds. No copy if in one chunk."""
    values = table.column(name)
    if pa.types.is_timestamp(values.type):
        values = values.cast(pa.int64())
    array: NDArray[np.int64] = values.to_numpy()
    return array


def sorted_impressions(table: pa.Table, plan: SamplesPlan) -> tuple[SortedImpressions, int]:
    """The impressions of the run's days (`IMPRESSION_COLUMNS`) that are not on dropped sale days.

    Returns:
        The impressions in group order, and how many of the run's days were on dropped sale days.
    """
    times = column(table, "event_time")
    days = plan.days.index_of(times)
    in_run = (days >= 0) & (days < plan.days.count)
    on_sale = plan.dropped_impressions.covers(times) & in_run
    rows = np.flatnonzero(in_run & ~on_sale)
    user_ids, users = np.unique(column(table, "user_id")[rows], return_inverse=True)
    days, times = days[rows], times[rows]
    groups = days * max(len(user_ids), 1) + users
    order = np.lexsort((column(table, "sequence")[rows], times, groups))
    groups = groups[order]
    starts = (
        np.flatnonzero(np.diff(groups, prepend=-1, append=-1))
        if len(groups)
        else np.zeros(1, np.int64)
    )
    seen = SortedImpressions(user_ids, users[order], days[order], times[order], rows[order], starts)
    return seen, int(np.count_nonzero(on_sale))


def sorted_behaviors(
    table: pa.Table, user_ids: NDArray[np.int64], plan: SamplesPlan
) -> tuple[SortedBehaviors, int]:
    """The behaviours (`BEHAVIOR_COLUMNS`) of `user_ids` that are not on dropped sale days.

    Args:
        table: in any order.
        user_ids: int64, sorted, without repeats: the users with impressions.
        plan: which sale days to drop.

    Returns:
        The behaviours in log order of each user, and how many of these users were dropped.

    Raises:
        LogOrderError: the positions of a user contradict the log times, or are not unique.
    """
    all_users = column(table, "user_id")
    if not len(user_ids):
        empty = np.zeros(0, dtype=np.int64)
        return SortedBehaviors(empty, empty, empty), 0
    codes = np.minimum(np.searchsorted(user_ids, all_users), len(user_ids) - 1)
    log_times = column(table, "log_time")
    of_run = user_ids[codes] == all_users
    on_sale = plan.dropped_behaviors.covers(log_times) & of_run
    rows = np.flatnonzero(of_run & ~on_sale)
    epochs, offsets = column(table, "epoch")[rows], column(table, "offset")[rows]
    order = _log_order(codes[rows], epochs, offsets)
    rows = rows[order]
    events = SortedBehaviors(codes[rows], log_times[rows], rows)
    _check_log_order(events, table, user_ids)
    return events, int(np.count_nonzero(on_sale))


def _log_order(
    users: NDArray[np.int64], epochs: NDArray[np.int64], offsets: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The order by (user, epoch, offset).

    One sort of a packed integer is several times faster than a sort by three keys, and the three
    nearly always fit 63 bits: bits of users in a bucket, of epochs, of offsets in the window.
    """
    if not len(users):
        return np.zeros(0, dtype=np.int64)
    first_epoch, first_offset = int(epochs.min()), int(offsets.min())
    epoch_bits = (int(epochs.max()) - first_epoch).bit_length()
    offset_bits = (int(offsets.max()) - first_offset).bit_length()
    if int(users.max()).bit_length() + epoch_bits + offset_bits > _INT64_BITS:
        by_keys: NDArray[np.int64] = np.lexsort((offsets, epochs, users))
        return by_keys
    epoch_codes = epochs.astype(np.int64) - first_epoch
    packed = ((users << epoch_bits | epoch_codes) << offset_bits) | (offsets - first_offset)
    order: NDArray[np.int64] = np.argsort(packed)
    return order


def _check_log_order(events: SortedBehaviors, table: pa.Table, user_ids: NDArray[np.int64]) -> None:
    epochs, offsets = column(table, "epoch")[events.rows], column(table, "offset")[events.rows]
    same_user = events.users[1:] == events.users[:-1]
    falls = same_user & (events.log_times[1:] < events.log_times[:-1])
    twice = same_user & (offsets[1:] == offsets[:-1]) & (epochs[1:] == epochs[:-1])
    for wrong, what in (
        (twice, "is there twice"),
        (falls, "has an earlier log time than before it"),
    ):
        places = np.flatnonzero(wrong)
        if places.size:
            place = int(places[0]) + 1
            msg = (
                f"event log: column log_time: user {user_ids[events.users[place]]}: the event at "
                f"epoch {epochs[place]}, offset {offsets[place]} {what}; expected unique positions "
                "along which log time never falls; import or compact these days again"
            )
            raise LogOrderError(msg)


def events_before(
    events: SortedBehaviors, users: int, plan: SamplesPlan
) -> Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.int64]]:
    """A function that finds where a time falls among a user's events.

    Args:
        events: in log order of each user.
        users: how many there are; count.
        plan: which days are read.

    Returns:
        (users, times in ms, of one shape) -> the first of the user's events, among all, whose log
        time is not before that; one past the user's last if there is none.

    Raises:
        BadInputError: there are too many users for a key of 63 bits.
    """
    # Instants before the first day that is read, or after the run, need no key of their own.
    origin, end = int(plan.log_days.bounds_ms[0]) - 1, int(plan.log_days.bounds_ms[-1])
    span = end - origin + 1
    if users > (2**63 - 1) // span:
        msg = f"{users} users in one bucket are too many; raise samples.buckets"
        raise BadInputError(msg)
    keys = events.users * span + (np.clip(events.log_times, origin, end) - origin)

    def before(of: NDArray[np.int64], times: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(keys, of * span + (times - origin), side="left")

    return before


def machine_groups(
    seen: SortedImpressions, events: SortedBehaviors, plan: SamplesPlan
) -> NDArray[np.bool_]:
    """Which groups belong to a machine rather than a person, bool (groups,).

    A group of day D is left out if its user has more than `max_events_per_day` behaviours on any
    one day from the first that a window from the start of D reaches, to D itself. Days are looked
    at whole, and nothing after D counts, so that a day's samples do not depend on the run's other
    days.
    """
    limit = plan.samples.max_events_per_day
    groups = len(seen.group_starts) - 1
    if not len(events.users) or int(np.bincount(events.users).max()) <= limit:
        return np.zeros(groups, dtype=np.bool_)
    days = plan.log_days.count
    of_day = plan.log_days.index_of(events.log_times)
    read = (of_day >= 0) & (of_day < days)
    keys = (events.users * days + of_day)[read]
    busy, counts = np.unique(keys, return_counts=True)
    busy = busy[counts > limit]
    firsts = seen.group_starts[:-1]
    group_days = seen.days[firsts]
    day_starts = plan.days.bounds_ms[:-1]
    oldest = plan.log_days.index_of(day_starts - plan.window_ms)[group_days]
    newest = plan.log_days.index_of(day_starts)[group_days]
    users = seen.users[firsts]
    machines: NDArray[np.bool_] = np.searchsorted(busy, users * days + oldest) < np.searchsorted(
        busy, users * days + newest, side="right"
    )
    return machines


def without_groups(
    seen: SortedImpressions, left_out: NDArray[np.bool_]
) -> tuple[SortedImpressions, int]:
    """The impressions without those of the groups `left_out`, bool (groups,); how many went."""
    if not left_out.any():
        return seen, 0
    sizes = np.diff(seen.group_starts)
    keep = np.repeat(~left_out, sizes)
    remaining = SortedImpressions(
        seen.user_ids,
        seen.users[keep],
        seen.days[keep],
        seen.times[keep],
        seen.rows[keep],
        offsets_of(sizes[~left_out]),
    )
    return remaining, int(np.count_nonzero(~keep))
