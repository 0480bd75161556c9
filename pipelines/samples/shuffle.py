"""How tables travel through a shuffle: split by user bucket in one sort, as compacted IPC bytes.

A slice of a table drags its whole parent along when it is pickled, and rows as Python objects cost
more than all the work on them. So an element is the Arrow IPC stream of one bucket's rows.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from uic.models.hashing import stable_hash
from uic.pipelines.samples.order import column

# Another seed than the log's partitions have, or a bucket would hold only some partitions.
BUCKET_SEED = 7


def split_by_bucket(table: pa.Table, buckets: int) -> Iterator[tuple[int, bytes]]:
    """The rows of a table by bucket of their `user_id`, in their order, as `to_ipc` of each part.

    Buckets without rows are left out.
    """
    if buckets == 1:
        if table.num_rows:
            yield 0, to_ipc(table)
        return
    hashed = stable_hash(column(table, "user_id"), BUCKET_SEED) % np.uint64(buckets)
    # 16 bits are sorted by radix, five times faster than 64.
    of_row = hashed.astype(np.uint16 if buckets <= 1 << 16 else np.int64)
    order = np.argsort(of_row, kind="stable")
    counts = np.bincount(of_row, minlength=buckets)
    ends = np.cumsum(counts)
    in_order = table.take(pa.array(order)).combine_chunks()
    for bucket in np.flatnonzero(counts).tolist():
        yield bucket, to_ipc(in_order.slice(ends[bucket] - counts[bucket], counts[bucket]))


def to_ipc(table: pa.Table) -> bytes:
    """A table as an Arrow IPC stream; of a slice only its own rows are written."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(memoryview(sink.getvalue()))


def from_ipc(parts: Iterable[bytes], schema: pa.Schema) -> pa.Table:
    """The tables of `to_ipc` as one table with one chunk a column, in the order of `parts`."""
    tables = [pa.ipc.open_stream(part).read_all() for part in parts]
    return pa.concat_tables([schema.empty_table(), *tables]).combine_chunks()
