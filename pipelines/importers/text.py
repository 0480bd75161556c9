"""CSV in blocks of whole lines, as bytes columns with line numbers; a broken line costs itself.

Values stay bytes until they are converted column by column, so that one line that is not UTF-8 or
not a number does not take its block with it.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pc_csv
from numpy.typing import NDArray

from uic.models.errors import BadInputError
from uic.pipelines.importers.source import Rejects, decompressed, readable
from uic.pipelines.log.events import Reason

_BLOCK_BYTES: Final = 1 << 24
_MAX_LINE_BYTES: Final = 1 << 26
# pandas writes whole numbers of a column with a null as 12.0.
_INTEGER: Final = re.compile(rb"(-?[0-9]{1,19})(?:\.0+)?")
# Stands for a delimiter of several characters, as Arrow takes one.
_UNIT_SEPARATOR: Final = "\x1f"
_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Lines:
    """A block of whole lines; `first` is the number of its first line, from 1."""

    data: bytes
    first: int
    done: int  # bytes of the file that were read


def line_blocks(path: Path, block_bytes: int = _BLOCK_BYTES) -> Iterator[Lines]:
    """The file in blocks of whole lines; compression is undone, a byte order mark left out.

    Raises:
        BadInputError: it cannot be read, or a line is longer than 64 MiB.
    """
    with readable(path):
        raw = path.open("rb")
    with raw:
        first, rest, started = 1, b"", False
        with readable(path):
            stream = decompressed(raw)
        with stream:
            while True:
                with readable(path):
                    chunk = stream.read(block_bytes)
                    done = raw.tell()
                data = rest + chunk
                if not started:
                    data = data.removeprefix(_BOM)
                    started = bool(data)
                end = len(data) if not chunk else data.rfind(b"\n") + 1
                if data[:end]:
                    yield Lines(data[:end], first, done)
                    first += data.count(b"\n", 0, end)
                rest = data[end:]
                if not chunk:
                    return
                if len(rest) > _MAX_LINE_BYTES:
                    msg = f"{path}: line {first} is longer than 64 MiB; is this a text file?"
                    raise BadInputError(msg)


@dataclass(frozen=True)
class TableRows:
    """Columns of a file, and the line of each row; `done` is how much was read.

    Of a text file they are bytes, of others what the file says.
    """

    columns: pa.Table
    lines: NDArray[np.int64]
    done: int


@dataclass(frozen=True)
class TextForm:
    """How a text file is written.

    Attributes:
        delimiter: between values; of several characters, values are not quoted.
        header: the first line names the columns.
        names: of the columns, if there is no header; else they are 1, 2, 3, …
    """

    delimiter: str = ","
    header: bool = True
    names: tuple[str, ...] = ()


def header_of(path: Path, form: TextForm) -> list[str]:
    """The names of the columns: those of the first line, those given, or their places from 1.

    Raises:
        BadInputError: the file is empty, or the line is not UTF-8, or has not as many values.
    """
    block = next(line_blocks(path, 1 << 16), None)
    if block is None:
        msg = f"{path}: is empty; expected a first line with column names"
        raise BadInputError(msg)
    line = block.data.split(b"\n", 1)[0].rstrip(b"\r")
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        msg = f"{path}: line 1 is not UTF-8 ({error.reason}); convert the file to UTF-8"
        raise BadInputError(msg) from error
    if len(form.delimiter) > 1:
        values = text.split(form.delimiter)
    else:
        values = next(csv.reader([text], delimiter=form.delimiter), [""])
    if form.header:
        return [value.strip() for value in values]
    if form.names and len(form.names) != len(values):
        msg = (
            f"{path}: line 1 has {len(values)} values, and --names gives {len(form.names)}: "
            f"{text[:80]!r}"
        )
        raise BadInputError(msg)
    return list(form.names) or [str(place) for place in range(1, len(values) + 1)]


def csv_rows(
    path: Path,
    names: Sequence[str],
    wanted: Sequence[str],
    rejects: Rejects,
    *,
    delimiter: str = ",",
    header: bool = False,
    quotes: bool = True,
    block_bytes: int = _BLOCK_BYTES,
) -> Iterator[TableRows]:
    """The `wanted` columns of a CSV file; lines with another number of values are rejected.

    Args:
        path: of the file, compressed or not.
        names: of all its columns.
        wanted: which of them to give.
        rejects: takes the broken lines.
        delimiter: between values; one of several characters makes `quotes` false.
        header: the first line holds names, not values.
        quotes: values may be in double quotes. A quoted value must not hold a line break.
        block_bytes: how much is read at once.
    """
    written = delimiter
    if len(written) > 1:
        delimiter, quotes = _UNIT_SEPARATOR, False
    for block in line_blocks(path, block_bytes):
        pending, lost = [_values_of(block, written, delimiter, header=header)], set[int]()
        while pending:
            data, first = pending.pop()
            if not data:
                continue
            data, undecodable = _without_undecodable(data, delimiter, len(names), quotes=quotes)
            for place, raw in undecodable.items():
                text = raw.decode(errors="backslashreplace").replace(delimiter, written)
                rejects.add(path, first + place, Reason.MALFORMED, text)
                lost.add(first + place)
            with readable(path):
                table, broken = _parsed(data, names, wanted, delimiter, quotes=quotes)
            dropped = np.array([row.number for row in broken], np.int64)
            numbers = np.setdiff1d(np.arange(1, table.num_rows + len(broken) + 1), dropped)
            for row in broken:
                line = first + row.number - 1
                if line in lost:
                    continue
                # An open quote swallows what follows: only its own line is broken.
                head, _, swallowed = row.text.partition("\n")
                rejects.add(path, line, Reason.MALFORMED, head.replace(delimiter, written))
                if swallowed:
                    pending.append((swallowed.encode(), line + 1))
            yield TableRows(table.combine_chunks(), numbers + first - 1, block.done)


def _values_of(block: Lines, written: str, delimiter: str, *, header: bool) -> tuple[bytes, int]:
    """The lines that hold values, with another delimiter, and the number of the first."""
    data = block.data
    if delimiter != written:
        data = data.replace(written.encode(), delimiter.encode())
    if header and block.first == 1:
        return data.partition(b"\n")[2], 2
    return data, block.first


def _parsed(
    data: bytes, names: Sequence[str], wanted: Sequence[str], delimiter: str, *, quotes: bool
) -> tuple[pa.Table, list[pc_csv.InvalidRow]]:
    """The wanted columns as bytes, and the rows with another number of values."""
    broken: list[pc_csv.InvalidRow] = []

    def skip(row: pc_csv.InvalidRow) -> str:
        broken.append(row)
        return "skip"

    table = pc_csv.read_csv(
        pa.BufferReader(data),
        read_options=pc_csv.ReadOptions(
            column_names=list(names), use_threads=False, block_size=len(data) + 1
        ),
        parse_options=pc_csv.ParseOptions(
            delimiter=delimiter,
            quote_char='"' if quotes else False,
            ignore_empty_lines=False,
            newlines_in_values=quotes,
            invalid_row_handler=skip,
        ),
        convert_options=pc_csv.ConvertOptions(
            column_types=dict.fromkeys(wanted, pa.binary()),
            include_columns=list(wanted),
            null_values=[],
            strings_can_be_null=False,
        ),
    )
    return table, broken


def _without_undecodable(
    data: bytes, delimiter: str, values: int, *, quotes: bool
) -> tuple[bytes, dict[int, bytes]]:
    """`data` with the lines that are not UTF-8 made broken ones, and these by place.

    pyarrow tells of a broken line in a string, and stops at bytes that are none. A line that has
    all its values, and no quote before it could swallow it, stays: its column at fault is found
    later.
    """
    try:
        data.decode()
    except UnicodeDecodeError:
        lines = data.split(b"\n")
    else:
        return data, {}
    plain = not quotes or b'"' not in data
    undecodable: dict[int, bytes] = {}
    for place, line in enumerate(lines):
        whole = plain and line.count(delimiter.encode()) == values - 1
        if not whole and _decoded(line) is None:
            undecodable[place], lines[place] = line, b"?"
    return b"\n".join(lines), undecodable


def integers(column: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Bytes as int64, and which are none (they come out as 0); shapes (rows,)."""
    try:
        text = column.cast(pa.string())
        if pc.all(pc.utf8_is_decimal(text)).as_py() is not False:
            return text.cast(pa.int64()).to_numpy(), np.zeros(len(column), bool)
    except pa.ArrowInvalid:
        pass  # some value is not UTF-8, or too large: find out which
    values = np.zeros(len(column), np.int64)
    bad = np.zeros(len(column), bool)
    for row, raw in enumerate(column.to_pylist()):
        match = _INTEGER.fullmatch(raw)
        number = int(match[1]) if match else None
        if number is None or not -(2**63) <= number < 2**63:
            bad[row] = True
        else:
            values[row] = number
    return values, bad


def texts(column: pa.Array) -> tuple[pa.Array, NDArray[np.bool_]]:
    """Bytes as strings, and which are not UTF-8 (they come out empty)."""
    try:
        return column.cast(pa.string()), np.zeros(len(column), bool)
    except pa.ArrowInvalid:
        decoded = [_decoded(raw) for raw in column.to_pylist()]
        bad = np.array([text is None for text in decoded])
        return pa.array([text or "" for text in decoded], pa.string()), bad


def _decoded(raw: bytes) -> str | None:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None
