"""Tables of any form: which form a file has, by its first bytes, and its wanted columns in batches.

A typed table (Parquet, Arrow, JSON Lines) says what its values are; a text table gives bytes, which
become what they are asked to be, column by column.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from uic.models.errors import BadInputError
from uic.pipelines.importers.columns_found import ColumnKinds, refuse_missing
from uic.pipelines.importers.formats import check_header, refuse_what_is_no_text
from uic.pipelines.importers.input_files import InputFile
from uic.pipelines.importers.json_lines import JsonTable
from uic.pipelines.importers.source import BATCH_ROWS, Rejects, decompressed, readable
from uic.pipelines.importers.text import TableRows, TextForm, csv_rows, header_of

# A column of this beginning is the same text in each row.
CONSTANT: Final = "="
_PARQUET: Final = b"PAR1"
_ARROW: Final = b"ARROW1"
_ARROW_STREAM: Final = b"\xff\xff\xff\xff"
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class TableFile(Protocol):
    """One file.

    Attributes:
        path: of the file.
        typed: whether columns have types; else they are bytes.
        declared: whether the file says the types before its rows, for all of them.
        total: what `TableRows.done` grows to.
        names: of all its columns, those of nested fields as `outer.inner`.
    """

    path: Path
    names: list[str]
    typed: bool
    declared: bool
    total: int

    def rows(self, rejects: Rejects) -> Iterator[TableRows]:
        """The wanted columns in file order."""


class CsvTable:
    """A text file of values between delimiters.

    Raises:
        BadInputError: it is empty or no UTF-8, or a column is not there.
    """

    typed = declared = False

    def __init__(self, path: Path, wanted: Sequence[str], form: TextForm) -> None:
        self.path, self._wanted, self._form = path, list(wanted), form
        self.total = path.stat().st_size
        self.names = header_of(path, form)
        first = header_of(path, replace(form, header=True))
        check_header(path, self.names, wanted, first, header=form.header)

    def rows(self, rejects: Rejects) -> Iterator[TableRows]:
        """Lines with another number of values are rejected."""
        return csv_rows(
            self.path,
            self.names,
            self._wanted,
            rejects,
            delimiter=self._form.delimiter,
            header=self._form.header,
        )


class ArrowTable:
    """A Parquet or Arrow (Feather) file.

    Raises:
        BadInputError: it cannot be read, or a column is not there.
    """

    typed = declared = True

    def __init__(self, path: Path, wanted: Sequence[str], head: bytes) -> None:
        self.path, self._wanted, self._head = path, list(wanted), head
        with readable(path):
            if head.startswith(_PARQUET):
                file = pq.ParquetFile(path)
                schema, self.total = file.schema_arrow, file.metadata.num_rows
            else:
                reader = self._arrow()
                # A stream does not say what will come; its progress is only that of its rows.
                size = path.stat().st_size
                schema, self.total = reader.schema, getattr(reader, "num_record_batches", size)
        self.names = list(_field_names(schema))
        refuse_missing(path, self.names, wanted)

    def rows(self, rejects: Rejects) -> Iterator[TableRows]:  # noqa: ARG002
        """Rows in file order; the line of a row is its number."""
        first = 1
        batches = self._batches()
        while True:
            with readable(self.path):
                done, batch = next(batches, (0, None))
            if batch is None:
                return
            lines = np.arange(first, first + batch.num_rows)
            first += batch.num_rows
            columns = {name: _nested(batch, name) for name in self._wanted}
            yield TableRows(pa.table(columns), lines, done)

    def _batches(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Batches, and how much of `total` has been read with each."""
        done = 0
        if self._head.startswith(_PARQUET):
            # Names with a dot choose a field below a column, which is all that is read of it.
            file = pq.ParquetFile(self.path)
            for batch in file.iter_batches(BATCH_ROWS, columns=self._wanted):
                done += batch.num_rows
                yield done, batch
            return
        reader = self._arrow()
        if isinstance(reader, pa.RecordBatchStreamReader):
            for batch in reader:
                done += batch.num_rows
                yield done, batch
            return
        for at in range(reader.num_record_batches):
            yield at + 1, reader.get_batch(at)

    def _arrow(self) -> Any:
        source = pa.memory_map(str(self.path))
        stream = self._head.startswith(_ARROW_STREAM)
        return pa.ipc.open_stream(source) if stream else pa.ipc.open_file(source)


