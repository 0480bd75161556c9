"""One Parquet file of the log: how it is written, and its line in the manifest."""

from datetime import date
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import pyarrow as pa
import pyarrow.parquet as pq

from uic.models.errors import BadInputError
from uic.models.published import file_entry
from uic.pipelines.log.catalog import ITEMS, ItemCatalog

# A reader that wants a day or a user range skips by row group; 128k rows decode to about 8 MB.
ROW_GROUP_ROWS: Final = 1 << 17
# Repetitive columns. Ids of users and items repeat too little to pay for a dictionary, times and
# offsets hardly at all.
_DICTIONARY_COLUMNS: Final = ("behavior", "epoch", "partition", "source", "category_id")


class DayFile:
    """One file of a day; a context manager that closes it.

    Args:
        root: of the log.
        path: of the file, under `root`.
        table: behaviors or impressions.
        dt: the day.
    """

    def __init__(self, root: Path, path: Path, table: str, dt: date) -> None:
        self._root, self._path, self._table, self._dt = root, path, table, dt
        self._writer: pq.ParquetWriter | None = None
        self.rows = 0

    def __enter__(self) -> Self:
        """Nothing is on disk before the first rows."""
        return self

    def write(self, table: pa.Table) -> None:
        """Append ordered rows."""
        if not table.num_rows:
            return
        if self._writer is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = open_writer(self._path, table.schema)
        self._writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
        self.rows += table.num_rows

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it; publishing brings it to disk."""
        if self._writer is not None:
            self._writer.close()

    def entry(self) -> dict[str, Any]:
        """The manifest's line."""
        entry = self.entry_of(self._root, self._path, self._table, self.rows)
        return {**entry, "dt": self._dt.isoformat()}

    @staticmethod
    def entry_of(root: Path, path: Path, table: str, rows: int) -> dict[str, Any]:
        """The manifest's line of any file: path, rows, bytes, sha256 and `table`."""
        return {**file_entry(root, path, rows), "table": table}


def open_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """A Parquet writer with the log's encodings."""
    dictionary = [name for name in schema.names if name in _DICTIONARY_COLUMNS]
    return pq.ParquetWriter(
        path, schema, compression="zstd", compression_level=1, use_dictionary=dictionary
    )


def write_item_table(
    root: Path, path: Path, items: ItemCatalog, older: Path | None
) -> dict[str, Any]:
    """Write the catalog with the older one's items; returns the manifest's line."""
    try:
        known = pq.read_table(older, schema=ITEMS) if older else None
    except (pa.ArrowException, OSError) as error:
        msg = f"{older}: cannot be read as Parquet ({error}); restore it from a backup"
        raise BadInputError(msg) from error
    table = items.table(known)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd", row_group_size=ROW_GROUP_ROWS)
    return DayFile.entry_of(root, path, "items", table.num_rows)
