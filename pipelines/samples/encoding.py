"""How samples are encoded in Parquet.

Measured on groups with 80 events each: delta encoding of ids and times with LZ4 takes half the
time and two thirds of the bytes of pyarrow's default (dictionary and Snappy), and reads back four
times as fast. A dictionary does not pay for ids that are nearly all different, and statistics of
list values cannot prune a group.
"""

from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from uic.models.samples.schema import SAMPLES

_DELTA: Final = "DELTA_BINARY_PACKED"


def parquet_options(schema: pa.Schema) -> dict[str, Any]:
    """Arguments of `pq.ParquetWriter` for a table of `schema`."""
    encodings = {}
    for field in schema:
        if field.name not in SAMPLES.names:
            continue  # features: of any type, and often the same a whole list long
        nested = pa.types.is_list(field.type)
        if not pa.types.is_boolean(field.type.value_type if nested else field.type):
            encodings[f"{field.name}.list.element" if nested else field.name] = _DELTA
    return {
        "use_dictionary": False,
        "column_encoding": encodings,
        "compression": "lz4",
        "write_statistics": [name for name in schema.names if name in {"user_id", "dt"}],
    }


def parquet_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """A writer of samples; each table that it is given becomes a row group."""
    return pq.ParquetWriter(path, schema, **parquet_options(schema))


def encoded_bytes(table: pa.Table) -> int:
    """Bytes of a table's columns in Parquet, without the footer."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **parquet_options(table.schema))
    footer = pq.read_metadata(pa.BufferReader(sink.getvalue()))
    return sum(
        footer.row_group(group).column(at).total_compressed_size
        for group in range(footer.num_row_groups)
        for at in range(footer.num_columns)
    )
