"""What each impression's user record said just before it, by the fold that serves."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from uic.models.records.positions import EventBatch
from uic.models.state.definition import StateDefinition
from uic.models.state.named import named_features
from uic.models.state.part import Asked
from uic.pipelines.log.columns import batch_columns
from uic.pipelines.samples.order import SortedBehaviors, SortedImpressions, column


def state_columns(
    state: StateDefinition,
    behaviors: pa.Table,
    events: SortedBehaviors,
    impressions: pa.Table,
    seen: SortedImpressions,
    *,
    cuts: NDArray[np.int64],
    keys: dict[str, pa.Array],
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
    """
    rows = events.rows
    count = len(rows)
    batch = EventBatch(
        user_index=events.users,
        item_ids=column(behaviors, "item_id")[rows],
        category_ids=column(behaviors, "category_id")[rows],
        behaviors=behaviors.column("behavior").to_numpy()[rows],
        event_times_ms=column(behaviors, "event_time")[rows],
        log_times_ms=events.log_times,
        epochs=np.ones(count, np.int64),
        partitions=np.zeros(count, np.int64),
        offsets=np.arange(count),
        columns={name: own[rows] for name, own in batch_columns(behaviors).items()},
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
