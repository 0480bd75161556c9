"""The sale calendar: which log times lie on a sale day.

On a sale day people buy what is cheap, not what they like; the paper's production left such days
out of training (MIMN, section 5.6.2). A calendar is a YAML file with one time zone and named
ranges of calendar days, both ends included:

    time_zone: Asia/Shanghai
    sales:
      - {name: "11.11", first: 2025-11-11, last: 2025-11-11}

The ranges become half-open intervals of UTC milliseconds once, on reading; asking is one binary
search an event, in batch and stream alike. `SaleCalendar.for_behaviors` and `for_impressions` give
the calendar of what is to be left out under the settings, so that a caller has no branch.
"""

import hashlib
import itertools
import json
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Self
from zoneinfo import ZoneInfo

import numpy as np
import yaml
from numpy.typing import NDArray

from uic.models.errors import BadInputError
from uic.models.yaml_text import check_yaml
from uic.pipelines.days import CalendarDays, day_number
from uic.pipelines.settings import Keep, SaleSettings

_CALENDAR_KEYS: Final = ("time_zone", "sales")
_SALE_KEYS: Final = ("name", "first", "last")
# The day after `last` must be a date too, with room for the zone's offset.
_LATEST: Final = date.max - timedelta(days=2)
_EARLIEST: Final = date.min + timedelta(days=2)


class SaleCalendarError(BadInputError):
    """A sale calendar cannot be read, or a field of it is not what it has to be."""


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses a mapping with one key twice: YAML would drop all but the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is there twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


