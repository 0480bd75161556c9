"""Which column is what, by the names that people give and by values, and how its times are written.

A guess is shown to a person before anything is done with it; what cannot be told is left open.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from uic.models.errors import BadInputError
from uic.pipelines.importers.plausible import YEAR_2000_MS, PlausibleTimes

# Names of what a column can be, the likeliest first; compared without case and signs, so that
# `user.id`, `User ID` and `user_id` are one.
NAMES: Final = {
    "user_id": (
        "userid user uid visitorid visitor customerid customer clientid client memberid member "
        "accountid buyerid reviewerid personid sessionid session deviceid"
    ),
    "item_id": (
        "itemid item iid productid product articleid article skuid sku stockcode movieid movie "
        "videoid video newsid news songid trackid bookid asin goodsid contentid postid adid"
    ),
    "event_time": (
        "timestamp eventtime eventtimestamp time datetime ts timems date createdat created at "
        "boughtat bought invoicedate orderdate purchasedate unixreviewtime day"
    ),
    "category_id": "categoryid category catid cat categorycode itemcategory shelf department",
    "clicked": "clicked isclick isclicked wasclicked click label",
    "behavior": "behavior behaviour behaviortype behaviourtype event eventtype action actiontype "
    "type",
}
FEATURES: Final = {
    "user_feature": "gender sex age ageband agegroup country city plan segment language",
    "item_feature": "price brand brandid author authorid publisher",
    "context": "position rank slot device page",
}
# What people call a behaviour, to its name here.
BEHAVIOR_WORDS: Final = {
    "click": "click view pv clicks views clicked viewed pageview detail",
    "cart": "cart addtocart addcart tocart carts",
    "favourite": "favourite favorite fav favs like liked wishlist bookmark collect",
    "buy": "buy purchase transaction order bought purchased sale checkout",
}
# A column of behaviours has few distinct words, and most of them are in `BEHAVIOR_WORDS`.
_MOST_BEHAVIORS: Final = 12
_FORMATS: Final = (
    "%Y-%m-%d",
    "%m/%d/%Y",
    "%d/%m/%Y",
    "%Y/%m/%d",
    "%d.%m.%Y",
    "%d-%m-%Y",
    "%m-%d-%Y",
)
_CLOCKS: Final = ("", " %H:%M", " %H:%M:%S", " %I:%M:%S %p", " %I:%M %p")
_DAY_NUMBER: Final = re.compile(r"(19|20)[0-9]{6}")
_NUMBER: Final = re.compile(r"[0-9]+(\.[0-9]+)?")
# Beyond it a number of seconds, milliseconds or microseconds would be of the year 5138.
_UNIT_ENDS: Final = {"s": 1e11, "ms": 1e14, "us": 1e17, "ns": 1e20}
_FIRST_YEAR: Final = 2000
_UNITS_A_SECOND: Final = {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}


def plain(name: str) -> str:
    """A name without case and signs."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def guess_columns(
    names: Sequence[str], values: Mapping[str, Sequence[str]] | None = None
) -> dict[str, list[str]]:
    """Columns by what they are likely to be: keys of `NAMES` and `FEATURES`.

    A column is one thing at most; of `clicked` and `behavior` there is one, as a table has
    impressions or behaviours; and a name that is there twice is nothing. Where no name says which
    column has the times, or the column that is called a behaviour has none, values say it.

    Args:
        names: of all columns.
        values: some distinct values by column; None goes by names alone.
    """
    free = [name for name in names if names.count(name) == 1]
    found: dict[str, list[str]] = {}
    for role, words in NAMES.items():
        if role == "behavior" and "clicked" in found:
            continue
        at = {word: place for place, word in enumerate(words.split())}
        likely = [name for name in free if plain(name) in at]
        if likely:
            best = min(likely, key=lambda name: at[plain(name)])
            found[role] = [best]
            free.remove(best)
    _guess_by_values(found, free, values or {})
    for role, words in FEATURES.items():
        if role == "context" and "clicked" not in found:
            continue
        columns = [name for name in free if plain(name) in words.split()]
        if columns:
            found[role] = columns
    return found


