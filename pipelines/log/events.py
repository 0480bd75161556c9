"""The one parser of a behaviour event as it is on the wire, for batch and stream alike.

An event is a JSON object: `{"user_id": …, "item_id": …, "category_id": …, "behavior": "click",
"event_time": milliseconds since 1970 UTC}`, optionally `"source"` and the columns that the site
declares (`event:` of `features.yaml`); or it is a list of what was shown, with `item_ids` and
`category_ids` (`uic.pipelines.log.wire`). Further fields are ignored; of a key given twice the last
counts. Whether a payload is accepted, and the reason if it is not, is a pure function of (payload,
log time, settings): no clock, and no other payload, has a say. So batch and stream reject the same.

A value of the wrong type in a column is told beside the event. The log keeps such an event, and a
fold that reads the column refuses it (`ParsedEvents.refusing_wrong`); so a column that is declared,
dropped or read by one bundle of two changes nothing of what the others fold.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Annotated, Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from uic.models.features.definition import Kind
from uic.models.features.event_columns import ColumnValues, EventColumn
from uic.models.features.raw import MISSING
from uic.models.records.positions import BEHAVIORS, SHOWN
from uic.pipelines.log.wire import (
    MAX_ID,
    MAX_SOURCE_CHARACTERS,
    MAX_TIME_MS,
    PREFIX,
    Behavior,
    Reason,
    WireRows,
    list_decoder,
    list_fault,
    may_be_list,
    wrong_columns,
)
from uic.pipelines.settings import LogSettings

# Ignored fields may nest, but the decoder recurses on the caller's stack: how deep it may go
# would depend on the caller. No payload with this many brackets is looked at.
MAX_BRACKETS: Final = 256
_DAY_MS: Final = 86_400_000

__all__ = [
    "MAX_ID",
    "MAX_SOURCE_CHARACTERS",
    "MAX_TIME_MS",
    "EventParser",
    "ParsedEvents",
    "Reason",
]

_Category = Annotated[int, msgspec.Meta(ge=MISSING + 1, le=MAX_ID)] | str | bool | None
_WIRE_TYPES: Final[Mapping[Kind, Any]] = {Kind.CATEGORICAL: _Category, Kind.NUMBER: float | None}


@dataclass(frozen=True)
class ParsedEvents:
    """The accepted events as columns, and a reason for each of the others.

    Columns are aligned with `index`, shape (accepted,); `behaviors` are indices into `EVENT_KINDS`.
    A list of shown items is a row an item, with one `index`, or none if nothing reads lists.
    Those of `columns` are by name (`uic.models.features.event_columns`); `wrong` says of a column
    which of its values were of the wrong type, and has no entry where none was.
    """

    index: NDArray[np.int64]  # positions in `payloads` of the accepted events
    user_ids: NDArray[np.int64]
    item_ids: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    behaviors: NDArray[np.int8]
    event_times_ms: NDArray[np.int64]
    sources: list[str | None]
    reasons: list[str | None]  # one per payload: None = accepted, else a `Reason`'s value
    columns: Mapping[str, ColumnValues] = field(default_factory=dict)
    wrong: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)

    def refusing_wrong(self) -> "ParsedEvents":
        """The events without a value of the wrong type; the others get their reason."""
        if not self.wrong:
            return self
        refused = np.logical_or.reduce(list(self.wrong.values()))
        reasons = list(self.reasons)
        for position in self.index[refused].tolist():
            reasons[position] = Reason.WRONG_TYPE.value
        return replace(self.select(~refused), reasons=reasons, wrong={})

    def select(self, chosen: NDArray[np.bool_]) -> "ParsedEvents":
        """Some of the accepted events, (accepted,) bool; the reasons stay."""
        kept = zip(self.sources, chosen.tolist(), strict=True)
        return ParsedEvents(
            index=self.index[chosen],
            user_ids=self.user_ids[chosen],
            item_ids=self.item_ids[chosen],
            category_ids=self.category_ids[chosen],
            behaviors=self.behaviors[chosen],
            event_times_ms=self.event_times_ms[chosen],
            sources=[source for source, keep in kept if keep],
            reasons=self.reasons,
            columns={name: values[chosen] for name, values in self.columns.items()},
            wrong={name: which[chosen] for name, which in self.wrong.items()},
        )


class EventParser:
    """Decodes and validates payloads.

    Args:
        settings: limits.
        columns: what to read of an event beside what all events have.
        lists: whether what was shown is read; then each item of a list is a row. A list is
            accepted or refused all the same.
    """

    def __init__(
        self, settings: LogSettings, columns: Sequence[EventColumn] = (), *, lists: bool = False
    ) -> None:
        self.columns = tuple(columns)
        self.lists = lists
        self._decode = _decoder(self.columns)
        self._skew_ms = settings.max_clock_skew_seconds * 1000
        self._age_ms = settings.max_event_age_days * _DAY_MS
        self._max_bytes = settings.max_payload_bytes

    def parse(
        self, payloads: Sequence[bytes | None], log_times_ms: NDArray[np.int64]
    ) -> ParsedEvents:
        """Decode `payloads`; never raises on what is in them.

        Args:
            payloads: one event each; None (a tombstone of Kafka) is malformed.
            log_times_ms: (payloads,), when the log got each; milliseconds since 1970 UTC.
        """
        reasons: list[str | None] = [None] * len(payloads)
        events: list[Any] = []
        decoded: list[int] = []
        wrong: dict[int, frozenset[str]] = {}
        decode, max_bytes = self._decode, self._max_bytes
        for position, payload in enumerate(payloads):
            try:
                if len(payload) > MAX_BRACKETS:  # type: ignore[arg-type] # None: TypeError below
                    _refuse_large(payload, max_bytes)
                event = _decoded(payload, decode)
            except _FAULTS as error:
                found = self._without_wrong(payload, error)
                if found is None:
                    reasons[position] = _reason(payload, error)
                    continue
                event, wrong[len(events)] = found
            events.append(event)
            decoded.append(position)
        return self._timely(events, np.array(decoded, np.int64), wrong, reasons, log_times_ms)

    def _without_wrong(
        self, payload: bytes | None, error: Exception
    ) -> tuple[Any, frozenset[str]] | None:
        """A list; or the event of a payload that only its columns keep from being one.

        Returns:
            With the columns whose values are of the wrong type.
        """
        if isinstance(error, _TooLargeError):
            return None
        shown = self._shown_list(payload) if may_be_list(payload) else None
        if shown is not None or not self.columns:
            return shown
        try:
            _decoded(payload, _decoder(()))
        except _FAULTS:
            return None
        good = []
        for column in self.columns:
            try:
                _decoded(payload, _decoder((column,)))
            except _FAULTS:
                continue
            good.append(column)
        names = frozenset(column.name for column in self.columns if column not in good)
        return _decoded(payload, _decoder(tuple(good))), names

    def _shown_list(self, payload: bytes | None) -> tuple[Any, frozenset[str]] | None:
        try:
            shown = _decoded(payload, list_decoder(self.columns))
        except _FAULTS:
            return None
        if len(shown.item_ids) != len(shown.category_ids):
            return None
        wrong = wrong_columns(shown, self.columns)
        for name in wrong:
            setattr(shown, f"{PREFIX}{name}", None)
        return shown, wrong

    def _timely(
        self,
        events: list[Any],
        index: NDArray[np.int64],
        wrong: Mapping[int, frozenset[str]],
        reasons: list[str | None],
        log_times_ms: NDArray[np.int64],
    ) -> ParsedEvents:
        """Turn the events into columns, and drop what is too early or too late."""
        times = np.array([event.event_time for event in events], np.int64)
        logged = np.asarray(log_times_ms, np.int64)[index]
        future = times > logged + self._skew_ms
        old = times < logged - self._age_ms
        for late, reason in ((future, Reason.EVENT_TIME_IN_FUTURE), (old, Reason.EVENT_TOO_OLD)):
            for position in index[late].tolist():
                reasons[position] = reason.value
        rows = WireRows(events, lists=self.lists)
        parsed = ParsedEvents(
            index=index[rows.of_event],
            user_ids=rows.each("user_id"),
            item_ids=rows.ids("item_id", "item_ids"),
            category_ids=rows.ids("category_id", "category_ids"),
            behaviors=rows.behaviors(),
            event_times_ms=times[rows.of_event],
            sources=[events[at].source for at in rows.of_event.tolist()],
            reasons=reasons,
            columns={column.name: rows.values(column) for column in self.columns} | rows.of_lists(),
            wrong={
                name: which[rows.of_event]
                for name, which in _wrong_values(wrong, len(events)).items()
            },
        )
        timely = ~(future | old)[rows.of_event]
        return parsed if timely.all() else parsed.select(timely)


@lru_cache(maxsize=256)
def _decoder(columns: tuple[EventColumn, ...]) -> Callable[[Any], Any]:
    """Of an event with these columns; each is an attribute of its name behind `PREFIX`."""
    fields = [
        (
            f"{PREFIX}{column.name}",
            _WIRE_TYPES[column.kind],
            msgspec.field(name=column.field, default=None),
        )
        for column in columns
    ]
    wire = msgspec.defstruct("_Wire", fields, bases=(Behavior,), gc=False) if columns else Behavior
    return msgspec.json.Decoder(wire).decode


def _decoded(payload: Any, decode: Callable[[Any], Any]) -> Any:
    event = decode(payload)
    # The decoder skips ignored fields without looking at their encoding.
    if not payload.isascii():
        payload.decode()
    return event


def _wrong_values(wrong: Mapping[int, frozenset[str]], events: int) -> dict[str, NDArray[np.bool_]]:
    masks: dict[str, NDArray[np.bool_]] = {}
    for at, names in wrong.items():
        for name in names:
            masks.setdefault(name, np.zeros(events, np.bool_))[at] = True
    return masks


_FAULTS: Final = (msgspec.MsgspecError, ValueError, TypeError, RecursionError)
_ID_FIELDS: Final = ("user_id", "item_id", "category_id")


class _TooLargeError(ValueError):
    """A payload is not looked at."""


def _refuse_large(payload: bytes | None, max_bytes: int) -> None:
    if payload is not None and (
        len(payload) > max_bytes or payload.count(b"[") + payload.count(b"{") > MAX_BRACKETS
    ):
        raise _TooLargeError


def _reason(payload: bytes | None, error: Exception) -> str:
    """Why the decoder refused: only rejected payloads pay for a second look."""
    if isinstance(error, _TooLargeError):
        return Reason.TOO_LARGE.value
    try:
        if payload is None:
            return Reason.MALFORMED.value
        payload.decode()
        document = msgspec.json.decode(payload)
    except (msgspec.MsgspecError, ValueError, TypeError, AttributeError, RecursionError):
        return Reason.MALFORMED.value
    return _first_fault(document).value


def _first_fault(document: Any) -> Reason:  # noqa: PLR0911 - one return a rule, in their order
    if not isinstance(document, dict):
        return Reason.MALFORMED
    if document.get("behavior") == SHOWN:
        return list_fault(document)
    if any(document.get(field) is None for field in (*_ID_FIELDS, "behavior", "event_time")):
        return Reason.MISSING_FIELD
    numbers = [document[field] for field in (*_ID_FIELDS, "event_time")]
    source = document.get("source")
    # A number beyond 64 bits decodes as a float if it has a point or an exponent; both are wrong.
    if any(type(number) is not int for number in numbers):
        return Reason.WRONG_TYPE
    if not isinstance(document["behavior"], str) or not isinstance(source, str | None):
        return Reason.WRONG_TYPE
    if document["behavior"] not in BEHAVIORS:
        return Reason.UNKNOWN_BEHAVIOR
    if any(not 0 <= document[field] <= MAX_ID for field in _ID_FIELDS):
        return Reason.ID_OUT_OF_RANGE
    if document["event_time"] < 0:
        return Reason.EVENT_TOO_OLD
    if document["event_time"] > MAX_TIME_MS:
        return Reason.EVENT_TIME_IN_FUTURE
    return Reason.TOO_LARGE  # only a source that is too long is left
