"""The files of an import: one, several, a folder, or a pattern; and what their folders say.

A folder `day=2025-03-01` says that all rows below it have that `day`, as Hive, Spark, DuckDB and
Arrow write data sets. Files come in the order of their names, numbers in them by size.
"""

import glob
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from uic.models.errors import BadInputError

_REMOTE: Final = re.compile(r"^([a-z][a-z0-9+.-]*):/+(.*)$")
_MAGIC: Final = re.compile(r"[*?\[]")
_NULL: Final = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class InputFile:
    """A file, and the values that its folders give to all of its rows; None is no value."""

    path: Path
    partition: Mapping[str, str | None] = field(default_factory=dict)


def input_files(given: Sequence[Path]) -> list[InputFile]:
    """The files that are meant, in the order of the arguments and of names within one.

    Of folders, what begins with `.` or `_` (`_SUCCESS`, checksums) and empty files are no data.

    Raises:
        BadInputError: there is none, an address is not of this machine, a file is there twice, or
            its folders do not say what those of the others say.
    """
    files = [file for path in given for file in _files_of(path)]
    times = Counter(file.path for file in files)
    for file in files:
        if times[file.path] > 1:
            msg = f"{file.path}: is named twice"
            raise BadInputError(msg)
        if set(file.partition) != set(files[0].partition):
            msg = (
                f"{file.path}: its folders say {_keys(file)}, and those of {files[0].path} say "
                f"{_keys(files[0])}; import them one by one"
            )
            raise BadInputError(msg)
    return files


def _keys(file: InputFile) -> str:
    return ", ".join(f"{key}=…" for key in file.partition) or "nothing"


def _files_of(given: Path) -> list[InputFile]:
    text = str(given)
    remote = _REMOTE.match(text)
    if remote:
        address = f"{remote[1]}://{remote[2]}"
        msg = f"{address}: is not on this machine; copy it here and name the copy"
        raise BadInputError(msg)
    if given.is_file():
        return [InputFile(given)]
    if given.is_dir():
        found, root = [given], given
    else:
        found = sorted(map(Path, glob.glob(text, recursive=True)), key=_by_numbers)  # noqa: PTH207 - the pattern may begin anywhere
        root = Path(*_before_magic(given))
    if not found:
        what = "no file is named so" if _MAGIC.search(text) else "no such file"
        msg = f"{given}: {what}"
        raise BadInputError(msg)
    files = [
        InputFile(path, _partition(path.relative_to(root) if path.is_relative_to(root) else path))
        for place in found
        for path in ([place] if place.is_file() else _below(place))
    ]
    if not files:
        msg = f"{given}: is a folder without files; nothing to import"
        raise BadInputError(msg)
    return files


def _below(folder: Path) -> list[Path]:
    files = [
        path
        for path in folder.rglob("*")
        if not any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
        and path.is_file()
        and path.stat().st_size
    ]
    return sorted(files, key=_by_numbers)


def _before_magic(pattern: Path) -> list[str]:
    parts = list(pattern.parts)
    first = next(at for at, part in enumerate([*parts, "*"]) if _MAGIC.search(part))
    return parts[:first]


def _by_numbers(path: Path) -> list[tuple[int, str]]:
    pieces = re.split(r"([0-9]+)", str(path))
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in pieces]


def _partition(relative: Path) -> dict[str, str | None]:
    values: dict[str, str | None] = {}
    for folder in relative.parts[:-1]:
        key, equals, value = folder.partition("=")
        if equals:
            values[unquote(key)] = None if value == _NULL else unquote(value)
    return values
