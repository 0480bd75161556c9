"""Snapshots: all memories at one cut of the log, in Parquet.

`memories/generation=NNN/dt=YYYY-MM-DD/` holds the files and, last, `manifest.json`. Rows are in
order of user id; `event_timestamp` is the cut.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from uic.feature_repo.snapshots.published_values import PublishedValues
from uic.feature_repo.store.generation import Generation, positions_of
from uic.models.errors import ManifestError
from uic.models.records.record import HEADER, HEADER_BYTES, Records, check_records, header_view

SNAPSHOT_KIND: Final = "memory_snapshot"
SNAPSHOT_SCHEMA_VERSION: Final = 1
SNAPSHOT: Final = pa.schema(
    [
        pa.field("user_id", pa.int64(), nullable=False),
        pa.field("event_timestamp", pa.timestamp("ms", tz="UTC"), nullable=False),
        pa.field("memory", pa.binary(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Snapshot(PublishedValues):
    """A published snapshot; a value is a record of its user."""

    KIND, SCHEMA_VERSION, SCHEMA = SNAPSHOT_KIND, SNAPSHOT_SCHEMA_VERSION, SNAPSHOT

    @property
    def generation(self) -> int:
        """The generation that its records carry."""
        return int(self.manifest["generation"])

    @property
    def value_bytes(self) -> int:
        """Width of a record."""
        return int(self.manifest["record_bytes"])

    @property
    def folded_by(self) -> Mapping[str, str]:
        """Sum of the kernels and name of the CPU that folded it; empty in older snapshots."""
        return dict(self.manifest.get("folded_by", {}))

    @property
    def positions(self) -> dict[int, dict[int, int]]:
        """Last folded offset: epoch -> partition -> offset."""
        return positions_of(self.manifest["positions"])

    @property
    def learns_from_ms(self) -> int:
        """Log time from which its memories know the log; 0 for all that the snapshot has."""
        return int(self.manifest.get("learns_from_ms", 0))

    @property
    def log_times(self) -> dict[int, dict[int, int]]:
        """Largest log time up to the positions, in milliseconds; empty in older snapshots."""
        return positions_of(self.manifest.get("log_times", {}))

    @property
    def epochs(self) -> Mapping[str, str]:
        """Names of the log's epochs that it has folded, by number; empty in older snapshots."""
        return dict(self.manifest.get("epochs", {}))

    @property
    def name(self) -> str:
        """`generation=NNN/dt=YYYY-MM-DD`."""
        return f"{self.path.parent.name}/{self.path.name}"

    def as_generation(self) -> Generation:
        """See `PublishedValues.as_generation`."""
        return Generation(
            number=self.generation,
            rows_expected=self.rows,
            bundle=self.bundle,
            bundle_name=str(self.manifest["bundle"]),
            record_bytes=self.value_bytes,
            positions=self.positions,
            snapshot=self.name,
            exclude=self.manifest["exclude"],
            log_times=self.log_times,
            epochs={int(number): str(name) for number, name in self.epochs.items()},
        )

    def check(self, values: Records, path: Path) -> None:
        """See `PublishedValues.check`; a record is of this code's version, too."""
        check_records(values, (self.value_bytes - HEADER_BYTES) // 2, str(path))
        header = header_view(values)
        if not (header["generation"] == self.generation).all():
            numbers = sorted(set(header["generation"].tolist()))
            msg = f"{path}: records of generations {numbers}, its manifest says {self.generation}"
            raise ManifestError(msg)
        if not (header["bundle"] == np.frombuffer(self.bundle, HEADER["bundle"])).all():
            msg = f"{path}: records of another bundle than its manifest's {self.bundle.hex()}"
            raise ManifestError(msg)


def list_snapshots(memories: Path) -> list[Snapshot]:
    """Every published snapshot, by generation and day; folders without a manifest are left out."""
    return [
        Snapshot.open(path.parent)
        for path in sorted(memories.glob("generation=*/dt=*/manifest.json"))
    ]
