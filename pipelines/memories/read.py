"""The two inputs of a build as Arrow tables: parts of the log, and files of a snapshot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from uic.models.errors import ManifestError
from uic.models.features.event_columns import EventColumn
from uic.models.published import sha256_of
from uic.pipelines.log.columns import readable, with_columns
from uic.pipelines.log.positions import at_or_before
from uic.pipelines.log.schemas import BEHAVIOR_EVENTS
from uic.pipelines.memories.exclude import Exclusion
from uic.pipelines.samples.log_parts import Part, read_columns, runs_of_positions, with_codes

_REQUIRED: Final = tuple(field.name for field in BEHAVIOR_EVENTS if not field.nullable)
# What travels through the shuffle: 61 bytes an event.
EVENT_COLUMNS: Final = pa.schema(
    [
        pa.field("user_id", pa.int64()),
        pa.field("item_id", pa.int64()),
        pa.field("category_id", pa.int64()),
        pa.field("behavior", pa.int8()),
        pa.field("event_time", pa.int64()),
        pa.field("log_time", pa.int64()),
        pa.field("epoch", pa.int32()),
        pa.field("partition", pa.int32()),
        pa.field("offset", pa.int64()),
    ]
)
MEMORY_COLUMNS: Final = pa.schema(
    [pa.field("user_id", pa.int64()), pa.field("memory", pa.large_binary())]
)
_MILLISECONDS: Final = pa.timestamp("ms")
Covered = Mapping[int, Mapping[int, int]]


@dataclass(frozen=True)
class PartFacts:
    """What a part of the log held.

    Attributes:
        rows: all of them.
        new: those after the snapshot's positions.
        excluded: new ones that the generation leaves out, or that its bundle cannot read.
        positions: (epoch, partition, first new offset, last new offset), excluded ones included.
        log_times: (epoch, partition, largest log time of a new event in milliseconds).
    """

    rows: int
    new: int
    excluded: int
    positions: tuple[tuple[int, int, int, int], ...]
    log_times: tuple[tuple[int, int, int], ...] = ()


def event_schema(columns: Sequence[EventColumn]) -> pa.Schema:
    """`EVENT_COLUMNS` with the columns of events that a bundle reads; these have no nulls."""
    return with_columns(EVENT_COLUMNS, columns)


def read_events(
    part: Part,
    covered: Covered,
    exclusion: Exclusion,
    columns: Sequence[EventColumn] = (),
    again_from_ms: int | None = None,
) -> tuple[pa.Table, PartFacts]:
    """The events of a part that a build has to fold, as `event_schema`.

    Args:
        part: row groups of the log.
        covered: positions that the snapshot has folded; events at or before them are left out.
        exclusion: of the generation.
        columns: that the bundle reads; an event with a value of the wrong type in one is left out,
            as the stream refuses it.
        again_from_ms: log time from which covered events are wanted, too; None for none.

    Raises:
        LogFileError: a page is damaged, a value is null, or a behaviour is unknown.
    """
    names = [*_REQUIRED, "source"] if exclusion.needs_sources else list(_REQUIRED)
    names += [column.logged for column in columns]
    tables = [with_codes(read_columns(piece, names), piece.path) for piece in part]
    table = pa.concat_tables(tables, promote_options="default").combine_chunks()
    epochs, partitions, offsets = (
        table.column(name).to_numpy() for name in ("epoch", "partition", "offset")
    )
    old = at_or_before(epochs, partitions, offsets, covered)
    if again_from_ms is not None:
        old &= (
            table.column("log_time").cast(_MILLISECONDS).cast(pa.int64()).to_numpy() < again_from_ms
        )
    fresh = table.filter(pa.array(~old)) if old.any() else table
    sources = np.empty(0, dtype=object)
    if exclusion.needs_sources:
        named = "source" in fresh.column_names
        values = fresh.column("source").to_pylist() if named else [None] * fresh.num_rows
        sources = np.array(values, dtype=object)
    users = fresh.column("user_id").to_numpy()
    times = fresh.column("log_time").cast(_MILLISECONDS).cast(pa.int64())
    log_times = times.to_numpy()
    fresh, refused = readable(columns, fresh)
    left_out = exclusion.covers(users, log_times, sources) | refused
    runs = tuple(runs_of_positions(fresh))
    facts = PartFacts(
        table.num_rows, fresh.num_rows, int(left_out.sum()), runs, _largest(fresh, times)
    )
    remaining = fresh.filter(pa.array(~left_out)) if left_out.any() else fresh
    for name in ("event_time", "log_time"):
        at = remaining.column_names.index(name)
        remaining = remaining.set_column(at, name, remaining.column(at).cast(_MILLISECONDS))
    schema = event_schema(columns)
    return remaining.select(schema.names).cast(schema), facts


def _largest(events: pa.Table, times: pa.ChunkedArray) -> tuple[tuple[int, int, int], ...]:
    """The largest log time of each epoch and partition."""
    table = events.select(["epoch", "partition"]).append_column("ms", times)
    largest = table.group_by(["epoch", "partition"]).aggregate([("ms", "max")])
    columns = (largest.column(name).to_pylist() for name in ("epoch", "partition", "ms_max"))
    return tuple(zip(*columns, strict=True))


def read_memories(path: Path, sha256: str) -> pa.Table:
    """The rows of a snapshot's file as `MEMORY_COLUMNS`.

    Raises:
        ManifestError: the file is not what its manifest says.
    """
    if sha256_of(path) != sha256:
        msg = f"{path}: its bytes are not those of its manifest; build this snapshot again"
        raise ManifestError(msg)
    return pq.read_table(path, columns=MEMORY_COLUMNS.names).cast(MEMORY_COLUMNS)
