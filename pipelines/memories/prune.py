"""Removes old snapshots; the newest of each generation and `current` stay."""

from pathlib import Path

from uic.feature_repo.snapshots.published_values import CURRENT
from uic.feature_repo.snapshots.snapshots import Snapshot, list_snapshots


def prunable_snapshots(memories: Path, keep: int) -> list[Snapshot]:
    """All but the `keep` newest snapshots of each generation and `current`, by name."""
    current = (memories / CURRENT).resolve()
    by_generation: dict[int, list[Snapshot]] = {}
    for snapshot in list_snapshots(memories):
        by_generation.setdefault(snapshot.generation, []).append(snapshot)
    old = []
    for snapshots in by_generation.values():
        newest_first = sorted(snapshots, key=lambda snapshot: snapshot.name, reverse=True)
        old += [one for one in newest_first[keep:] if one.path.resolve() != current]
    return sorted(old, key=lambda snapshot: snapshot.name)


def prune_snapshots(memories: Path, keep: int) -> list[Snapshot]:
    """Leave the `keep` newest snapshots of each generation; those that were removed."""
    removed = prunable_snapshots(memories, keep)
    for snapshot in removed:
        snapshot.remove()
    return removed