class _PlainDumper(yaml.SafeDumper):
    """Writes a date that stands twice as two dates, not as an anchor and an alias."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True


@dataclass(frozen=True)
class Sale:
    """One named sale: the calendar days from `first` to `last`, both included."""

    name: str
    first: date
    last: date


@dataclass(frozen=True)
class SaleCalendar:
    """Named sales in one time zone, and the UTC intervals that they cover.

    Build it with `load`, `of_days` or `empty`. It can be pickled and is cheap to send to workers.

    Args:
        time_zone: IANA name; a sale day is a calendar day of this zone.
        sales: by first day, without overlap.
        edges_ms: (2 x sales,), int64: start, end, start, end, … in milliseconds since 1970 UTC;
            a start is included, an end is not.
    """

    time_zone: str
    sales: tuple[Sale, ...]
    edges_ms: NDArray[np.int64] = field(compare=False)

    @classmethod
    def empty(cls) -> Self:
        """A calendar without a sale day."""
        return cls("UTC", (), np.empty(0, dtype=np.int64))

    @classmethod
    def of_days(cls, days: tuple[date, ...], time_zone: str) -> Self:
        """A calendar whose sales are single days, each named by its date."""
        sales = tuple(Sale(day.isoformat(), day, day) for day in sorted(set(days)))
        return cls(time_zone, sales, _edges_ms(sales, time_zone))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a calendar.

        Raises:
            SaleCalendarError: no such file, not YAML, an unknown key, an unknown zone, a reversed
                range, or two ranges that overlap; names the file and the field.
        """
        document = _mapping(path, "the file", _read_yaml(path), _CALENDAR_KEYS)
        zone = _zone(path, document["time_zone"])
        entries = document["sales"]
        if not isinstance(entries, list):
            raise _wrong(path, "sales", entries, "a list of {name, first, last}")
        sales = sorted(
            ((_sale(path, f"sales[{at}]", entry), at) for at, entry in enumerate(entries)),
            key=lambda found: (found[0].first, found[1]),
        )
        for (before, at), (after, later_at) in itertools.pairwise(sales):
            if after.first <= before.last:
                msg = (
                    f"{path}: sales[{later_at}] ({after.name!r}, from {after.first}) overlaps "
                    f"sales[{at}] ({before.name!r}, to {before.last}); join them or move one"
                )
                raise SaleCalendarError(msg)
        in_order = tuple(sale for sale, _ in sales)
        return cls(zone, in_order, _edges_ms(in_order, zone))

    @classmethod
    def of(cls, settings: SaleSettings) -> Self:
        """The calendar that the settings name; empty when they name none."""
        return cls.empty() if settings.calendar is None else cls.load(settings.calendar)

    @classmethod
    def for_behaviors(cls, settings: SaleSettings) -> Self:
        """The days whose behaviours leave histories, memories and the stream; maybe none."""
        return cls.of(settings) if settings.behaviors is Keep.DROP else cls.empty()

    @classmethod
    def for_impressions(cls, settings: SaleSettings) -> Self:
        """The days whose impressions leave the training rows; maybe none."""
        return cls.of(settings) if settings.impressions is Keep.DROP else cls.empty()

    def covers(self, times_ms: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each time lies on a sale day.

        Args:
            times_ms: any shape, int64: log times in milliseconds since 1970 UTC.

        Returns:
            The same shape, bool.
        """
        # An odd number of edges at or before a time means that the last of them is a start.
        inside: NDArray[np.bool_] = np.searchsorted(self.edges_ms, times_ms, side="right") % 2 == 1
        return inside

    def fingerprint(self) -> str:
        """Hex sha256 of what is covered, for manifests: a new name changes nothing, a day does."""
        # Ranges that touch cover the same as one range, so their common edge does not count.
        edges = self.edges_ms.tolist()
        edges_alone = [edge for edge in edges if edges.count(edge) == 1]
        return hashlib.sha256(json.dumps(edges_alone).encode()).hexdigest()

    def to_yaml(self) -> str:
        """The calendar as a file that `load` reads."""
        document = {
            "time_zone": self.time_zone,
            "sales": [vars(sale) for sale in self.sales],
        }
        return yaml.dump(document, Dumper=_PlainDumper, sort_keys=False, allow_unicode=True)


def _read_yaml(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        msg = f"{path}: no such sale calendar; correct `sale.calendar` or leave it out"
        raise SaleCalendarError(msg) from error
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path}: cannot be read as UTF-8 text: {error}"
        raise SaleCalendarError(msg) from error
    try:
        check_yaml(text)
        return yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    # ValueError: PyYAML lets a date like 2025-13-01 through to datetime.date.
    except (yaml.YAMLError, ValueError) as error:
        msg = f"{path}: cannot be read as YAML: {' '.join(str(error).split())}"
        raise SaleCalendarError(msg) from error


def _wrong(path: Path, field: str, found: object, expected: str) -> SaleCalendarError:
    return SaleCalendarError(f"{path}: {field}: found {found!r}, expected {expected}")


def _mapping(path: Path, field: str, found: Any, keys: tuple[str, ...]) -> dict[str, Any]:
    """`found`, if it is a mapping with exactly these keys."""
    if not isinstance(found, dict):
        raise _wrong(path, field, found, f"a mapping with {', '.join(keys)}")
    for key in found:
        if key not in keys:
            msg = f"{path}: {field}: unknown key {key!r}; the keys are {', '.join(keys)}"
            raise SaleCalendarError(msg)
    for key in keys:
        if key not in found:
            msg = f"{path}: {field}: key {key!r} is missing; the keys are {', '.join(keys)}"
            raise SaleCalendarError(msg)
    return found


def _zone(path: Path, found: Any) -> str:
    if isinstance(found, str):
        try:
            return ZoneInfo(found).key
        except (KeyError, ValueError, OSError) as error:
            raise _wrong(path, "time_zone", found, "a name like UTC or Asia/Shanghai") from error
    raise _wrong(path, "time_zone", found, "a name like UTC or Asia/Shanghai")


def _sale(path: Path, field: str, found: Any) -> Sale:
    entry = _mapping(path, field, found, _SALE_KEYS)
    name = entry["name"]
    if not isinstance(name, str) or not name.strip():
        # YAML reads 11.11 as a number, and 11.10 as the same one as 11.1.
        raise _wrong(path, f"{field}.name", name, 'text; put it in quotes, like "11.11"')
    first, last = (_day(path, f"{field}.{end}", entry[end]) for end in ("first", "last"))
    if last < first:
        msg = f"{path}: {field} ({name!r}): reversed: first {first} is after last {last}; swap them"
        raise SaleCalendarError(msg)
    return Sale(name, first, last)


def _day(path: Path, field: str, found: Any) -> date:
    day: date | None = None
    # A datetime is a date to Python, but half a day is no range of days.
    if isinstance(found, date) and not isinstance(found, datetime):
        day = found
    elif isinstance(found, str):
        try:
            day = date.fromisoformat(found)
        except ValueError:
            day = None
    if day is None or not _EARLIEST <= day <= _LATEST:
        raise _wrong(path, field, found, "a day like 2025-11-11")
    return day


def _edges_ms(sales: tuple[Sale, ...], time_zone: str) -> NDArray[np.int64]:
    """Start and end of each range in UTC milliseconds."""
    days = CalendarDays(time_zone)
    edges = [
        days.start_ms(day_number(day))
        for sale in sales
        for day in (sale.first, sale.last + timedelta(days=1))
    ]
    return np.array(edges, dtype=np.int64)
