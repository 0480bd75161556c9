"""The last step of a build: refuses a gap, picks one file per bucket, publishes the manifest."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from uic.feature_repo.snapshots.published_values import point_current_to
from uic.feature_repo.snapshots.snapshots import SNAPSHOT_KIND, SNAPSHOT_SCHEMA_VERSION, Snapshot
from uic.feature_repo.store.generation import positions_json
from uic.models.published import name_draft, publish_manifest, sync_directory
from uic.pipelines.log.epochs import Epoch
from uic.pipelines.log.positions import LogGapError
from uic.pipelines.memories.fold_bucket import BucketFile, SnapshotWriteError
from uic.pipelines.memories.read import PartFacts
from uic.pipelines.samples.log_parts import offset_bounds


@dataclass(frozen=True)
class SnapshotPublication:
    """Where a snapshot goes, and what its manifest says of its input.

    Args:
        root: folder of the snapshot.
        start: the snapshot that the build started from, or took parts over from.
        epochs: of the log.
        thinned: numbers of the epochs from which users were taken out (`forgotten`).
        facts: the manifest's part that is known before the run.
    """

    root: Path
    start: Snapshot | None
    epochs: Sequence[Epoch]
    thinned: frozenset[int]
    facts: Mapping[str, Any]

    def publish(
        self, buckets: Iterable[BucketFile | None], read: Iterable[PartFacts]
    ) -> dict[str, Any]:
        """Publish what the workers wrote; the manifest.

        Raises:
            LogGapError: the log does not go on where the snapshot ends; nothing is published.
            SnapshotWriteError: a file cannot be renamed.
        """
        parts = list(read)
        covered = {} if self.start is None else self.start.positions
        bounds = offset_bounds(run for part in parts for run in part.positions)
        if self.start is not None:
            self._refuse_gap(covered, bounds)
        chosen: dict[int, BucketFile] = {}
        for file in sorted((file for file in buckets if file), key=lambda file: file.draft):
            chosen.setdefault(file.bucket, file)
        files = [chosen[bucket] for bucket in sorted(chosen)]
        self._rename(files)
        manifest = {
            "kind": SNAPSHOT_KIND,
            "schema_version": SNAPSHOT_SCHEMA_VERSION,
            **self.facts,
            "files": [
                {"path": file.path, "bytes": file.bytes, "rows": file.rows, "sha256": file.sha256}
                for file in files
            ],
            "rows": sum(file.rows for file in files),
            "positions": _merged(covered, ((*at, last) for at, (_, last) in bounds.items())),
            # A position's epoch is a number; in another log it is another epoch's.
            "epochs": {str(epoch.number): epoch.name for epoch in self.epochs},
            "log_times": _merged(
                {} if self.start is None else self.start.log_times,
                (entry for part in parts for entry in part.log_times),
            ),
            "events": {
                "read": sum(part.rows for part in parts),
                "new": sum(part.new for part in parts),
                "excluded": sum(part.excluded for part in parts),
                "folded": sum(file.folded for file in files),
                "skipped": sum(file.skipped for file in files),
                "moved": sum(file.moved for file in files),
            },
            # Of all builds up to this one: none, and whatever goes on from it can be checked.
            "out_of_order": self._out_of_order(files),
            # A memory is a function of the log to the bit on one build of torch and one kind of
            # machine; elsewhere to a tolerance.
            "torch": torch.__version__,
            "cpu": torch.backends.cpu.get_cpu_capability(),
        }
        self.root.mkdir(parents=True, exist_ok=True)
        publish_manifest(self.root, manifest)
        point_current_to(self.root)
        return manifest

    def _out_of_order(self, files: Sequence[BucketFile]) -> int:
        """Events refused by any build so far: skipped, or of users in two partitions."""
        before = {} if self.start is None else self.start.manifest
        known = before.get("events", {"skipped": 0, "moved": 0})
        earlier = before.get("out_of_order", known["skipped"] + known["moved"])
        return int(earlier) + sum(file.skipped + file.moved for file in files)

    def _refuse_gap(
        self,
        covered: Mapping[int, Mapping[int, int]],
        bounds: Mapping[tuple[int, int], tuple[int, int]],
    ) -> None:
        """The first new event of a partition must follow the last one that is folded.

        Only an import has every offset: a topic's rejected events are not in the log, and its
        missing files are refused by their manifest.
        """
        # Of an import from which users were taken out, offsets are missing where they were.
        imports = {
            epoch.number: epoch
            for epoch in self.epochs
            if epoch.kind == "import" and epoch.number not in self.thinned
        }
        for (number, partition), (first, _) in bounds.items():
            if number not in imports:
                continue
            begins = imports[number].first_offsets[partition]
            folded = covered.get(number, {}).get(partition, begins - 1)
            if first > folded + 1:
                where = "?" if self.start is None else self.start.path
                msg = (
                    f"{where}: ends at offset {folded} of partition {partition} (epoch {number}), "
                    f"the log goes on at {first}: what lies between is missing; start from a "
                    "later snapshot, or from nothing"
                )
                raise LogGapError(msg)

    def _rename(self, files: Sequence[BucketFile]) -> None:
        try:
            for file in files:
                name_draft(self.root / file.draft, self.root / file.path)
            if files:
                sync_directory(self.root)
        except OSError as error:
            msg = f"{self.root}: cannot be written: {error.strerror or error}; build it again"
            raise SnapshotWriteError(msg) from error


def _merged(
    covered: Mapping[int, Mapping[int, int]], new: Iterable[tuple[int, int, int]]
) -> dict[str, dict[str, int]]:
    """The largest value of each epoch and partition, as the manifest has them."""
    merged = positions_json(covered)
    for epoch, partition, value in new:
        of_epoch = merged.setdefault(str(epoch), {})
        of_epoch[str(partition)] = max(value, of_epoch.get(str(partition), value))
    return merged
