"""Schemas of the event log (docs/concepts.md, "Event log").

Times are UTC, `timestamp[ms]` without a zone; ids are int64. A file may hold further columns
(context of an impression); the columns here are the ones that every step can rely on.
"""

from typing import Final

import pyarrow as pa

from uic.models.records.positions import BEHAVIORS as BEHAVIORS  # noqa: PLC0414 - the schema's, too

TIMESTAMP: Final = pa.timestamp("ms")
BEHAVIOR: Final = pa.dictionary(pa.int8(), pa.string())


def misfit(file: pa.Schema, expected: pa.Schema) -> str | None:
    """What is wrong with a file's columns, in half a sentence; None if they fit.

    A nullable column may be missing. Of dictionaries the values count, since Parquet does not keep
    the type of indices.
    """
    for field in expected:
        at = file.get_field_index(field.name)
        if at < 0:
            if not field.nullable:
                return f"column {field.name} is missing, expected {field.type}"
            continue
        kinds = [
            kind.value_type if pa.types.is_dictionary(kind) else kind
            for kind in (file.field(at).type, field.type)
        ]
        if kinds[0] != kinds[1]:
            return f"column {field.name} is {file.field(at).type}, expected {field.type}"
    return None


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
