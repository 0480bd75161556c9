"""JSON Lines: an object a line, its wanted fields as columns of the types that JSON gives them.

A nested field is `outer.inner`. What a Kafka consumer dumped, an object with a `value` that is the
event, as an object or as a text of JSON, is taken apart: the fields of the value stand beside
those of the line, which go first where both have one.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa

from uic.models.errors import BadInputError
from uic.pipelines.importers.columns_found import refuse_missing, refuse_mixed
from uic.pipelines.importers.source import Rejects
from uic.pipelines.importers.text import TableRows, line_blocks
from uic.pipelines.log.events import Reason

_KINDS: Final = {int: "numbers", float: "numbers", str: "texts", bool: "truths"}
_VALUE: Final = "value"


class JsonTable:
    """One file, compressed or not.

    Args:
        path: of the file.
        wanted: columns to give.

    Raises:
        BadInputError: no line is an object, or a wanted field is in none of the first.
    """

    typed, declared = True, False

    def __init__(self, path: Path, wanted: Sequence[str]) -> None:
        self.path, self._wanted = path, list(wanted)
        self.total = path.stat().st_size
        self._kinds: dict[str, str] = {}
        found: dict[str, None] = {}
        objects = 0
        head = next(line_blocks(path), None)
        for raw in head.data.split(b"\n") if head else []:
            document = _object(raw)
            if document is not None:
                objects += 1
                found |= dict.fromkeys(_names(document))
        if not objects:
            msg = (
                f"{path}: is JSON, and no line is an object; expected JSON Lines, as `jq -c '.[]' "
                "FILE` makes of an array, and `jq -c . FILE` of objects over several lines"
            )
            raise BadInputError(msg)
        self.names = list(found)
        refuse_missing(path, self.names, wanted, f" in the first {objects:,} lines")

    def rows(self, rejects: Rejects) -> Iterator[TableRows]:
        """The columns in file order; what is no object is rejected."""
        for block in line_blocks(self.path):
            values: list[list[Any]] = [[] for _ in self._wanted]
            paths = [name.split(".") for name in self._wanted]
            lines = []
            for line, raw in enumerate(block.data.splitlines(), block.first):
                document = _object(raw)
                if document is None:
                    if raw.strip():
                        text = raw.decode(errors="backslashreplace")
                        rejects.add(self.path, line, Reason.MALFORMED, text)
                    continue
                lines.append(line)
                for name, path, column in zip(self._wanted, paths, values, strict=True):
                    column.append(_field(document, name, path))
            columns = {
                name: self._column(name, column, lines)
                for name, column in zip(self._wanted, values, strict=True)
            }
            yield TableRows(pa.table(columns), np.array(lines, np.int64), block.done)

    def _column(self, name: str, values: list[Any], lines: list[int]) -> pa.Array:
        """One type for all values: whole numbers, numbers, texts or truths; null where none is.

        Raises:
            BadInputError: values are of two kinds, or objects, or numbers beyond int64.
        """
        found: dict[str, int] = {}
        for kind in set(map(type, values)) - {type(None)}:
            first = next(at for at, value in enumerate(values) if type(value) is kind)
            word = _KINDS.get(kind, "objects or lists")
            found[word] = min(first, found.get(word, first))
        places = {
            word: f"{word} in {self.path}: line {lines[at]} ({repr(values[at])[:80]})"
            for word, at in sorted(found.items(), key=lambda item: item[1])
        }
        if len(places) > 1:
            there, here = list(places.values())[:2]
            refuse_mixed(self.path, name, here, there)
        if "objects or lists" in places:
            msg = (
                f"{self.path}: column {name} holds {places['objects or lists']}; "
                f"expected numbers or texts; a field of an object is {name}.FIELD"
            )
            raise BadInputError(msg)
        word = next(iter(places), self._kinds.get(name, "texts"))
        self._kinds[name] = word
        if word == "texts":
            return pa.array(values, pa.string())
        try:
            return pa.array(values, pa.bool_() if word == "truths" else None)
        except (pa.ArrowInvalid, OverflowError) as error:
            large = next(at for at, value in enumerate(values) if value and abs(value) >= 1 << 63)
            msg = (
                f"{self.path}: column {name} holds {values[large]} in line {lines[large]}, "
                "expected numbers below 2^63; write them as texts"
            )
            raise BadInputError(msg) from error


def _object(raw: bytes) -> dict[str, Any] | None:
    """A line's fields with those of its `value`; None if it is no object."""
    document = _decoded(raw)
    if not isinstance(document, dict):
        return None
    value = document.get(_VALUE)
    inner = _decoded(value.encode()) if isinstance(value, str) else value
    if not isinstance(inner, dict):
        return document
    return {**inner, **document, _VALUE: inner}


def _decoded(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _names(document: dict[str, Any], outer: str = "") -> Iterator[str]:
    for name, value in document.items():
        yield f"{outer}{name}"
        if isinstance(value, dict):
            yield from _names(value, f"{outer}{name}.")


def _field(document: dict[str, Any], name: str, path: Sequence[str]) -> Any:
    if name in document or len(path) == 1:
        return document.get(name)
    value: Any = document
    for step in path:
        if not isinstance(value, dict):
            return None
        value = value.get(step)
    return value
