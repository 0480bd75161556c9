"""Columns of events: the same values and the same refusals from the wire and from the log."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uic.models.features.event_columns import EventColumn
from uic.models.features.raw import MISSING, category_of
from uic.pipelines.log.columns import (
    event_batch,
    logged_column,
    readable,
    wire_columns,
    with_columns,
)
from uic.pipelines.log.epochs import EventColumnError
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.events import EventParser, ParsedEvents
from uic.pipelines.log.schemas import BEHAVIOR_EVENTS
from uic.pipelines.log.writer import LogWriter, Part
from uic.pipelines.memories.exclude import Exclusion
from uic.pipelines.memories.read import event_schema, read_events
from uic.pipelines.samples.log_parts import log_parts
from uic.pipelines.settings import LogSettings

NOW = 1_700_000_000_000
PRICE = EventColumn(name="price", kind="number", field="price")
SHOP = EventColumn(name="shop", kind="categorical", field="shop_id")


def event(**fields: Any) -> bytes:
    base = {"user_id": 1, "item_id": 2, "category_id": 3, "behavior": "click", "event_time": NOW}
    return json.dumps({**base, **fields}).encode()


def parse(columns: tuple[EventColumn, ...], *payloads: bytes | None) -> ParsedEvents:
    return EventParser(LogSettings(), columns).parse(payloads, np.full(len(payloads), NOW))


def logged(columns: tuple[EventColumn, ...], parsed: ParsedEvents) -> pa.Table:
    """What the log has of parsed events: their place among the payloads, and columns."""
    return pa.table(
        {
            "index": parsed.index,
            **{
                one.logged: logged_column(one, parsed.columns[one.name], parsed.wrong.get(one.name))
                for one in columns
            },
        }
    )


def test_declared_fields_become_numbers_and_categories_and_no_value_is_missing() -> None:
    parsed = parse(
        (PRICE, SHOP), event(price=3, shop_id="A"), event(price=None), event(shop_id=True)
    )
    np.testing.assert_array_equal(parsed.columns["price"], [3.0, np.nan, np.nan])
    assert parsed.columns["price"].dtype == np.float64
    assert parsed.columns["shop"].tolist() == [category_of("A"), MISSING, 1]
    assert parsed.refusing_wrong() is parsed


def test_a_field_that_is_not_declared_may_be_anything() -> None:
    parsed = parse((PRICE,), event(price=1.5, shop_id={"a": [1]}))
    assert list(parsed.columns) == ["price"]
    assert parsed.reasons == [None]


@pytest.mark.parametrize(
    "fields",
    [
        {"price": "3.5"},
        {"price": True},
        {"price": [1]},
        {"shop_id": 1.5},
        {"shop_id": {}},
        {"shop_id": 2**63},
        {"shop_id": -(2**63)},
    ],
)
def test_a_value_of_the_wrong_type_is_refused_by_who_reads_it(fields: dict[str, Any]) -> None:
    good, wrong = event(price=1, shop_id="A"), event(**fields)
    for columns in ((PRICE, SHOP), (PRICE,), (SHOP,)):
        reads = any(column.field in fields for column in columns)
        refused = parse(columns, good, wrong, good).refusing_wrong()
        assert refused.reasons == [None, "wrong_type" if reads else None, None]
        assert refused.index.tolist() == ([0, 2] if reads else [0, 1, 2])
        assert all(len(values) == len(refused.index) for values in refused.columns.values())


def test_what_is_no_event_is_none_whatever_its_columns_are() -> None:
    parsed = parse(
        (PRICE,), b"{", None, event(price="x", user_id=-1), event(price="x", event_time=1)
    )
    assert parsed.reasons == ["malformed", "malformed", "id_out_of_range", "event_too_old"]


_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**65), 2**65),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=3),
    st.lists(st.integers(), max_size=2),
    st.just(MISSING),
)
_FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "price": _VALUES,
        "shop_id": _VALUES,
        "brand": _VALUES,
        "user_id": st.sampled_from([1, 2, -1, "x"]),
        "event_time": st.sampled_from([NOW, 0]),
    },
)
BRAND = EventColumn(name="brand", kind="categorical", field="brand")


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(_FIELDS, max_size=12),
    read=st.sets(st.sampled_from([PRICE, SHOP, BRAND])),
    spare=st.sets(st.sampled_from([PRICE, SHOP, BRAND])),
)
def test_a_fold_of_the_log_sees_what_the_stream_saw(
    rows: list[dict[str, Any]], read: set[EventColumn], spare: set[EventColumn]
) -> None:
    """The log has the columns that any bundle reads, and more; a stream decodes its bundle's."""
    columns = tuple(sorted(read, key=lambda one: one.name))
    kept = tuple(sorted(read | spare, key=lambda one: one.name))
    payloads = [event(**fields) for fields in rows]
    streamed = parse(columns, *payloads).refusing_wrong()
    table, refused = readable(columns, logged(kept, parse(kept, *payloads)))
    table = table.filter(pa.array(~refused))
    assert table["index"].to_pylist() == streamed.index.tolist()
    for column in columns:
        batch = table[column.logged].to_numpy()
        assert batch.dtype == column.dtype == streamed.columns[column.name].dtype
        assert batch.tobytes() == streamed.columns[column.name].tobytes()


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(_FIELDS, max_size=12))
def test_what_the_log_has_goes_over_the_wire_and_comes_back(rows: list[dict[str, Any]]) -> None:
    columns = (PRICE, SHOP, BRAND)
    parsed = parse(columns, *(event(**fields) for fields in rows))
    table = logged(columns, parsed)
    again = parse(columns, *(event(**fields) for fields in wire_columns(columns, table)))
    # As text: a NaN, which stands for a value of the wrong type, is no NaN's equal.
    for column in columns:
        assert str(logged(columns, again)[column.logged]) == str(table[column.logged])


