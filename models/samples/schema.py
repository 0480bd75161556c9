"""Grouped training samples: the schema that the samples pipeline writes and the trainer reads.

One row is a group: one user's impressions of one day with the history that they share
(common-feature grouping; MIMN section 5.1, DICM section 3). The history is in log order and is
stored once; `history_lengths[i]` says how much of it impression `i` may see.
"""

from collections.abc import Iterable
from typing import Final

import pyarrow as pa

from uic.models.features.definition import FeatureSet, Owner
from uic.models.features.event_columns import EventColumn
from uic.models.features.raw import raw_type

SAMPLES_KIND: Final = "samples"
SAMPLES_SCHEMA_VERSION: Final = 1

TIMESTAMP: Final = pa.timestamp("ms")

SAMPLES: Final = pa.schema(
    [
        pa.field("user_id", pa.int64(), nullable=False),
        pa.field("dt", pa.date32(), nullable=False),
        # The shared history, oldest first. Behaviours are indices into `BEHAVIORS`.
        pa.field("history_item_ids", pa.list_(pa.int64()), nullable=False),
        pa.field("history_category_ids", pa.list_(pa.int64()), nullable=False),
        pa.field("history_behaviors", pa.list_(pa.int8()), nullable=False),
        pa.field("history_times", pa.list_(TIMESTAMP), nullable=False),
        # One entry per impression, by (event time, order in the impression log).
        pa.field("item_ids", pa.list_(pa.int64()), nullable=False),
        pa.field("category_ids", pa.list_(pa.int64()), nullable=False),
        pa.field("event_times", pa.list_(TIMESTAMP), nullable=False),
        pa.field("labels", pa.list_(pa.bool_()), nullable=False),
        pa.field("history_lengths", pa.list_(pa.int32()), nullable=False),
    ]
)

# Which of a group's versions of its user's features each impression saw: almost always the one.
USER_VERSIONS: Final = "user_versions"


# Labels beside the click: a column a label, parallel to `item_ids`; null is not known (yet).
LABELS: Final = "labels."


def label_column(name: str) -> str:
    """The column of samples that holds a label."""
    return f"{LABELS}{name}"


# Columns of events, parallel to `history_item_ids`, in front of `event.NAME`.
HISTORY_EVENT: Final = "history_"


def samples_schema(
    features: FeatureSet, labels: Iterable[str] = (), columns: Iterable[EventColumn] = ()
) -> pa.Schema:
    """`SAMPLES` with a column for each feature, named `owner.name`, and for each label.

    Features of items and of the context are parallel to `item_ids`. Those of the user are stored
    once a version that held within the group, and `user_versions` says which an impression saw.
    Columns of events stand in the history as `history_event.NAME`, without nulls.
    """
    schema = SAMPLES
    for column in columns:
        kind = pa.list_(pa.from_numpy_dtype(column.dtype))
        name = f"{HISTORY_EVENT}{column.logged}"
        schema = schema.append(pa.field(name, kind, nullable=False))
    for named in features:
        kind = pa.list_(raw_type(named.feature))
        schema = schema.append(pa.field(named.key, kind, nullable=False))
    if features.of(Owner.USER):
        schema = schema.append(pa.field(USER_VERSIONS, pa.list_(pa.int32()), nullable=False))
    for name in labels:
        schema = schema.append(pa.field(label_column(name), pa.list_(pa.bool_()), nullable=False))
    return schema