def _guess_by_values(
    found: dict[str, list[str]], free: list[str], values: Mapping[str, Sequence[str]]
) -> None:
    """Add what no name says: the column of times, and that of behaviours."""
    if "event_time" not in found:
        times = [name for name in free if _are_times(values.get(name, ()))]
        # A day of delivery or a number of an order looks like a time, too: a clock says more.
        clocks = [name for name in times if all(":" in word for word in values[name])]
        if len(clocks or times) == 1:
            found["event_time"] = clocks or times
            free.remove(found["event_time"][0])
    called = found.get("behavior", [])
    if "clicked" in found or any(_behaviors_among(values.get(name, ())) for name in called):
        return
    likely = [name for name in free if _behaviors_among(values.get(name, ())) > 0.5]
    if likely:
        best = max(likely, key=lambda name: _behaviors_among(values[name]))
        found["behavior"] = [best]
        free.remove(best)
        free += called


def _behaviors_among(words: Sequence[str]) -> float:
    """The share of words that name a behaviour; 0 for a column of many words."""
    if not words or len(words) > _MOST_BEHAVIORS:
        return 0.0
    return sum(guess_behavior(word) is not None for word in words) / len(words)


def _are_times(words: Sequence[str]) -> bool:
    """Whether all are times between 2000 and tomorrow; numbers of days (`20250301`) are none."""
    try:
        unit = guess_time_unit("", words) if words else None
    except BadInputError:
        return False
    likely = PlausibleTimes.until_tomorrow()
    if unit == "iso" and not all(map(_NUMBER.fullmatch, words)):
        years = {datetime.fromisoformat(word).year for word in words}
        last = datetime.fromtimestamp(likely.last_ms / 1000, UTC).year
        return min(years) >= _FIRST_YEAR and max(years) <= last
    if unit not in _UNITS_A_SECOND:
        return unit is not None and not all(map(_NUMBER.fullmatch, words))
    times = [float(word) for word in words]
    a_ms = _UNITS_A_SECOND[unit] / 1000
    return likely.first_ms <= min(times) / a_ms and max(times) / a_ms <= likely.last_ms


def guess_behavior(word: str) -> str | None:
    """The behaviour that a file's word for it means; None if it cannot be told."""
    for name, words in BEHAVIOR_WORDS.items():
        if plain(word) in words.split():
            return name
    return None


def guess_time_unit(where: str, words: Sequence[str]) -> str:
    """What `--time-unit` has to say of texts or numbers of a column: a unit, `iso`, or a format.

    Args:
        where: file and column, for messages.
        words: some values, none of them empty.

    Raises:
        BadInputError: it cannot be told.
    """
    if all(_DAY_NUMBER.fullmatch(word) for word in words) or all(map(_is_iso, words)):
        return "iso"
    if all(_NUMBER.fullmatch(word) for word in words):
        largest = max(map(float, words))
        unit = next((unit for unit, end in _UNIT_ENDS.items() if largest < end), None)
        if unit is not None and largest >= YEAR_2000_MS / 1000:
            return unit
        fitting = []
    else:
        fitting = [form for day in _FORMATS for form in _forms(day) if _reads(form, words)]
    if len(fitting) == 1:
        return fitting[0]
    way = "a unit (s, ms, us, ns), iso, or a format like '%m/%d/%Y %H:%M'"
    if fitting:
        way = " or ".join(f"'{form}'" for form in fitting)
    msg = f"{where}: {words[0][:80]!r} is no time that can be told; say --time-unit with {way}"
    raise BadInputError(msg)


def _forms(day: str) -> list[str]:
    return [day + clock for clock in _CLOCKS]


def _is_iso(word: str) -> bool:
    try:
        datetime.fromisoformat(word)
    except ValueError:
        return False
    return not word.isdecimal()


def _reads(form: str, words: Sequence[str]) -> bool:
    try:
        for word in words:
            datetime.strptime(word, form)  # noqa: DTZ007 - only whether it can be read
    except ValueError:
        return False
    return True
