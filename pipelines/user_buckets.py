"""The Beam pipeline of samples and of memories: from parts of two tables to what each bucket gives.

1. A part is read, and its rows are split by bucket of their user, in one sort.
2. Rows travel once, as compacted IPC bytes keyed by bucket: a slice of a table drags its whole
   parent along when it is pickled, and rows as Python objects cost more than all the work on them.
3. A bucket's tables are put together, in any order of their parts, and built.

How a part is read and what becomes of a bucket are functions from outside, so the transform itself
does no IO.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.pvalue import TaggedOutput

from uic.models.hashing import stable_hash
from uic.pipelines.overlapped import OverlappedMap

# Another seed than the log's partitions have, or a bucket would hold only some partitions.
_BUCKET_SEED: Final = 7
_FACTS: Final = "facts"

Read = Callable[[Any], tuple[pa.Table, Any]]
Build = Callable[[int, Mapping[str, pa.Table]], Any]


@dataclass(frozen=True)
class BucketInput:
    """One table that buckets are made of.

    Args:
        parts: what there is to read.
        read: part -> (table of `schema`, what to say of the part; None for nothing).
        schema: with a column `user_id`.
    """

    parts: Sequence[Any]
    read: Read
    schema: pa.Schema


class UserBuckets(beam.PTransform):  # type: ignore[misc]  # Beam has no types
    """The inputs by bucket of users -> {`buckets`: what was built, `read`: what parts held}.

    Args:
        inputs: by the name of the table.
        buckets: of users; one must fit memory.
        build: (bucket, its tables by name) -> output; runs where the tables are. Called for every
            bucket that has rows, maybe more than once.
    """

    def __init__(self, inputs: Mapping[str, BucketInput], buckets: int, build: Build) -> None:
        super().__init__()
        self._inputs, self._buckets, self._build = inputs, buckets, build

    def expand(self, begin: Any) -> Any:
        """Beam's hook: the named steps."""
        rows, facts = {}, []
        for name, table in self._inputs.items():
            split = (
                begin.pipeline
                | name.title() >> beam.Create(table.parts, reshuffle=False)
                | f"Spread{name.title()}" >> beam.Reshuffle()
                | f"Split{name.title()}"
                >> beam.ParDo(
                    OverlappedMap(partial(_split, table.read, self._buckets))
                ).with_outputs(_FACTS, main="rows")
            )
            rows[name] = split.rows | f"Keyed{name.title()}" >> beam.Map(_as_is).with_output_types(
                tuple[int, bytes]
            )
            facts.append(split[_FACTS])
        schemas = {name: table.schema for name, table in self._inputs.items()}
        built = (
            rows
            | "ByBucket" >> beam.CoGroupByKey()
            | "Build" >> beam.ParDo(OverlappedMap(partial(_built, schemas, self._build)))
        )
        return {"buckets": built, "read": facts | "Read" >> beam.Flatten()}


def _as_is(element: tuple[int, bytes]) -> tuple[int, bytes]:
    return element


def _split(read: Read, buckets: int, part: Any) -> list[Any]:
    table, facts = read(part)
    tagged = [] if facts is None else [TaggedOutput(_FACTS, facts)]
    return [*tagged, *split_by_bucket(table, buckets)]


def _built(
    schemas: Mapping[str, pa.Schema], build: Build, element: tuple[int, dict[str, Iterable[bytes]]]
) -> list[Any]:
    bucket, parts = element
    return [build(bucket, {name: from_ipc(parts[name], schemas[name]) for name in schemas})]


def split_by_bucket(table: pa.Table, buckets: int) -> Iterator[tuple[int, bytes]]:
    """The rows of a table by bucket of their `user_id`, in their order, as `to_ipc` of each part.

    Buckets without rows are left out.
    """
    if buckets == 1:
        if table.num_rows:
            yield 0, to_ipc(table)
        return
    hashed = stable_hash(table.column("user_id").to_numpy(), _BUCKET_SEED) % np.uint64(buckets)
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
