"""One Parquet file of the log: how it is written, and its line in the manifest."""

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

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


def write_rows(path: Path, tables: Iterable[pa.Table]) -> int:
    """Write ordered rows as one file; how many. Without any, nothing is on disk."""
    rows = 0
    with ExitStack() as stack:
        writer = None
        for table in tables:
            if not table.num_rows:
                continue
            if writer is None:
                path.parent.mkdir(parents=True, exist_ok=True)
                writer = stack.enter_context(open_writer(path, table.schema))
            writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
            rows += table.num_rows
    return rows


def table_entry(root: Path, path: Path, table: str, rows: int) -> dict[str, Any]:
    """The manifest's line of a file of a table: path, rows, bytes, sha256 and `table`."""
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
    return table_entry(root, path, "items", table.num_rows)
