"""Schemas of the event log (docs/concepts.md, "Event log").

Times are UTC, `timestamp[ms]` without a zone; ids are int64. A file may hold further columns
(context of an impression); the columns here are the ones that every step can rely on.
"""

from typing import Final

import pyarrow as pa

# The order gives the codes: a history stores a behaviour as its index here (int8).
BEHAVIORS: Final = ("click", "cart", "favourite", "buy")

TIMESTAMP: Final = pa.timestamp("ms")
BEHAVIOR: Final = pa.dictionary(pa.int8(), pa.string())

# log/behaviors/dt=YYYY-MM-DD/*.parquet. Within an epoch all events of a user are in one
# partition; `log_time` never falls along a partition and decides `dt`.
BEHAVIOR_EVENTS: Final = pa.schema(
    [
        pa.field("user_id", pa.int64(), nullable=False),
        pa.field("item_id", pa.int64(), nullable=False),
        pa.field("category_id", pa.int64(), nullable=False),
        pa.field("behavior", BEHAVIOR, nullable=False),
        pa.field("event_time", TIMESTAMP, nullable=False),
        pa.field("log_time", TIMESTAMP, nullable=False),
        pa.field("epoch", pa.int32(), nullable=False),
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("source", pa.string()),
    ]
)

# log/impressions/dt=YYYY-MM-DD/*.parquet, plus optional context columns.
IMPRESSIONS: Final = pa.schema(
    [
        pa.field("user_id", pa.int64(), nullable=False),
        pa.field("item_id", pa.int64(), nullable=False),
        pa.field("category_id", pa.int64(), nullable=False),
        pa.field("event_time", TIMESTAMP, nullable=False),
        pa.field("clicked", pa.bool_(), nullable=False),
    ]
)
