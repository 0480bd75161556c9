"""A column of times as milliseconds since 1970 UTC: numbers, timestamps, dates and texts.

Three kinds of values differ by what they leave open. An instant (a number, a time with a zone)
leaves nothing open. A local time without a zone is of the zone that the caller names. A day
without a time is the day of the log that has its date: it begins at midnight of the workspace's
zone. Fractions finer than a millisecond are cut off towards the past, in whatever column they
stand, so that one instant is on one day.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from uic.models.errors import BadInputError
from uic.pipelines.days import CalendarDays
from uic.pipelines.importers.cells import words_of
from uic.pipelines.importers.checked import whole_numbers
from uic.pipelines.importers.plausible import (
    UNIT_OF_WORD,
    UNITS_A_SECOND,
    TimeUnit,
    milliseconds,
)
from uic.pipelines.importers.source import FAULTS, TIME_OUT_OF_RANGE
from uic.pipelines.importers.text import integers

_WRONG_TYPE: Final = FAULTS.index("wrong_type")
_MISSING: Final = FAULTS.index("missing_field")
_OUT_OF_RANGE: Final = FAULTS.index(TIME_OUT_OF_RANGE)
_LAST_DAY: Final = 2_932_896  # 9999-12-31
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_TEXT: Final = r"^[0-9]{4}-?[0-9]{2}-?[0-9]{2}$"
_ZONED_TEXT: Final = r"[T ].*(?:[Zz]|[+-][0-9]{2}:?(?:[0-9]{2})?)$"
# A format with one of these says more than a day.
_CLOCK: Final = re.compile(r"%[HIMSTRXcsp]")
_UNITS_A_SECOND: Final = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def unit_or_format(text: str) -> TimeUnit | str:
    """What `--time-unit` says: a unit, or a format of `strptime`.

    Raises:
        BadInputError: it is neither.
    """
    if "%" in text:
        return text
    if text not in UNIT_OF_WORD:
        msg = (
            f"--time-unit: found {text!r}, expected one of {', '.join(UNIT_OF_WORD)}, or a format "
            "like %m/%d/%Y %H:%M"
        )
        raise BadInputError(msg)
    return UNIT_OF_WORD[text]


class EventTimes:
    """Reads one column of times.

    Args:
        where: file and column, for messages.
        unit: what numbers count, `TimeUnit.ISO` for texts, or a format of `strptime`. A Parquet
            timestamp or date says so itself.
        time_zone: of times that have none; None if the caller did not say.
        log_zone: whose days the log has.
    """

    def __init__(
        self, where: str, unit: TimeUnit | str, time_zone: str | None, log_zone: str
    ) -> None:
        self._where, self._unit, self._said = where, unit, time_zone is not None
        self._taken_as_utc = False
        self._zone = time_zone or ("UTC" if log_zone == "UTC" else None)
        self._log_zone = log_zone
        self._days = CalendarDays(log_zone)

    def read(
        self, column: pa.Array, faults: NDArray[np.int8], *, first: bool = False
    ) -> NDArray[np.int64]:
        """Milliseconds since 1970 UTC, (rows,); what is none is marked in `faults`.

        Args:
            column: (rows,).
            faults: (rows,).
            first: no row was good before; then a column of which no value can be read is refused.

        Raises:
            BadInputError: the column is of another type, or its times have no zone.
        """
        kind = column.type
        if pa.types.is_date(kind):
            days = whole_numbers(column.cast(pa.date32()).cast(pa.int32()), faults)
            return self._midnights(days, faults)
        if pa.types.is_timestamp(kind):
            stamps = whole_numbers(column.cast(pa.int64()), faults)
            times = milliseconds(stamps, _UNITS_A_SECOND[kind.unit])
            return times if kind.tz else self._placed(times)
        if not isinstance(self._unit, TimeUnit) or self._unit is TimeUnit.ISO:
            words = words_of(self._where, column, faults)
            times, read = self._of_texts(words, faults)
            if first and not read:
                self._refuse_no_times(words)
            return times
        if first and pa.types.is_binary(kind):
            self._refuse_texts(column)
        return self._of_numbers(column, UNITS_A_SECOND[self._unit], faults)

    def remark(self, column: str) -> str | None:
        """What a person should know of a column that was read; None for nothing."""
        if not self._taken_as_utc:
            return None
        return (
            f"times of {column} have no zone and were taken as UTC; --time-zone ZONE says another"
        )

    def unit_of(self, column: pa.Field) -> TimeUnit | None:
        """What the numbers of a column count; None if it holds dates, timestamps or texts."""
        unit = self._unit
        dated = pa.types.is_date(column.type) or pa.types.is_timestamp(column.type)
        return None if dated or not isinstance(unit, TimeUnit) or unit is TimeUnit.ISO else unit

    def _of_numbers(
        self, column: pa.Array, units_a_second: int, faults: NDArray[np.int8]
    ) -> NDArray[np.int64]:
        kind = column.type
        if pa.types.is_floating(kind):
            known = pc.if_else(pc.is_finite(column), column, None)
            faults[known.is_null().to_numpy(zero_copy_only=False)] = _MISSING
            values = pc.fill_null(known, 0).to_numpy().astype(np.float64)
            # Rounded at a thousandth of a millisecond: 0.123 s is not 122 ms.
            floored = np.floor(np.round(values * (1000 / units_a_second), 3))
            clipped: NDArray[np.int64] = np.clip(floored, -1.0, 2.0**62).astype(np.int64)
            return clipped
        if pa.types.is_integer(kind):
            return milliseconds(whole_numbers(column, faults), units_a_second)
        if pa.types.is_binary(kind):
            numbers, bad = integers(column)
            times = milliseconds(numbers, units_a_second)
            decimal = _decimals(column, bad)
            if decimal.any():
                written = column.filter(pa.array(decimal)).cast(pa.string()).cast(pa.float64())
                times[decimal] = self._of_numbers(written, units_a_second, faults[decimal])
            bad = bad & ~decimal
            empty = pc.equal(pc.binary_length(column), 0).to_numpy(zero_copy_only=False)
            faults[bad] = np.where(empty[bad], _MISSING, _WRONG_TYPE)
            return times
        msg = (
            f"{self._where} is {kind}, expected an integer or a timestamp; for texts use "
            "--time-unit iso, or a format"
        )
        raise BadInputError(msg)

    def _refuse_texts(self, column: pa.Array) -> None:
        column = column.filter(pc.greater(pc.binary_length(column), 0))
        _, bad = integers(column)
        bad = bad & ~_decimals(column, bad)
        if not len(bad) or not bad.all():
            return
        first = column[0].as_py().decode(errors="backslashreplace")
        way = "a format like `--time-unit '%m/%d/%Y %H:%M'`"
        try:
            datetime.fromisoformat(first)
        except ValueError:
            pass
        else:
            way = "`--time-unit iso`"
        msg = f"{self._where} holds no whole numbers, found {first[:80]!r}: say {way}"
        raise BadInputError(msg)

    def _refuse_no_times(self, words: pa.Array) -> None:
        known = words.filter(pc.not_equal(words, ""))
        if not len(known):
            return
        form = "ISO 8601" if isinstance(self._unit, TimeUnit) else f"the form {self._unit!r}"
        msg = (
            f"{self._where} holds no times of {form}, found {known[0].as_py()[:80]!r}: say "
            "--time-unit as they are (s, ms, us, ns, iso, or a format)"
        )
        raise BadInputError(msg)

    def _of_texts(
        self, words: pa.Array, faults: NDArray[np.int8]
    ) -> tuple[NDArray[np.int64], bool]:
        """Texts by the format, or as ISO 8601, of any kind of time; and whether any was read."""
        empty = pc.equal(words, "").to_numpy(zero_copy_only=False)
        faults[empty & (faults == 0)] = _MISSING
        times, any_read = np.zeros(len(words), np.int64), False
        if not isinstance(self._unit, TimeUnit):
            template = self._unit
            days = np.full(len(words), not _CLOCK.search(template))
            zoned = np.full(len(words), "%z" in template)
            read: Callable[[str], datetime] = lambda word: datetime.strptime(word, template)  # noqa: DTZ007, E731 - its zone comes later
        else:
            days = pc.match_substring_regex(words, _DAY_TEXT).to_numpy(zero_copy_only=False)
            zoned = pc.match_substring_regex(words, _ZONED_TEXT).to_numpy(zero_copy_only=False)
            read = datetime.fromisoformat
        for mask, has_zone in ((zoned & ~days, True), (~zoned & ~days, False), (days, False)):
            rows = np.flatnonzero(mask & ~empty)
            if not rows.size:
                continue
            found, bad = _stamps(words.take(pa.array(rows)), read, self._unit, has_zone=has_zone)
            faults[rows[bad]] = _WRONG_TYPE
            good = rows[~bad]
            stamps = found[~bad]
            any_read |= good.size > 0
            if mask is days and good.size:
                times[good] = self._midnights(stamps // 86_400_000, np.zeros(len(good), np.int8))
            elif good.size:
                times[good] = stamps if has_zone else self._placed(stamps)
        return times, any_read

    def _midnights(self, days: NDArray[np.int64], faults: NDArray[np.int8]) -> NDArray[np.int64]:
        """The beginning of each day of the log."""
        faults[(days < 0) | (days > _LAST_DAY)] = _OUT_OF_RANGE
        return self._days.starts_ms(days.clip(0, _LAST_DAY))

    def _placed(self, local_ms: NDArray[np.int64]) -> NDArray[np.int64]:
        """Local times as instants; of an hour that comes twice the first, as no one can know."""
        if self._zone is None:
            first = str(local_ms[:1].astype("datetime64[ms]").astype("datetime64[s]"))[2:-2]
            msg = (
                f"{self._where}: these times have no zone ({first}), and the log's days are "
                f"those of {self._log_zone}: say --time-zone UTC or --time-zone {self._log_zone}"
            )
            raise BadInputError(msg)
        self._taken_as_utc |= not self._said and len(local_ms) > 0
        if self._zone == "UTC":
            return local_ms
        stamps = pa.array(local_ms, pa.timestamp("ms"))
        instants = pc.assume_timezone(
            stamps, self._zone, ambiguous="earliest", nonexistent="latest"
        )
        placed: NDArray[np.int64] = instants.cast(pa.int64()).to_numpy()
        return placed


def _decimals(column: pa.Array, unread: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which of the values that are no integers are decimal numbers: (rows,)."""
    if not unread.any():
        return unread
    matched = pc.match_substring_regex(column, r"^\s*-?[0-9]+\.[0-9]+\s*$")
    decimal: NDArray[np.bool_] = matched.to_numpy(zero_copy_only=False) & unread
    return decimal


def _stamps(
    words: pa.Array, read: Callable[[str], datetime], unit: TimeUnit | str, *, has_zone: bool
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Milliseconds since 1970 of the clock that the texts show, and which are none."""
    if unit is TimeUnit.ISO:
        try:
            stamps = words.cast(pa.timestamp("us", "UTC" if has_zone else None)).cast(pa.int64())
            micros: NDArray[np.int64] = stamps.to_numpy()
            return micros // 1_000, np.zeros(len(words), bool)
        except pa.ArrowInvalid:
            pass  # some text is none, or of a form that Arrow does not read: look at each
    encoded = pc.dictionary_encode(words)
    distinct = encoded.dictionary.to_pylist()
    times, bad = np.zeros(len(distinct), np.int64), np.zeros(len(distinct), bool)
    for place, word in enumerate(distinct):
        try:
            stamp = read(word)
            known = stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)
            times[place] = (known - _EPOCH) // timedelta(milliseconds=1)
        except (ValueError, OverflowError):
            bad[place] = True
    at = encoded.indices.to_numpy()
    return times[at], bad[at]
