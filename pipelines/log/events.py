"""The one parser of a behaviour event as it is on the wire, for batch and stream alike.

An event is a JSON object: `{"user_id": …, "item_id": …, "category_id": …, "behavior": "click",
"event_time": milliseconds since 1970 UTC}`, optionally `"source"`. Further fields are ignored;
of a key given twice the last counts. Whether a payload is accepted, and the reason if it is not,
is a pure function of (payload, log time, settings): no clock, and no other payload, has a say. So
batch and stream reject the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from uic.pipelines.log.schemas import BEHAVIORS
from uic.pipelines.settings import LogSettings

MAX_ID: Final = 2**63 - 1
# The end of year 9999: what Arrow, pandas and Python's datetime can all hold.
MAX_TIME_MS: Final = 253_402_300_799_999
MAX_SOURCE_CHARACTERS: Final = 256
# Ignored fields may nest, but the decoder recurses on the caller's stack: how deep it may go
# would depend on the caller. No payload with this many brackets is looked at.
MAX_BRACKETS: Final = 256
_DAY_MS: Final = 86_400_000

_Id = Annotated[int, msgspec.Meta(ge=0, le=MAX_ID)]
_Time = Annotated[int, msgspec.Meta(ge=0, le=MAX_TIME_MS)]
_Source = Annotated[str, msgspec.Meta(max_length=MAX_SOURCE_CHARACTERS)]


class Reason(StrEnum):
    """Why a payload is not an event of the log."""

    MALFORMED = "malformed"  # not one JSON object in UTF-8
    TOO_LARGE = "too_large"  # more bytes than `max_payload_bytes`, or more than MAX_BRACKETS
    MISSING_FIELD = "missing_field"  # absent or null
    WRONG_TYPE = "wrong_type"  # an id that is a bool, a float, a string, …
    UNKNOWN_BEHAVIOR = "unknown_behavior"
    ID_OUT_OF_RANGE = "id_out_of_range"  # negative, or beyond int64
    EVENT_TIME_IN_FUTURE = "event_time_in_future"  # after log time and the allowed skew
    EVENT_TOO_OLD = "event_too_old"  # before log time by more than `max_event_age_days`


class _Wire(msgspec.Struct, gc=False):
    user_id: _Id
    item_id: _Id
    category_id: _Id
    behavior: Literal["click", "cart", "favourite", "buy"]
    event_time: _Time
    source: _Source | None = None


@dataclass(frozen=True)
class ParsedEvents:
    """The accepted events as columns, and a reason for each of the others.

    Columns are aligned with `index`, shape (accepted,); `behaviors` are indices into `BEHAVIORS`.
    """

    index: NDArray[np.int64]  # positions in `payloads` of the accepted events
    user_ids: NDArray[np.int64]
    item_ids: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    behaviors: NDArray[np.int8]
    event_times_ms: NDArray[np.int64]
    sources: list[str | None]
    reasons: list[str | None]  # one per payload: None = accepted, else a `Reason`'s value


class EventParser:
    """Decodes and validates payloads."""

    def __init__(self, settings: LogSettings) -> None:
        self._decode = msgspec.json.Decoder(_Wire).decode
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
        events: list[_Wire] = []
        decoded: list[int] = []
        decode, max_bytes = self._decode, self._max_bytes
        for position, payload in enumerate(payloads):
            try:
                if len(payload) > MAX_BRACKETS:  # type: ignore[arg-type] # None: TypeError below
                    _refuse_large(payload, max_bytes)
                event = decode(payload)  # type: ignore[arg-type]
                # The decoder skips ignored fields without looking at their encoding.
                if not payload.isascii():  # type: ignore[union-attr]
                    payload.decode()  # type: ignore[union-attr]
            except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
                reasons[position] = _reason(payload, error)
                continue
            events.append(event)
            decoded.append(position)
        return self._timely(events, np.array(decoded, np.int64), reasons, log_times_ms)

    def _timely(
        self,
        events: list[_Wire],
        index: NDArray[np.int64],
        reasons: list[str | None],
        log_times_ms: NDArray[np.int64],
    ) -> ParsedEvents:
        """Drop what is too early or too late, and turn the rest into columns."""
        times = np.array([event.event_time for event in events], np.int64)
        logged = np.asarray(log_times_ms, np.int64)[index]
        future = times > logged + self._skew_ms
        old = times < logged - self._age_ms
        for late, reason in ((future, Reason.EVENT_TIME_IN_FUTURE), (old, Reason.EVENT_TOO_OLD)):
            for position in index[late].tolist():
                reasons[position] = reason.value
        timely = ~(future | old)
        if not timely.all():
            events = [event for event, keep in zip(events, timely.tolist(), strict=True) if keep]
        return ParsedEvents(
            index=index[timely],
            user_ids=np.array([event.user_id for event in events], np.int64),
            item_ids=np.array([event.item_id for event in events], np.int64),
            category_ids=np.array([event.category_id for event in events], np.int64),
            behaviors=np.array([_CODES[event.behavior] for event in events], np.int8),
            event_times_ms=times[timely],
            sources=[event.source for event in events],
            reasons=reasons,
        )


_CODES: Final = {behavior: code for code, behavior in enumerate(BEHAVIORS)}
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
    if any(document.get(field) is None for field in (*_ID_FIELDS, "behavior", "event_time")):
        return Reason.MISSING_FIELD
    numbers = [document[field] for field in (*_ID_FIELDS, "event_time")]
    source = document.get("source")
    # A number beyond 64 bits decodes as a float if it has a point or an exponent; both are wrong.
    if any(type(number) is not int for number in numbers):
        return Reason.WRONG_TYPE
    if not isinstance(document["behavior"], str) or not isinstance(source, str | None):
        return Reason.WRONG_TYPE
    if document["behavior"] not in _CODES:
        return Reason.UNKNOWN_BEHAVIOR
    if any(not 0 <= document[field] <= MAX_ID for field in _ID_FIELDS):
        return Reason.ID_OUT_OF_RANGE
    if document["event_time"] < 0:
        return Reason.EVENT_TOO_OLD
    if document["event_time"] > MAX_TIME_MS:
        return Reason.EVENT_TIME_IN_FUTURE
    return Reason.TOO_LARGE  # only a source that is too long is left
