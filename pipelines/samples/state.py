"""What each impression's user record said just before it, by the fold that serves."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from uic.models.features.raw import MISSING
from uic.models.records.positions import EventBatch
from uic.models.state.definition import StateDefinition
from uic.models.state.named import named_features
from uic.models.state.part import Asked
from uic.models.state.shown import PLACED, SHOWN_COLUMNS
from uic.pipelines.log.columns import batch_columns
from uic.pipelines.samples.order import SortedBehaviors, SortedImpressions, column
from uic.pipelines.samples.plan import SamplesPlan


def shown_to_users(
    shown: pa.Table | None, user_ids: NDArray[np.int64], plan: SamplesPlan
) -> pa.Table | None:
    """What was shown to some users, without sale days, as behaviours are; None for none at all.

    Args:
        shown: `BEHAVIOR_COLUMNS` with places and requests, in any order.
        user_ids: ascending.
        plan: which sale days to drop.
    """
    if shown is None:
        return None
    kept = np.isin(column(shown, "user_id"), user_ids)
    kept &= ~plan.dropped_behaviors.covers(column(shown, "log_time"))
    return shown.filter(pa.array(kept))


def _with_shown(
    behaviors: pa.Table, shown: pa.Table, seen: SortedImpressions
) -> tuple[pa.Table, NDArray[np.int64]]:
    """Both in log order of each user, and one past the last that each impression sees."""
    missing = pa.array(np.full(behaviors.num_rows, MISSING))
    for one in SHOWN_COLUMNS:
        if one.logged not in behaviors.column_names:
            behaviors = behaviors.append_column(one.logged, missing)
    both = pa.concat_tables([behaviors.select(shown.column_names), shown]).combine_chunks()
    keys = [column(both, name) for name in (PLACED, "offset", "epoch", "user_id")]
    both = both.take(pa.array(np.lexsort(keys)))
    users = np.searchsorted(seen.user_ids, column(both, "user_id"))
    times = column(both, "log_time")
    low = min(int(times.min()), int(seen.times.min(initial=times[0])))
    span = max(int(times.max()), int(seen.times.max(initial=times[0]))) - low + 2
    # Before an impression is what has an earlier log time, as in a history.
    happened = np.maximum.accumulate(users * span + times - low)
    return both, np.searchsorted(happened, seen.users * span + seen.times - low, side="left")


def state_columns(
    state: StateDefinition,
    behaviors: pa.Table,
    events: SortedBehaviors,
    impressions: pa.Table,
    seen: SortedImpressions,
    *,
    cuts: NDArray[np.int64],
    keys: dict[str, pa.Array],
    shown: pa.Table | None = None,
) -> dict[str, pa.Array]:
    """Features of a record's parts, one column each.

    Args:
        state: the parts.
        behaviors: with the columns of events that the parts read.
        events: in log order of each user.
        impressions: of the bucket.
        seen: in group order.
        cuts: (impressions,), one past the last event that each sees, among `events`.
        keys: of candidates by the name of a column of events, (impressions,) int64.
        shown: what was shown to these users, by `shown_to_users`; None for none.
    """
    used = behaviors.take(pa.array(events.rows))
    if shown is not None and shown.num_rows:
        used, cuts = _with_shown(used, shown, seen)
    count = used.num_rows
    batch = EventBatch(
        user_index=np.searchsorted(seen.user_ids, column(used, "user_id")),
        item_ids=column(used, "item_id"),
        category_ids=column(used, "category_id"),
        behaviors=used.column("behavior").to_numpy(),
        event_times_ms=column(used, "event_time"),
        log_times_ms=column(used, "log_time"),
        epochs=np.ones(count, np.int64),
        partitions=np.zeros(count, np.int64),
        offsets=np.arange(count),
        columns=batch_columns(used),
    )
    asked = Asked(
        owners=seen.users,
        now_ms=seen.times,
        item_ids=column(impressions, "item_id")[seen.rows],
        category_ids=column(impressions, "category_id")[seen.rows],
        columns={
            name: np.asarray(keys[name].to_numpy(zero_copy_only=False), np.int64)
            for name in state.reads & keys.keys()
        },
    )
    found = state.as_of(batch, asked, cuts)
    return {
        named.key: pa.array(np.ascontiguousarray(found[:, at]))
        for at, named in enumerate(named_features(state))
    }
