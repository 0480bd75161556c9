"""Parquet in batches, its columns checked before the first row is read."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from uic.models.errors import BadInputError
from uic.pipelines.importers.source import BATCH_ROWS, readable

TypeCheck = Callable[[pa.DataType], bool]


def is_integer_list(kind: pa.DataType) -> bool:
    """Whether a type is a list of integers."""
    return bool(pa.types.is_list(kind) and pa.types.is_integer(kind.value_type))


def is_any(_kind: pa.DataType) -> bool:
    """Any type will do here; the importer looks at it itself."""
    return True


_WORDS: Final[Mapping[TypeCheck, str]] = {
    pa.types.is_integer: "an integer",
    pa.types.is_string: "a string",
    pa.types.is_date: "a date",
    is_integer_list: "a list of integers",
}


def open_parquet(path: Path, columns: Mapping[str, TypeCheck]) -> pq.ParquetFile:
    """Open a file that has at least these columns.

    Args:
        path: of the file.
        columns: name and what its type has to be, a predicate of `pyarrow.types`.

    Raises:
        BadInputError: not Parquet, truncated, empty, a column missing or of another type.
    """
    with readable(path):
        file = pq.ParquetFile(path)
    schema = file.schema_arrow
    for name, check in columns.items():
        if schema.names.count(name) != 1:
            fault = "there twice" if name in schema.names else "missing"
            msg = f"{path}: column {name} is {fault}; found {', '.join(schema.names)}"
            raise BadInputError(msg)
        kind = schema.field(name).type
        if not check(kind):
            msg = f"{path}: column {name} is {kind}, expected {_WORDS[check]}"
            raise BadInputError(msg)
    if not file.metadata.num_rows:
        msg = f"{path}: has no rows; nothing to import"
        raise BadInputError(msg)
    return file


def batches(path: Path, file: pq.ParquetFile, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """The columns in file order.

    Raises:
        BadInputError: a page is damaged.
    """
    rows = file.iter_batches(BATCH_ROWS, columns=columns)
    while True:
        with readable(path):
            batch = next(rows, None)
        if batch is None:
            return
        yield batch
