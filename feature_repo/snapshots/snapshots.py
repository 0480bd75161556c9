"""Snapshots: all memories at one cut of the log, in Parquet.

`memories/generation=NNN/dt=YYYY-MM-DD/` holds the files and, last, `manifest.json`. Rows are in
order of user id. `event_timestamp` is the cut and the same for all rows: Feast selects by it, and
would drop users who were quiet if it were the time of their last event.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from uic.feature_repo.store.generations import Generation, Positions
from uic.models.errors import ManifestError
from uic.models.published import read_manifest
from uic.models.records.record import (
    HEADER,
    HEADER_BYTES,
    RecordFormatError,
    Records,
    check_records,
    header_view,
)

SNAPSHOT_KIND: Final = "memory_snapshot"
SNAPSHOT_SCHEMA_VERSION: Final = 1
CURRENT: Final = "current"
SNAPSHOT: Final = pa.schema(
    [
        pa.field("user_id", pa.int64(), nullable=False),
        pa.field("event_timestamp", pa.timestamp("ms", tz="UTC"), nullable=False),
        pa.field("memory", pa.binary(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Snapshot:
    """A published snapshot.

    Args:
        path: its folder.
        manifest: what the build wrote beside the files.
    """

    path: Path
    manifest: Mapping[str, Any]

    @classmethod
    def open(cls, path: Path) -> "Snapshot":
        """Read the manifest of a snapshot's folder.

        Raises:
            ManifestError: it was never published, or its files do not fit.
        """
        return cls(path, read_manifest(path, SNAPSHOT_KIND, SNAPSHOT_SCHEMA_VERSION))

    @property
    def generation(self) -> int:
        """The generation that its records carry."""
        return int(self.manifest["generation"])

    @property
    def rows(self) -> int:
        """Users."""
        return int(self.manifest["rows"])

    @property
    def record_bytes(self) -> int:
        """Width of a record."""
        return int(self.manifest["record_bytes"])

    @property
    def bundle(self) -> bytes:
        """First 8 bytes of the hash of the bundle that folded it."""
        return bytes.fromhex(self.manifest["bundle_hash8"])

    @property
    def folded_by(self) -> Mapping[str, str]:
        """Sum of the kernels and name of the CPU that folded it; empty in older snapshots."""
        return dict(self.manifest.get("folded_by", {}))

    @property
    def positions(self) -> dict[int, dict[int, int]]:
        """Last folded offset: epoch -> partition -> offset."""
        return {
            int(epoch): {int(partition): int(offset) for partition, offset in partitions.items()}
            for epoch, partitions in self.manifest["positions"].items()
        }

    @property
    def name(self) -> str:
        """`generation=NNN/dt=YYYY-MM-DD`."""
        return f"{self.path.parent.name}/{self.path.name}"

    def as_generation(self) -> Generation:
        """What the store has to know before it loads this snapshot."""
        positions: Positions = self.positions
        return Generation(
            number=self.generation,
            rows_expected=self.rows,
            bundle=self.bundle,
            bundle_name=str(self.manifest["bundle"]),
            record_bytes=self.record_bytes,
            positions=positions,
            snapshot=self.name,
            exclude=self.manifest["exclude"],
        )

    def batches(self, rows: int = 20_000) -> Iterator[tuple[NDArray[np.int64], Records]]:
        """User ids (n,) and records (n, record_bytes), in order of user id.

        Raises:
            RecordFormatError: a value is not a record of this code's version and this width.
        """
        for entry in self.manifest["files"]:
            path = self.path / entry["path"]
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(rows, columns=["user_id", "memory"]):
                    records = records_of(batch.column("memory"), self.record_bytes, str(path))
                    self._check_headers(records, path)
                    yield batch.column("user_id").to_numpy(), records

    def user_ids(self) -> NDArray[np.int64]:
        """Every user, ascending."""
        columns = [
            pq.read_table(self.path / entry["path"], columns=["user_id"]).column(0).to_numpy()
            for entry in self.manifest["files"]
        ]
        ids = np.concatenate(columns) if columns else np.zeros(0, dtype=np.int64)
        return np.sort(ids)

    def _check_headers(self, records: Records, path: Path) -> None:
        header = header_view(records)
        if not (header["generation"] == self.generation).all():
            found = sorted(set(header["generation"].tolist()))
            msg = f"{path}: records of generations {found}, its manifest says {self.generation}"
            raise ManifestError(msg)
        if not (header["bundle"] == np.frombuffer(self.bundle, HEADER["bundle"])).all():
            msg = f"{path}: records of another bundle than its manifest's {self.bundle.hex()}"
            raise ManifestError(msg)


def records_of(column: pa.Array, record_bytes: int, where: str) -> Records:
    """A binary column as (rows, record_bytes) uint8, without a copy.

    Raises:
        RecordFormatError: a value has another width, or is not a record of this version.
    """
    offsets = np.frombuffer(column.buffers()[1], dtype=np.int32)
    offsets = offsets[column.offset : column.offset + len(column) + 1]
    widths = np.diff(offsets)
    other = np.flatnonzero(widths != record_bytes)
    if other.size:
        found = int(widths[other[0]])
        msg = f"{where}: a memory of {found} bytes, expected {record_bytes}; build it again"
        raise RecordFormatError(msg)
    if not len(column):
        return np.zeros((0, record_bytes), dtype=np.uint8)
    flat = np.frombuffer(column.buffers()[2], dtype=np.uint8)[offsets[0] : offsets[-1]]
    records = flat.reshape(len(column), record_bytes)
    check_records(records, (record_bytes - HEADER_BYTES) // 2, where)
    return records


def point_current_to(snapshot: Path) -> None:
    """Make `memories/current`, the source that Feast knows, name this snapshot; in one rename."""
    memories = snapshot.resolve().parent.parent
    draft = memories / f".current.{os.getpid()}"
    draft.unlink(missing_ok=True)
    draft.symlink_to(Path(snapshot.parent.name) / snapshot.name)
    draft.replace(memories / CURRENT)


def list_snapshots(memories: Path) -> list[Snapshot]:
    """Every published snapshot, by generation and day; folders without a manifest are left out."""
    return [
        Snapshot.open(path.parent)
        for path in sorted(memories.glob("generation=*/dt=*/manifest.json"))
    ]