class _Joined:
    """A table with the columns that its folders say, and constants, beside its own."""

    def __init__(self, table: TableFile, added: Mapping[str, pa.Scalar]) -> None:
        self._table, self._added = table, added
        self.path, self.total, self.names = table.path, table.total, table.names
        self.typed, self.declared = table.typed, table.declared

    def rows(self, rejects: Rejects) -> Iterator[TableRows]:
        for rows in self._table.rows(rejects):
            columns = rows.columns
            for name, value in self._added.items():
                columns = columns.append_column(name, pa.repeat(value, columns.num_rows))
            yield TableRows(columns, rows.lines, rows.done)


def open_tables(
    files: Sequence[InputFile], wanted: Sequence[str], form: TextForm
) -> list[TableFile]:
    """The tables of an import.

    Args:
        files: where they are.
        wanted: columns to give; `=text` is a constant, and a key of the files' folders a column.
        form: how text files are written.

    Raises:
        BadInputError: a file is of no known form, or of another than the first, or a column is not
            there, or none has a row.
    """
    values = {
        key: [file.partition[key] for file in files] for key in files[0].partition if key in wanted
    }
    values |= {name: [name[1:]] * len(files) for name in wanted if name.startswith(CONSTANT)}
    own = [name for name in wanted if name not in values]
    tables: list[TableFile] = []
    for at, file in enumerate(files):
        table = _open(file.path, own, form)
        if table.typed != tables[0].typed if tables else False:
            kinds = ["text", "typed"]
            msg = (
                f"{file.path}: is a {kinds[table.typed]} file, and {tables[0].path} is a "
                f"{kinds[tables[0].typed]} one; import them one by one"
            )
            raise BadInputError(msg)
        added = {
            name: _scalar(column[at], column, typed=table.typed) for name, column in values.items()
        }
        tables.append(_Joined(table, added) if added else table)
    if not any(table.total for table in tables):
        msg = f"{files[0].path}: has no rows; nothing to import"
        raise BadInputError(msg)
    return tables


def _open(path: Path, wanted: Sequence[str], form: TextForm) -> TableFile:
    with readable(path), path.open("rb") as raw:
        head = raw.read(8)
        raw.seek(0)
        with decompressed(raw) as stream:
            text = stream.read(64)
    if head.startswith((_PARQUET, _ARROW, _ARROW_STREAM)):
        return ArrowTable(path, wanted, head)
    refuse_what_is_no_text(path, text)
    first = text.removeprefix(_BYTE_ORDER_MARK).lstrip()[:1]
    if first in (b"{", b"["):
        return JsonTable(path, wanted)
    return CsvTable(path, wanted, form)


def _scalar(value: str | None, all_values: Sequence[str | None], *, typed: bool) -> pa.Scalar:
    """A folder's value: bytes in a text table, else a whole number if all are such, else a text."""
    if not typed:
        return pa.scalar((value or "").encode(), pa.binary())
    known = [one for one in all_values if one is not None]
    whole = all(one.isdecimal() and len(one) < 19 and str(int(one)) == one for one in known)
    if whole and known:
        return pa.scalar(None if value is None else int(value), pa.int64())
    return pa.scalar(value, pa.string())


def _field_names(fields: Any, outer: str = "") -> Iterator[str]:
    for field in fields:
        yield f"{outer}{field.name}"
        if pa.types.is_struct(field.type):
            inner = [field.type.field(at) for at in range(field.type.num_fields)]
            yield from _field_names(inner, f"{outer}{field.name}.")


def _nested(batch: pa.RecordBatch, name: str) -> pa.Array:
    if name in batch.schema.names:
        return batch.column(name)
    outer, *path = name.split(".")
    return pc.struct_field(batch.column(outer), path)


def check_kinds(kinds: ColumnKinds, path: Path, rows: TableRows) -> None:
    """Whether the columns of a typed table hold what they held before.

    Raises:
        BadInputError: one does not.
    """
    columns = {
        name: rows.columns.column(name).combine_chunks() for name in rows.columns.schema.names
    }
    kinds.check(path, columns, rows.lines)


__all__ = ["ArrowTable", "CsvTable", "TableFile", "check_kinds", "open_tables"]
