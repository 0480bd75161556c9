"""Removes old snapshots; the newest of each generation and `current` stay."""

import shutil
from pathlib import Path

from uic.feature_repo.snapshots.snapshots import CURRENT, Snapshot, list_snapshots
from uic.models.published import MANIFEST_NAME


def prune_snapshots(memories: Path, keep: int) -> list[Snapshot]:
    """Leave the `keep` newest snapshots of each generation; those that were removed.

    The manifest goes first: a snapshot that is half removed is not one.
    """
    current = (memories / CURRENT).resolve()
    by_generation: dict[int, list[Snapshot]] = {}
    for snapshot in list_snapshots(memories):
        by_generation.setdefault(snapshot.generation, []).append(snapshot)
    removed = []
    for snapshots in by_generation.values():
        newest_first = sorted(snapshots, key=lambda found: found.name, reverse=True)
        for snapshot in newest_first[keep:]:
            if snapshot.path.resolve() == current:
                continue
            (snapshot.path / MANIFEST_NAME).unlink()
            shutil.rmtree(snapshot.path)
            removed.append(snapshot)
    return sorted(removed, key=lambda found: found.name)
