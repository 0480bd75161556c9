"""What a file is that is no table of ours: its name in plain words, and what to do about it."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from uic.models.errors import BadInputError
from uic.pipelines.importers.source import open_plain, readable

_REMOTE: Final = re.compile(r"^([a-z][a-z0-9+.-]*):/+(.*)$")
_UNPACK: Final = "unpack it first, or make it .gz"
_CONVERT: Final = "save it as Parquet or CSV"
# First bytes, what has them, and what to do.
_MAGIC: Final[Sequence[tuple[bytes, str, str]]] = (
    (b"\x28\xb5\x2f\xfd", "zstd", f"{_UNPACK} (`zstd -d`)"),
    (b"BZh", "bzip2", f"{_UNPACK} (`bunzip2`)"),
    (b"\xfd7zXZ", "xz", f"{_UNPACK} (`unxz`)"),
    (b"PK\x03\x04", "a zip archive, or a workbook", f"{_UNPACK}; a workbook: save it as CSV"),
    (b"ARROW1", "Arrow, or Feather", _CONVERT),
    (b"FEA1", "Feather", _CONVERT),
    (b"ORC", "ORC", _CONVERT),
    (b"Obj\x01", "Avro", _CONVERT),
    (b"\xff\xfe", "UTF-16", "convert it: `iconv -f utf-16 -t utf-8`"),
    (b"\xfe\xff", "UTF-16", "convert it: `iconv -f utf-16 -t utf-8`"),
)
_NUMBER: Final = re.compile(r"^[+-]?[0-9]+([.:/-][0-9]+)*(T[0-9:.+Z-]+)?$")


def refuse_what_is_no_file(path: Path) -> None:
    """Refuse an address, a folder, a pattern and a name that is not there.

    Raises:
        BadInputError: names it, and what is expected.
    """
    text = str(path)
    remote = _REMOTE.match(text)
    if remote:
        address = f"{remote[1]}://{remote[2]}"
        msg = f"{address}: is not on this machine; copy it here and name the copy"
        raise BadInputError(msg)
    if path.is_dir():
        msg = (
            f"{path}: is a folder, expected one file; join its files first (an import is one "
            "epoch), for example with `pyarrow.dataset`, sorted by time"
        )
        raise BadInputError(msg)
    if not path.is_file():
        several = any(sign in text for sign in "*?[")
        way = "; a pattern is not resolved, an import is one file: join them first"
        msg = f"{path}: no such file{way if several else ''}"
        raise BadInputError(msg)


def refuse_what_is_no_csv(path: Path) -> None:
    """Refuse a file whose first bytes say that it is another format.

    Raises:
        BadInputError: names the format, and what to do.
    """
    with readable(path), open_plain(path) as stream:
        head = stream.read(64)
    for magic, name, way in _MAGIC:
        if head.startswith(magic):
            msg = f"{path}: is {name}, expected CSV (.gz or not) or Parquet; {way}"
            raise BadInputError(msg)
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"["):
        msg = (
            f"{path}: is JSON, expected CSV or Parquet; {_CONVERT} (pandas: `read_json(FILE, "
            "lines=True).to_parquet(…)`)"
        )
        raise BadInputError(msg)


def check_names(path: Path, names: Sequence[str], wanted: Sequence[str]) -> None:
    """Whether a header line has each wanted column once.

    Raises:
        BadInputError: names the column; or the line holds values, not names.
    """
    shown = ", ".join(name[:40] for name in names[:20])
    numbers = sum(bool(_NUMBER.match(name)) for name in names)
    if numbers > len(names) // 2 or (numbers and all(map(_NUMBER.match, wanted))):
        msg = (
            f"{path}: the first line looks like data ({shown}), expected the names of the "
            "columns; put a line of names before it"
        )
        raise BadInputError(msg)
    for column in wanted:
        if names.count(column) != 1:
            other = next((sign for sign in ";\t|" if len(names) == 1 and sign in names[0]), None)
            way = f"; is the delimiter {other!r}? (--delimiter)" if other else ""
            msg = f"{path}: column {column} is missing or there twice; found {shown}{way}"
            raise BadInputError(msg)
