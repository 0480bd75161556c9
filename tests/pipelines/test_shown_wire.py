"""Lists of what was shown on the wire: what is one, why another is none, and its rows."""

import json
from pathlib import Path

import numpy as np
import pytest

from uic.models.features.definition import Kind
from uic.models.features.event_columns import EventColumn
from uic.models.features.raw import MISSING, category_of
from uic.models.records.positions import PLACE, REQUEST, SHOWN_CODE
from uic.pipelines.log.events import EventParser
from uic.pipelines.settings import LogSettings

NOW = 1_772_323_200_000
PRICE = EventColumn(name="price", kind=Kind.NUMBER, field="price")
SHOP = EventColumn(name="shop", kind=Kind.CATEGORICAL, field="shop")


def shown(**other) -> bytes:
    event = {
        "user_id": 1,
        "behavior": "shown",
        "request_id": "r",
        "event_time": NOW,
        "item_ids": [5, 6, 7],
        "category_ids": [1, 2, 3],
    }
    return json.dumps({key: v for key, v in (event | other).items() if v != "absent"}).encode()


def click(**other) -> bytes:
    event = {"user_id": 1, "item_id": 9, "category_id": 4, "behavior": "click", "event_time": NOW}
    return json.dumps(event | other).encode()


def parse(payloads, columns=(), *, lists=True):
    parser = EventParser(LogSettings(), columns, lists=lists)
    return parser.parse(payloads, np.full(len(payloads), NOW))


def test_a_list_is_a_row_an_item_and_one_message() -> None:
    parsed = parse([click(), shown(), b"x", click(item_id=8)])
    assert parsed.reasons == [None, None, "malformed", None]
    assert parsed.index.tolist() == [0, 1, 1, 1, 3]
    assert parsed.item_ids.tolist() == [9, 5, 6, 7, 8]
    assert parsed.category_ids.tolist() == [4, 1, 2, 3, 4]
    assert parsed.behaviors.tolist() == [0, SHOWN_CODE, SHOWN_CODE, SHOWN_CODE, 0]
    assert parsed.columns[PLACE].tolist() == [MISSING, 0, 1, 2, MISSING]
    requests = parsed.columns[REQUEST].tolist()
    assert requests == [MISSING, *[category_of("r")] * 3, MISSING]


def test_without_a_reader_a_list_has_no_rows_and_is_judged_the_same() -> None:
    payloads = [shown(), click(), shown(item_ids=[1]), shown(event_time=NOW + 10**9)]
    read, unread = parse(payloads), parse(payloads, lists=False)
    assert unread.index.tolist() == [1]
    assert set(unread.columns) == set()
    assert read.reasons == unread.reasons == [None, None, "shown_lists", "event_time_in_future"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"request_id": "absent"}, "missing_field"),
        ({"request_id": None}, "missing_field"),
        ({"item_ids": "absent"}, "missing_field"),
        ({"request_id": 1.5}, "wrong_type"),
        ({"request_id": True}, "wrong_type"),
        ({"item_ids": 5}, "wrong_type"),
        ({"item_ids": [5, "6", 7]}, "wrong_type"),
        ({"item_ids": [5, None, 7]}, "wrong_type"),
        ({"item_ids": [5, 6.0, 7]}, "wrong_type"),
        ({"user_id": "1"}, "wrong_type"),
        ({"source": 1}, "wrong_type"),
        ({"item_ids": [5, -6, 7]}, "id_out_of_range"),
        ({"item_ids": [5, 2**63, 7]}, "id_out_of_range"),
        ({"request_id": -1}, "id_out_of_range"),
        ({"item_ids": [5, 6]}, "shown_lists"),
        ({"item_ids": [], "category_ids": []}, "shown_lists"),
        ({"item_ids": [1] * 1001, "category_ids": [1] * 1001}, "shown_lists"),
        ({"event_time": -1}, "event_too_old"),
        ({"event_time": 0}, "event_too_old"),
        ({"event_time": 2**62}, "event_time_in_future"),
        ({"source": "x" * 300}, "too_large"),
        ({"request_id": "x" * 300}, "too_large"),
    ],
)
def test_a_list_that_is_none_has_a_reason(fields, reason) -> None:
    assert parse([shown(**fields)]).reasons == [reason]


def test_a_name_that_is_escaped_is_the_name() -> None:
    parsed = parse([shown().replace(b'"shown"', b'"sh\\u006fwn"'), shown(request_id="\u00e9")])
    assert (parsed.reasons, len(parsed.index)) == ([None, None], 6)


def test_a_column_of_a_list_is_one_for_all_or_one_an_item() -> None:
    payloads = [
        shown(price=2, shop=["a", None, 3]),
        shown(price=[1, None, 2.5]),
        click(price=7),
        shown(price=[1, 2]),  # not one an item
        shown(shop=[1, [], 2]),
        shown(price="2"),
        shown(price=10**400),  # which no float can hold
        shown(price=[1, 10**400, 2]),
    ]
    parsed = parse(payloads, (PRICE, SHOP))
    assert parsed.reasons == [None] * 8
    np.testing.assert_array_equal(parsed.columns["price"][:7], [2, 2, 2, 1, np.nan, 2.5, 7])
    assert parsed.columns["shop"][:4].tolist() == [category_of("a"), MISSING, 3, MISSING]
    refused = parsed.refusing_wrong()
    assert refused.reasons == [None, None, None, *["wrong_type"] * 5]
    assert len(refused.index) == 7


def test_the_documented_list_is_one() -> None:
    text = (Path(__file__).parents[2] / "docs/concepts.md").read_text()
    [block] = [part for part in text.split("```") if part.startswith('json\n{"user_id": 7, "beh')]
    parser = EventParser(LogSettings(), lists=True)
    parsed = parser.parse([block.removeprefix("json").encode()], np.array([1_735_689_600_000]))
    assert (parsed.reasons, parsed.item_ids.tolist()) == ([None], [1042, 88])
