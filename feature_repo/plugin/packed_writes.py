"""Writing a packed view through Feast."""

from pathlib import Path

from feast import FeatureView

from uic.feature_repo.plugin.packed_reads import OpenedView
from uic.feature_repo.plugin.packed_view import PackedRows
from uic.feature_repo.snapshots.item_images import ItemImages
from uic.feature_repo.snapshots.snapshots import Snapshot
from uic.feature_repo.store.errors import EmptyStoreError
from uic.feature_repo.store.generations import Generation, Generations
from uic.feature_repo.store.item_vectors import ITEM_VECTOR
from uic.feature_repo.store.layout import PackedLayout


def write_generation(
    opened: OpenedView, table: FeatureView, generation: int, rows: PackedRows
) -> None:
    """Write values of one generation: memories, or item vectors.

    A generation that the store does not know is registered from the manifest beside the view's
    source, if the source is a snapshot (or an item version) of that generation: this is
    `feast materialize` into an empty store.

    Raises:
        EmptyStoreError: the store does not know the generation, and the source does not either.
        StoreError: Redis does not take the write.
    """
    try:
        opened.store.write(generation, rows.ids, rows.values)
    except EmptyStoreError:
        described = _source_generation(table, opened.view.layout)
        if described is None or described.number != generation:
            raise
        registry = Generations(opened.store.client, opened.view.keys, opened.store.address)
        registry.register(described)
        opened.store.write(generation, rows.ids, rows.values)


def _source_generation(table: FeatureView, layout: PackedLayout) -> Generation | None:
    """What a view's source holds: a snapshot's generation, or an item version; None if neither."""
    path = Path(getattr(table.batch_source, "path", "") or "")
    folder = path.parent.resolve()
    if not (folder / "manifest.json").exists():
        return None
    source = ItemImages.open(folder) if layout is ITEM_VECTOR else Snapshot.open(folder)
    return source.as_generation()
