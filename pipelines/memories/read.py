"""The two inputs of a build as Arrow tables: parts of the log, and files of a snapshot."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from uic.models.errors import ManifestError
from uic.models.published import sha256_of
from uic.pipelines.log.schemas import BEHAVIORS
from uic.pipelines.memories.exclude import Exclusion
from uic.pipelines.samples.log_parts import LogFileError, Part

_REQUIRED: Final = (
    "user_id",
    "item_id",
    "category_id",
    "behavior",
    "event_time",
    "log_time",
    "epoch",
    "partition",
    "offset",
)
# What travels through the shuffle: 53 bytes an event.
EVENT_COLUMNS: Final = pa.schema(
    [
        pa.field("user_id", pa.int64()),
        pa.field("item_id", pa.int64()),
        pa.field("category_id", pa.int64()),
        pa.field("behavior", pa.int8()),
        pa.field("event_time", pa.int64()),
        pa.field("epoch", pa.int32()),
        pa.field("partition", pa.int32()),
        pa.field("offset", pa.int64()),
    ]
)
MEMORY_COLUMNS: Final = pa.schema(
    [pa.field("user_id", pa.int64()), pa.field("memory", pa.large_binary())]
)
Covered = Mapping[int, Mapping[int, int]]


@dataclass(frozen=True)
class PartFacts:
    """What a part of the log held.

    Attributes:
        rows: all of them.
        new: those after the snapshot's positions.
        excluded: new ones that the generation leaves out.
        positions: (epoch, partition, first new offset, last new offset), excluded ones included.
    """

    rows: int
    new: int
    excluded: int
    positions: tuple[tuple[int, int, int, int], ...]


def read_events(part: Part, covered: Covered, exclusion: Exclusion) -> tuple[pa.Table, PartFacts]:
    """The events of a part that a build has to fold, as `EVENT_COLUMNS`.

    Args:
        part: row groups of the log.
        covered: positions that the snapshot has folded; events at or before them are left out.
        exclusion: of the generation.

    Raises:
        LogFileError: a page is damaged, a value is null, or a behaviour is unknown.
    """
    names = [*_REQUIRED, "source"] if exclusion.needs_sources else list(_REQUIRED)
    table = pa.concat_tables([_read(piece.path, piece.groups, names) for piece in part])
    table = table.combine_chunks()
    new = _after(table, covered)
    fresh = table if new.all() else table.filter(pa.array(new))
    sources = (
        np.array(fresh.column("source").to_pylist(), dtype=object)
        if exclusion.needs_sources
        else np.empty(0, dtype=object)
    )
    users = fresh.column("user_id").to_numpy()
    log_times = fresh.column("log_time").cast(pa.int64()).to_numpy()
    left_out = exclusion.covers(users, log_times, sources)
    facts = PartFacts(table.num_rows, fresh.num_rows, int(left_out.sum()), _positions(fresh))
    kept = fresh.filter(pa.array(~left_out)) if left_out.any() else fresh
    return kept.select(EVENT_COLUMNS.names).cast(EVENT_COLUMNS), facts


def read_memories(path: Path, sha256: str) -> pa.Table:
    """The rows of a snapshot's file as `MEMORY_COLUMNS`.

    Raises:
        ManifestError: the file is not what its manifest says.
    """
    if sha256_of(path) != sha256:
        msg = f"{path}: its bytes are not those of its manifest; build this snapshot again"
        raise ManifestError(msg)
    return pq.read_table(path, columns=MEMORY_COLUMNS.names).cast(MEMORY_COLUMNS)


def _read(path: Path, groups: tuple[int, ...], names: list[str]) -> pa.Table:
    try:
        with pq.ParquetFile(path) as opened:
            present = [name for name in names if name in opened.schema_arrow.names]
            table = opened.read_row_groups(list(groups), columns=present)
    except (OSError, pa.ArrowInvalid) as error:
        reason = " ".join(str(error).split())
        msg = f"{path}: not a readable Parquet file ({reason}); import this day again"
        raise LogFileError(msg) from error
    for name in _REQUIRED:
        if table.column(name).null_count:
            msg = f"{path}: column {name}: {table.column(name).null_count} nulls; import again"
            raise LogFileError(msg)
    if "source" in names and "source" not in table.column_names:
        table = table.append_column("source", pa.nulls(table.num_rows, pa.string()))
    return _with_codes(table, path)


def _with_codes(table: pa.Table, path: Path) -> pa.Table:
    """The column `behavior` as int8 codes, and times as milliseconds."""
    text = table.column("behavior").cast(pa.string())
    codes = pc.index_in(text, value_set=pa.array(BEHAVIORS))
    if codes.null_count:
        unknown = text.filter(pc.is_null(codes))[0].as_py()
        msg = f"{path}: column behavior: found {unknown!r}, expected one of {BEHAVIORS}"
        raise LogFileError(msg)
    table = table.set_column(
        table.column_names.index("behavior"), "behavior", codes.cast(pa.int8())
    )
    for name in ("event_time", "log_time"):
        at = table.column_names.index(name)
        milliseconds = table.column(name).cast(pa.timestamp("ms")).cast(pa.int64())
        table = table.set_column(at, name, milliseconds)
    return table


def _after(table: pa.Table, covered: Covered) -> NDArray[np.bool_]:
    """Which rows lie after the covered positions of their partition."""
    new = np.ones(table.num_rows, dtype=np.bool_)
    if not covered:
        return new
    epochs = table.column("epoch").to_numpy()
    partitions = table.column("partition").to_numpy()
    offsets = table.column("offset").to_numpy()
    for epoch, of_epoch in covered.items():
        for partition, last in of_epoch.items():
            here = (epochs == epoch) & (partitions == partition)
            new &= ~(here & (offsets <= last))
    return new


def _positions(table: pa.Table) -> tuple[tuple[int, int, int, int], ...]:
    """(epoch, partition, first offset, last offset) of the rows."""
    if not table.num_rows:
        return ()
    keys = ["epoch", "partition"]
    grouped = table.select([*keys, "offset"]).group_by(keys)
    bounds: Any = grouped.aggregate([("offset", "min"), ("offset", "max")]).to_pylist()
    return tuple(
        sorted(
            (row["epoch"], row["partition"], row["offset_min"], row["offset_max"]) for row in bounds
        )
    )