def clicks(users: list[int], **columns: pa.Array) -> pa.Table:
    rows = len(users)
    return pa.table(
        {
            "user_id": pa.array(users, pa.int64()),
            "item_id": pa.array([2] * rows, pa.int64()),
            "category_id": pa.array([3] * rows, pa.int64()),
            "behavior": pa.array([0] * rows, pa.int8()),
            "event_time": pa.array([NOW + row for row in range(rows)], pa.timestamp("ms")),
            **columns,
        }
    )


def write(log: EventLog, name: str, table: pa.Table, columns: list[EventColumn]) -> None:
    with LogWriter(log, Part(name), time_zone="UTC", partitions=1) as writer:
        writer.add_behaviors(table)
        writer.note_columns(columns)
        writer.publish()


def test_old_files_have_no_value_of_a_new_column(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log")
    write(log, "old", clicks([1, 2]), [])
    write(log, "new", clicks([3], **{"event.price": pa.array([4], pa.int64())}), [PRICE])
    (part,) = log_parts(log.behavior_files(), with_columns(BEHAVIOR_EVENTS, (PRICE,)))
    table, _ = read_events(part, {}, Exclusion(), (PRICE,))
    assert table.schema == event_schema((PRICE,))
    batch = event_batch(table, np.array([1, 2, 3]))
    np.testing.assert_array_equal(batch.columns["price"], [np.nan, np.nan, 4.0])
    assert read_events(part, {}, Exclusion())[0].column_names == event_schema(()).names


def test_the_log_says_which_columns_an_epoch_has_and_where_they_begin(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log")
    write(log, "old", clicks([1], **{"event.shop": pa.array([7], pa.int64())}), [SHOP])
    assert pq.read_schema(log.behavior_files()[0].path).field("event.shop").type == pa.int64()
    topic = log.append_epoch(kind="topic", name="t", partitions=2, first_offsets={0: 5, 1: 0})
    with LogWriter(log, Part("more"), time_zone="UTC", topic=topic) as writer:
        places = {"partition": pa.array([0], pa.int32()), "offset": pa.array([8], pa.int64())}
        times = {"log_time": pa.array([NOW], pa.timestamp("ms"))}
        writer.add_behaviors(clicks([9], **places, **times))
        writer.publish()
    noted = log.note_columns(2, [PRICE])
    assert noted == log.epochs()[1]
    assert [one.first_offsets for one in noted.columns] == [{0: 9, 1: 0}]
    assert [one.first_offsets for one in log.epochs()[0].columns] == [{0: 0}]
    assert log.note_columns(2, [PRICE]) == noted


def test_a_column_keeps_its_kind_in_a_log_and_its_field_in_a_topic(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log")
    write(log, "old", clicks([1], **{"event.shop": pa.array([7], pa.int64())}), [SHOP])
    log.append_epoch(kind="topic", name="t", partitions=1, first_offsets={0: 0})
    number = EventColumn(name="shop", kind="number", field="shop_id")
    with pytest.raises(EventColumnError, match=r"event.shop is number, epoch 1 \(old\) has it as"):
        log.note_columns(2, [number])
    renamed = EventColumn(name="shop", kind="categorical", field="shop")
    log.note_columns(2, [renamed])  # a topic may call it otherwise than an import
    with pytest.raises(EventColumnError, match=r"shop is field shop_id, epoch 2 .t. reads it from"):
        log.note_columns(2, [SHOP])
    assert [one.column for one in log.epochs()[1].columns] == [renamed]
