"""Columns by name: those that are not there, and whether they hold one kind of value throughout."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from uic.models.errors import BadInputError

_SHOWN: Final = 20
_SHOWN_CHARACTERS: Final = 40


def refuse_missing(path: Path, found: Sequence[str], wanted: Sequence[str], way: str = "") -> None:
    """Whether each wanted column is there once.

    Args:
        path: of the file.
        found: the names of its columns, those of nested fields as `outer.inner`.
        wanted: what is asked for.
        way: what else may be the matter, for the end of the message.

    Raises:
        BadInputError: names the column, the nearest names, and what was found.
    """
    for column in wanted:
        times = found.count(column)
        if times == 1:
            continue
        if times:
            places = [str(at) for at, name in enumerate(found, 1) if name == column]
            msg = (
                f"{path}: column {column} is there twice, in places {', '.join(places)}; rename "
                "one of them"
            )
            raise BadInputError(msg)
        shown = ", ".join(name[:_SHOWN_CHARACTERS] for name in found[:_SHOWN])
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        near = nearest(column, found)
        hint = f"; did you mean {near}?" if near else ""
        msg = f"{path}: column {column} is missing{hint} Found {shown}{more}{way}"
        raise BadInputError(msg if near else msg.replace(" Found", "; found"))


def nearest(name: str, found: Sequence[str]) -> str:
    """The names that are most like it, at most three, in words; empty if none is."""
    by_lower = {other.lower(): other for other in reversed(found)}
    close = difflib.get_close_matches(name.lower(), list(by_lower), n=3)
    return " or ".join(by_lower[other] for other in close)


class ColumnKinds:
    """What each column of all files holds: numbers, texts, truths or times, and where it was so.

    One user's id that is a number here and a text there would be two users.
    """

    def __init__(self) -> None:
        self._first: dict[str, tuple[str, Path, str]] = {}

    def check(self, path: Path, columns: Mapping[str, pa.Array], lines: NDArray[np.int64]) -> None:
        """Whether columns hold what those before them held.

        Raises:
            BadInputError: names the column, and a value of each kind with its file and line.
        """
        for name, column in columns.items():
            kind = kind_of(column.type)
            if not kind or column.null_count == len(column):
                continue
            row = column.is_valid().index(pa.scalar(value=True)).as_py()
            value = _shown(column[row])
            here = f"{kind} in {path}: line {lines[row]} ({value})"
            known = self._first.setdefault(name, (kind, path, here))
            if known[0] != kind:
                refuse_mixed(path, name, here, known[2])


def refuse_mixed(path: Path, column: str, here: str, there: str) -> None:
    """Refuse a column of two kinds of values.

    Raises:
        BadInputError: always.
    """
    msg = f"{path}: column {column} holds {here}, and {there}; make it one kind"
    raise BadInputError(msg)


def kind_of(kind: pa.DataType) -> str:
    """A type in a word; empty for what has no values or is left to others."""
    if pa.types.is_dictionary(kind):
        return kind_of(kind.value_type)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "numbers"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "texts"
    if pa.types.is_boolean(kind):
        return "truths"
    return "times" if pa.types.is_timestamp(kind) or pa.types.is_date(kind) else ""


def _shown(scalar: Any) -> str:
    return repr(scalar.as_py())[:80] if kind_of(scalar.type) != "times" else str(scalar)


__all__ = ["ColumnKinds", "kind_of", "nearest", "refuse_missing", "refuse_mixed"]
