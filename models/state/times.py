"""Lengths of time as people write them: 30m, 1h, 7d, 2w."""

import re
from typing import Annotated, Any, Final

from pydantic import BeforeValidator

_UNITS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_PATTERN: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
# Of a state's clock, which counts units since 1970 in 32 bits.
SHORTEST_UNIT_MS: Final = 1_000
# Of the 65,535 units that an age can be: 16 half-lives leave 1/65,536.
LONGEST_HALF_LIFE_UNITS: Final = 65_535 // 16
_MOST_MS: Final = 100 * 365 * 86_400_000


def milliseconds(text: Any) -> int:
    """A length of time in milliseconds.

    Raises:
        ValueError: says what was expected.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        value = text
    else:
        found = _PATTERN.fullmatch(str(text).strip())
        if not found:
            msg = f"{text!r} is no length of time; write it as 30m, 1h, 7d or 2w"
            raise ValueError(msg)
        value = round(float(found[1]) * _UNITS[found[2]])
    if not 0 < value <= _MOST_MS:
        msg = f"{text!r} is not between 1 ms and 100 years"
        raise ValueError(msg)
    return value


def written(value_ms: int) -> str:
    """The shortest way to write it."""
    for unit in "wdhms":
        if value_ms % _UNITS[unit] == 0 and (unit != "w" or value_ms // _UNITS[unit] > 4):
            return f"{value_ms // _UNITS[unit]}{unit}"
    return f"{value_ms}ms"


def refuse_short_unit(unit_ms: int) -> None:
    """Refuse a unit of time whose number does not fit a state's clock.

    Raises:
        ValueError: it is shorter than a second.
    """
    if unit_ms < SHORTEST_UNIT_MS:
        msg = f"resolution {written(unit_ms)} is shorter than 1s; set resolution: 1s"
        raise ValueError(msg)


def refuse_unfit_half_life(half_life_ms: int, unit_ms: int) -> None:
    """Refuse a half-life that ages in units cannot measure.

    An age stays at 65,535 units, where a value is taken for gone: by then it must be.

    Raises:
        ValueError: it is shorter than a unit, or longer than a sixteenth of the largest age.
    """
    if half_life_ms < unit_ms:
        msg = (
            f"half-life {written(half_life_ms)} is shorter than resolution {written(unit_ms)}; "
            f"set resolution: {written(half_life_ms)}"
        )
        raise ValueError(msg)
    if half_life_ms > unit_ms * LONGEST_HALF_LIFE_UNITS:
        least_s = -(-half_life_ms // LONGEST_HALF_LIFE_UNITS) // 1000 + 1
        msg = (
            f"half-life {written(half_life_ms)} is longer than {LONGEST_HALF_LIFE_UNITS:,} times "
            f"resolution {written(unit_ms)}; set resolution: {least_s}s or longer"
        )
        raise ValueError(msg)


# In a section: a text such as 7d; milliseconds as a number.
Duration = Annotated[int, BeforeValidator(milliseconds)]
