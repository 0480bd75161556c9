"""What a file is that is no table of ours: its name in plain words, and what to do about it."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from uic.models.errors import BadInputError
from uic.pipelines.importers.columns_found import refuse_missing

_KNOWN: Final = "CSV or JSON Lines (also .gz, .zst, .bz2 or .xz), Parquet or Arrow (Feather)"
_UNPACK: Final = "unpack it first"
_CONVERT: Final = "save it as Parquet or CSV"
# First bytes, what has them, and what to do.
_MAGIC: Final[Sequence[tuple[bytes, str, str]]] = (
    (b"PK\x03\x04", "a zip archive, or a workbook", f"{_UNPACK}; a workbook: save it as CSV"),
    (b"PAR1", "compressed Parquet", _UNPACK),
    (b"ARROW1", "compressed Arrow", _UNPACK),
    (b"FEA1", "Feather of version 1", _CONVERT),
    (b"ORC", "ORC", _CONVERT),
    (b"Obj\x01", "Avro", _CONVERT),
    (b"SQLite format 3", "a SQLite database", f"{_CONVERT} (`sqlite3 -csv -header`)"),
    (b"\x89HDF", "HDF5", _CONVERT),
    (b"\xff\xfe", "UTF-16", "convert it: `iconv -f utf-16 -t utf-8`"),
    (b"\xfe\xff", "UTF-16", "convert it: `iconv -f utf-16 -t utf-8`"),
)
_NUMBER: Final = re.compile(r"^[+-]?[0-9]+([.:/-][0-9]+)*(T[0-9:.+Z-]+)?$")


def refuse_what_is_no_text(path: Path, head: bytes) -> None:
    """Refuse a file whose first bytes, unpacked, say that it is another format, or no text.

    Raises:
        BadInputError: names the format, and what to do.
    """
    for magic, name, way in _MAGIC:
        if head.startswith(magic):
            msg = f"{path}: is {name}, expected {_KNOWN}; {way}"
            raise BadInputError(msg)
    if b"\0" in head:
        msg = f"{path}: is in no known form (it begins with {head[:8]!r}), expected {_KNOWN}"
        raise BadInputError(msg)


def check_header(
    path: Path, names: Sequence[str], wanted: Sequence[str], first: Sequence[str], *, header: bool
) -> None:
    """Whether the columns of a text file are there, each once.

    Args:
        path: of the file.
        names: of its columns.
        wanted: the columns that are asked for.
        first: the values of its first line.
        header: that line gave the names.

    Raises:
        BadInputError: names the column; or the first line holds values, not names.
    """
    numbers = sum(bool(_NUMBER.match(name)) for name in names)
    if header and (numbers > len(names) // 2 or (numbers and all(map(_NUMBER.match, wanted)))):
        shown = ", ".join(name[:40] for name in names[:20])
        msg = (
            f"{path}: the first line looks like data ({shown}), expected the names of the "
            "columns; say --no-header, and columns by their places (1, 2, …) or --names A,B,…"
        )
        raise BadInputError(msg)
    alone = first[0] if len(first) == 1 else ""
    other = next((sign for sign in ("::", ";", "\t", "|", ",") if sign in alone), None)
    way = f"; is the separator {other!r}? (--separator)" if other else ""
    refuse_missing(path, names, wanted, way)
