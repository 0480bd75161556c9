"""The parser: what is an event, and the reason for everything that is not."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from uic.pipelines.log.events import MAX_BRACKETS, MAX_ID, EventParser, ParsedEvents, Reason
from uic.pipelines.settings import LogSettings

NOW = 1_700_000_000_000
DAY_MS = 86_400_000
EVENT = {"user_id": 1, "item_id": 2, "category_id": 3, "behavior": "click", "event_time": NOW}


def parse(*payloads: bytes | None, log_time: int = NOW) -> ParsedEvents:
    return EventParser(LogSettings()).parse(payloads, np.full(len(payloads), log_time))


def event(**changes: Any) -> bytes:
    fields = {**EVENT, **changes}
    return json.dumps({key: value for key, value in fields.items() if value is not ...}).encode()


def test_good_events_become_columns() -> None:
    parsed = parse(event(), b"{}", event(user_id=MAX_ID, behavior="buy", source="app", more=[1]))
    assert parsed.index.tolist() == [0, 2]
    assert parsed.user_ids.tolist() == [1, MAX_ID]
    assert parsed.item_ids.tolist() == [2, 2]
    assert parsed.category_ids.tolist() == [3, 3]
    assert parsed.behaviors.tolist() == [0, 3]
    assert parsed.behaviors.dtype == np.int8
    assert parsed.event_times_ms.tolist() == [NOW, NOW]
    assert parsed.sources == [None, "app"]
    assert parsed.reasons == [None, "missing_field", None]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (None, Reason.MALFORMED),
        (b"", Reason.MALFORMED),
        (b"[]", Reason.MALFORMED),
        (b"1", Reason.MALFORMED),
        (b"{", Reason.MALFORMED),
        (event() + event(), Reason.MALFORMED),
        (b"\xef\xbb\xbf" + event(), Reason.MALFORMED),
        (event(user_id=0).replace(b": 0", b": NaN"), Reason.MALFORMED),
        (event(user_id=0).replace(b": 0", b": 01"), Reason.MALFORMED),
        (event(source="?").replace(b"?", b"\xff"), Reason.MALFORMED),
        (event(more="?").replace(b"?", b"\xff"), Reason.MALFORMED),
        (event(source="?").replace(b"?", b"\\ud800"), Reason.MALFORMED),
        (event(more="x" * 65_536), Reason.TOO_LARGE),
        (event(source="x" * 257), Reason.TOO_LARGE),
        (event(more=0)[:-2] + b"[" * 5_000 + b"]" * 5_000 + b"}", Reason.TOO_LARGE),
        (event(user_id=...), Reason.MISSING_FIELD),
        (event(behavior=None), Reason.MISSING_FIELD),
        (event(user_id=True), Reason.WRONG_TYPE),
        (event(user_id=1.0), Reason.WRONG_TYPE),
        (event(user_id="1"), Reason.WRONG_TYPE),
        (event(user_id={}), Reason.WRONG_TYPE),
        (event(user_id=0).replace(b": 0", b": 1e9"), Reason.WRONG_TYPE),
        (event(event_time=NOW + 0.5), Reason.WRONG_TYPE),
        (event(behavior=1), Reason.WRONG_TYPE),
        (event(source=1), Reason.WRONG_TYPE),
        (event(behavior="Click"), Reason.UNKNOWN_BEHAVIOR),
        (event(item_id=-1), Reason.ID_OUT_OF_RANGE),
        (event(item_id=MAX_ID + 1), Reason.ID_OUT_OF_RANGE),
        (event(category_id=10**40), Reason.ID_OUT_OF_RANGE),
        (event(event_time=NOW + 300_001), Reason.EVENT_TIME_IN_FUTURE),
        (event(event_time=10**15), Reason.EVENT_TIME_IN_FUTURE),
        (event(event_time=10**30), Reason.EVENT_TIME_IN_FUTURE),
        (event(event_time=NOW - 7 * DAY_MS - 1), Reason.EVENT_TOO_OLD),
        (event(event_time=-1), Reason.EVENT_TOO_OLD),
    ],
)
def test_every_rejection_has_its_reason(payload: bytes | None, reason: Reason) -> None:
    assert parse(payload).reasons == [reason.value]


def test_the_limits_themselves_are_allowed() -> None:
    nested = b"[" * (MAX_BRACKETS - 1) + b"]" * (MAX_BRACKETS - 1)
    parsed = parse(
        event(event_time=NOW + 300_000),
        event(event_time=NOW - 7 * DAY_MS),
        event(user_id=0, source="x" * 256),
        event(more=0)[:-2] + nested + b"}",
    )
    assert parsed.reasons == [None] * 4


def test_a_key_given_twice_counts_with_its_last_value() -> None:
    assert parse(event()[:-1] + b', "user_id": 9}').user_ids.tolist() == [9]


def test_no_payloads_give_no_events() -> None:
    assert parse().user_ids.shape == (0,)


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
near_events = st.fixed_dictionaries(
    {},
    optional={
        "user_id": st.integers(-2, 2**64) | junk,
        "item_id": st.integers(0, 9) | junk,
        "category_id": st.integers(0, 9) | junk,
        "behavior": st.sampled_from(["click", "buy", "look"]) | junk,
        "event_time": st.integers(NOW - 10 * DAY_MS, NOW + DAY_MS) | junk,
        "source": st.text() | junk,
        "more": junk,
    },
).map(lambda fields: json.dumps(fields).encode())
good_events = st.builds(event, user_id=st.integers(0, MAX_ID), item_id=st.integers(0, 5))


# The first draw of text builds Hypothesis's table of Unicode, which takes seconds.
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.none() | st.binary() | near_events | good_events, max_size=12))
def test_every_payload_is_accepted_or_has_a_reason(payloads: list[bytes | None]) -> None:
    parsed = parse(*payloads)
    accepted = [at for at, reason in enumerate(parsed.reasons) if reason is None]
    assert parsed.index.tolist() == accepted
    assert {reason for reason in parsed.reasons if reason} <= {reason.value for reason in Reason}
    for at, payload in enumerate(payloads):  # no other payload has a say
        assert parse(payload).reasons == [parsed.reasons[at]]
    for place, at in enumerate(accepted):
        document = json.loads(payloads[at] or b"")
        assert parsed.user_ids[place] == document["user_id"]
        assert parsed.event_times_ms[place] == document["event_time"]
        assert parsed.sources[place] == document.get("source")
        (parsed.sources[place] or "").encode()  # Arrow takes nothing else
