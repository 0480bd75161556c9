"""Writing and deleting a packed view through Feast."""

from pathlib import Path

from feast import FeatureView

from feature_repo.errors import EmptyStoreError, typed_errors
from feature_repo.generations import Generations
from feature_repo.packed_reads import OpenedView
from feature_repo.packed_view import PackedRows
from feature_repo.snapshots import Snapshot

_SCAN_KEYS = 1000


def write_memories(
    opened: OpenedView, table: FeatureView, generation: int, rows: PackedRows
) -> None:
    """Write the memories of one generation.

    A generation that the store does not know is registered from the manifest beside the view's
    source, if the source is a snapshot of that generation: this is `feast materialize` into an
    empty store.

    Raises:
        EmptyStoreError: the store does not know the generation, and the source does not either.
        StoreError: Redis does not take the write.
    """
    try:
        opened.store.write(generation, rows.ids, rows.values)
    except EmptyStoreError:
        snapshot = _source_snapshot(table)
        if snapshot is None or snapshot.generation != generation:
            raise
        registry = Generations(opened.store.client, opened.view.keys, opened.store.address)
        registry.register(snapshot.as_generation())
        opened.store.write(generation, rows.ids, rows.values)


def delete_everything(opened: OpenedView) -> None:
    """Delete a view's values and, of memories, every generation; tombstones stay."""
    kept = opened.view.keys.forgotten.encode()
    client = opened.store.client
    with typed_errors(opened.store.address):
        found = []
        for key in client.scan_iter(match=opened.view.keys.everything, count=_SCAN_KEYS):
            if key != kept:
                found.append(key)
            if len(found) == _SCAN_KEYS:
                client.unlink(*found)
                found = []
        if found:
            client.unlink(*found)


def _source_snapshot(table: FeatureView) -> Snapshot | None:
    """The snapshot that a view's source points to, if it is one."""
    path = Path(getattr(table.batch_source, "path", "") or "")
    folder = path.parent.resolve()
    return Snapshot.open(folder) if (folder / "manifest.json").exists() else None
