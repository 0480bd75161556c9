"""What an event is on the wire: one behaviour, or one list of items that were shown.

    {"user_id": 1, "item_id": 2, "category_id": 3, "behavior": "click", "event_time": 1772323200000}
    {"user_id": 1, "behavior": "shown", "request_id": "r-81", "event_time": 1772323200000,
     "item_ids": [2, 7], "category_ids": [3, 3]}

Both may have `source` and the columns that the site declares; of a list, a column's value is one
for all items or a list of theirs.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from itertools import chain, repeat
from typing import Annotated, Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from uic.models.features.definition import Kind
from uic.models.features.event_columns import ColumnValues, EventColumn
from uic.models.features.raw import MISSING, category_of
from uic.models.records.positions import PLACE, REQUEST, SHOWN, SHOWN_CODE

MAX_ID: Final = 2**63 - 1
# The end of year 9999: what Arrow, pandas and Python's datetime can all hold.
MAX_TIME_MS: Final = 253_402_300_799_999
MAX_SOURCE_CHARACTERS: Final = 256
MOST_SHOWN: Final = 1000
PREFIX: Final = "column_"

Id = Annotated[int, msgspec.Meta(ge=0, le=MAX_ID)]
Time = Annotated[int, msgspec.Meta(ge=0, le=MAX_TIME_MS)]
Source = Annotated[str, msgspec.Meta(max_length=MAX_SOURCE_CHARACTERS)]
_Ids = Annotated[list[Id], msgspec.Meta(min_length=1, max_length=MOST_SHOWN)]
_Request = Annotated[str, msgspec.Meta(max_length=MAX_SOURCE_CHARACTERS)] | Id


class Reason(StrEnum):
    """Why a payload is not an event of the log."""

    MALFORMED = "malformed"  # not one JSON object in UTF-8
    TOO_LARGE = "too_large"  # more bytes than `max_payload_bytes`, or more than MAX_BRACKETS
    MISSING_FIELD = "missing_field"  # absent or null
    WRONG_TYPE = "wrong_type"  # an id that is a bool, a float, a string, …
    UNKNOWN_BEHAVIOR = "unknown_behavior"
    ID_OUT_OF_RANGE = "id_out_of_range"  # negative, or beyond int64
    SHOWN_LISTS = "shown_lists"  # no item, more than MOST_SHOWN, or not a category for each
    EVENT_TIME_IN_FUTURE = "event_time_in_future"  # after log time and the allowed skew
    EVENT_TOO_OLD = "event_too_old"  # before log time by more than `max_event_age_days`


class Behavior(msgspec.Struct, gc=False):
    """One behaviour."""

    user_id: Id
    item_id: Id
    category_id: Id
    behavior: Literal["click", "cart", "favourite", "buy"]
    event_time: Time
    source: Source | None = None


class ShownList(msgspec.Struct):
    """The items of one request, in the order in which they were shown."""

    user_id: Id
    behavior: Literal["shown"]
    request_id: _Request
    event_time: Time
    item_ids: _Ids
    category_ids: _Ids
    source: Source | None = None


_CODES: Final[Mapping[str, int]] = {"click": 0, "cart": 1, "favourite": 2, "buy": 3}
_SHOWN_NAME: Final = f'"{SHOWN}"'.encode()
# JSON may write any letter of the name so.
_ESCAPE: Final = b"\\u"
_LARGEST: Final = int(sys.float_info.max)
_FIELDS: Final = ("user_id", "request_id", "event_time", "item_ids", "category_ids")


@lru_cache(maxsize=256)
def list_decoder(columns: tuple[EventColumn, ...]) -> Callable[[Any], ShownList]:
    """Of a list with these columns; each is an attribute of its name behind `PREFIX`."""
    fields = [
        (f"{PREFIX}{column.name}", Any, msgspec.field(name=column.field, default=None))
        for column in columns
    ]
    kind = msgspec.defstruct("_ShownList", fields, bases=(ShownList,)) if columns else ShownList
    decode: Callable[[Any], Any] = msgspec.json.Decoder(kind).decode
    return decode


def may_be_list(payload: bytes | None) -> bool:
    """Whether it is worth to look for a list in a payload that is no behaviour."""
    return payload is not None and (_SHOWN_NAME in payload or _ESCAPE in payload)


def list_fault(document: Mapping[str, Any]) -> Reason:  # noqa: PLR0911 - one return a rule
    """Why a JSON object that says that it is a list is none."""
    given: list[Any] = [document.get(name) for name in _FIELDS]
    if any(value is None for value in given):
        return Reason.MISSING_FIELD
    user, request, time, items, categories = given
    if not (isinstance(items, list) and isinstance(categories, list)):
        return Reason.WRONG_TYPE
    numbers = [user, time, *items, *categories]
    named = isinstance(request, str) or type(request) is int
    if any(type(number) is not int for number in numbers) or not named:
        return Reason.WRONG_TYPE
    if not isinstance(document.get("source"), str | None):
        return Reason.WRONG_TYPE
    ids = [user, *items, *categories, *([] if isinstance(request, str) else [request])]
    if any(not 0 <= number <= MAX_ID for number in ids):
        return Reason.ID_OUT_OF_RANGE
    if not 0 < len(items) <= MOST_SHOWN or len(items) != len(categories):
        return Reason.SHOWN_LISTS
    if time < 0:
        return Reason.EVENT_TOO_OLD
    return Reason.EVENT_TIME_IN_FUTURE if time > MAX_TIME_MS else Reason.TOO_LARGE


def wrong_columns(shown: ShownList, columns: Iterable[EventColumn]) -> frozenset[str]:
    """The columns of which a list has a value of the wrong type, or not one for each item."""
    return frozenset(
        column.name
        for column in columns
        if not _fits(getattr(shown, f"{PREFIX}{column.name}"), column.kind, len(shown.item_ids))
    )


def _fits(given: Any, kind: Kind, items: int) -> bool:
    if isinstance(given, list):
        return len(given) == items and all(_is_value(value, kind) for value in given)
    return _is_value(given, kind)


def _is_value(value: Any, kind: Kind) -> bool:
    if value is None:
        return True
    if kind is Kind.NUMBER:
        if isinstance(value, bool):
            return False
        # A whole number may have more digits than a float can hold.
        return isinstance(value, float) or (isinstance(value, int) and abs(value) <= _LARGEST)
    if isinstance(value, int) and not isinstance(value, bool):
        return MISSING < value <= MAX_ID
    return isinstance(value, str | bool)


class WireRows:
    """Events as rows: one a behaviour, one an item of a list.

    Args:
        events: decoded.
        lists: whether the items of lists are wanted; else lists have no rows.
    """

    def __init__(self, events: Sequence[Any], *, lists: bool) -> None:
        self._events = events
        self.any_list = any(isinstance(event, ShownList) for event in events)
        self._lists = lists
        if self.any_list:
            sizes = [
                1 if not isinstance(event, ShownList) else lists * len(event.item_ids)
                for event in events
            ]
            self.of_event = np.repeat(np.arange(len(events)), sizes)
            self._taken = [event for event, size in zip(events, sizes, strict=True) if size]
        else:
            self.of_event = np.arange(len(events))
            self._taken = list(events)

    def each(self, name: str) -> NDArray[np.int64]:
        """A field that lists have once: (rows,)."""
        return np.array([getattr(event, name) for event in self._events], np.int64)[self.of_event]

    def ids(self, one: str, many: str) -> NDArray[np.int64]:
        """Items or categories: (rows,)."""
        if not self.any_list:
            return np.array([getattr(event, one) for event in self._taken], np.int64)
        found = (
            getattr(event, many) if isinstance(event, ShownList) else (getattr(event, one),)
            for event in self._taken
        )
        return np.fromiter(chain.from_iterable(found), np.int64, len(self.of_event))

    def behaviors(self) -> NDArray[np.int8]:
        """Indices into `EVENT_KINDS`: (rows,)."""
        codes = [_CODES.get(event.behavior, SHOWN_CODE) for event in self._events]
        return np.array(codes, np.int8)[self.of_event]

    def values(self, column: EventColumn) -> ColumnValues:
        """A column's, `missing` where there is none: (rows,)."""
        given = list(chain.from_iterable(self._given(f"{PREFIX}{column.name}")))
        if column.kind is Kind.NUMBER:
            return np.array(given, np.float64)  # None becomes NaN
        known = [MISSING if value is None else category_of(value) for value in given]
        return np.array(known, np.int64)

    def _given(self, name: str) -> Iterator[Iterable[Any]]:
        # An event with a value of the wrong type was decoded without it.
        for event in self._taken:
            value = getattr(event, name, None)
            if isinstance(event, ShownList) and not isinstance(value, list):
                yield repeat(value, len(event.item_ids))
            else:
                yield value if isinstance(value, list) else (value,)

    def of_lists(self) -> dict[str, NDArray[np.int64]]:
        """The columns `PLACE` and `REQUEST`: (rows,); none if lists have no rows."""
        if not self._lists:
            return {}
        places = np.full(len(self.of_event), MISSING, np.int64)
        requests = places.copy()
        at = 0
        for event in self._taken if self.any_list else ():
            if isinstance(event, ShownList):
                end = at + len(event.item_ids)
                places[at:end] = np.arange(end - at)
                requests[at:end] = category_of(event.request_id)
                at = end
            else:
                at += 1
        return {PLACE: places, REQUEST: requests}
