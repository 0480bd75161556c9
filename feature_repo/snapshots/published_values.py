"""Packed values of one generation in Parquet, published as a directory and loaded into the store.

A row is an id, a time that is the same for all rows, and a value as the store holds it. Feast
selects by that time, and would drop users who were quiet if it were the time of their last event.

Loading, in bulk:

1. Register the generation as `loading`, its markers at the directory's positions.
2. Write the rows. What is in the store at a larger position stays, so a load can be repeated,
   interrupted, and run beside a stream job or `feast materialize`.
3. Hold the store against the directory: every id must be there. Then it is `ready`.

A later snapshot of a generation that is ready already moves its markers on
(`uic.feature_repo.store.later_snapshot`).
"""

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from uic.feature_repo.store.generations import Generation, Generations
from uic.feature_repo.store.later_snapshot import move_on
from uic.feature_repo.store.packed import PackedStore
from uic.models.published import MANIFEST_NAME, read_manifest, sync_directory
from uic.models.records.record import RecordFormatError, Records

CURRENT: Final = "current"
LIVE: Final = "live"
_LOADED_ROWS: Final = 20_000


@dataclass(frozen=True)
class PublishedValues(ABC):
    """A published directory of values."""

    KIND: ClassVar[str]
    SCHEMA_VERSION: ClassVar[int]
    SCHEMA: ClassVar[pa.Schema]  # id, `event_timestamp`, value

    path: Path
    manifest: Mapping[str, Any]

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read the manifest of a folder.

        Raises:
            ManifestError: it was never published, or its files do not fit.
        """
        return cls(path, read_manifest(path, cls.KIND, cls.SCHEMA_VERSION))

    @property
    def rows(self) -> int:
        """Users or items."""
        return int(self.manifest["rows"])

    @property
    def bundle(self) -> bytes:
        """First 8 bytes of the hash of the bundle that made the values."""
        return bytes.fromhex(self.manifest["bundle_hash8"])

    @property
    @abstractmethod
    def value_bytes(self) -> int:
        """Width of a value."""

    @abstractmethod
    def as_generation(self) -> Generation:
        """What the store has to know before it loads these values."""

    @abstractmethod
    def check(self, values: Records, path: Path) -> None:
        """Refuse values of a file that are not what the manifest says.

        Raises:
            UicError: they are of another layout, generation or bundle.
        """

    def batches(self) -> Iterator[tuple[NDArray[np.int64], Records]]:
        """Ids (n,) and values (n, value_bytes), in order of id.

        Raises:
            RecordFormatError: a value has another width.
            UicError: a value is not of this layout, generation and bundle.
        """
        id_name, _, value_name = self.SCHEMA.names
        for entry in self.manifest["files"]:
            path = self.path / entry["path"]
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(_LOADED_ROWS, columns=[id_name, value_name]):
                    values = values_of(batch.column(value_name), self.value_bytes, str(path))
                    self.check(values, path)
                    yield batch.column(id_name).to_numpy(), values

    def remove(self) -> None:
        """Delete the directory, its manifest first: what is half removed is not published."""
        (self.path / MANIFEST_NAME).unlink()
        shutil.rmtree(self.path)

    def ids(self) -> NDArray[np.int64]:
        """Every user or item, ascending."""
        name = self.SCHEMA.names[0]
        columns = [
            pq.read_table(self.path / entry["path"], columns=[name]).column(0).to_numpy()
            for entry in self.manifest["files"]
        ]
        return np.sort(np.concatenate([np.zeros(0, dtype=np.int64), *columns]))


@dataclass(frozen=True)
class Loaded:
    """What a load did: rows of the directory, those that landed, and the generation after it."""

    rows: int
    landed: int
    generation: Generation


def load_values(
    published: PublishedValues,
    store: PackedStore,
    generations: Generations,
    progress: Callable[[int], None] = lambda _: None,
) -> Loaded:
    """Load values until their generation is ready; `progress` gets the rows written so far.

    Raises:
        GenerationStateError: the number is taken by values of another bundle, or another load of
            this generation has begun meanwhile.
        StoreError: Redis does not take the writes; the generation stays as it was.
    """
    generation = published.as_generation()
    generations.register(generation)  # step 1
    rows = landed = 0
    for ids, values in published.batches():  # step 2
        landed += int(
            store.write(generation.number, ids, values, snapshot=generation.snapshot).sum()
        )
        rows += len(ids)
        progress(rows)
    generations.complete(generation.number, published.ids(), generation.snapshot)  # step 3
    return Loaded(rows, landed, move_on(generation, store, generations))


def point_current_to(published: Path) -> None:
    """Make `current`, the source that Feast knows, name a published directory; in one rename."""
    target = published.resolve()
    # Folders between the view's own and the published one are named `key=value`.
    folder = next(parent for parent in target.parents if "=" not in parent.name)
    _link(folder / CURRENT, target.relative_to(folder))


def point_live_to(memories: Path, generation: int) -> None:
    """Make `live` name the folder of the live generation's snapshots; none where there is none."""
    name = f"generation={generation:03d}"
    if (memories / name).is_dir():
        _link(memories / LIVE, Path(name))
    else:
        (memories / LIVE).unlink(missing_ok=True)


def snapshot_in_force(memories: Path) -> Path | None:
    """The folder of a snapshot like the records that are served; None if nothing was built.

    The newest of the live generation; before the first switch, what `current` names.
    """
    live = sorted((memories / LIVE).glob(f"dt=*/{MANIFEST_NAME}"))
    if live:
        return live[-1].parent.resolve()
    current = memories / CURRENT
    return current.resolve() if (current / MANIFEST_NAME).is_file() else None


def _link(link: Path, target: Path) -> None:
    draft = link.with_name(f".{link.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    draft.symlink_to(target)
    draft.replace(link)
    sync_directory(link.parent)


def values_of(column: pa.Array, width: int, where: str) -> Records:
    """A binary column without nulls as (rows, width) uint8, without a copy.

    Raises:
        RecordFormatError: a value has another width; names `where`.
    """
    if not len(column):
        return np.zeros((0, width), dtype=np.uint8)
    kind = np.int64 if pa.types.is_large_binary(column.type) else np.int32
    offsets = np.frombuffer(column.buffers()[1], dtype=kind)
    offsets = offsets[column.offset : column.offset + len(column) + 1]
    widths = np.diff(offsets)
    other = widths[widths != width]
    if other.size:
        msg = f"{where}: a value of {other[0]} bytes, expected {width}; build it again"
        raise RecordFormatError(msg)
    flat = np.frombuffer(column.buffers()[2], dtype=np.uint8)[offsets[0] : offsets[-1]]
    return flat.reshape(len(column), width)


def column_of(values: Records) -> pa.Array:
    """Values (rows, width) as a binary column, without a copy."""
    rows, width = values.shape
    offsets = pa.py_buffer(np.arange(rows + 1, dtype=np.int32) * np.int32(width))
    buffers = [None, offsets, pa.py_buffer(np.ascontiguousarray(values))]
    return pa.Array.from_buffers(pa.binary(), rows, buffers)
