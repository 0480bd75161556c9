"""Writing a packed view through Feast."""

import logging
from pathlib import Path

from feast import FeatureView

from uic.feature_repo.plugin.packed_reads import OpenedView
from uic.feature_repo.plugin.packed_view import PackedRows
from uic.feature_repo.snapshots.item_images import ItemImages
from uic.feature_repo.snapshots.published_values import PublishedValues
from uic.feature_repo.snapshots.snapshots import Snapshot
from uic.feature_repo.store.errors import EmptyStoreError, GenerationStateError
from uic.feature_repo.store.generations import Generations, State
from uic.feature_repo.store.item_vectors import ITEM_VECTOR
from uic.feature_repo.store.layout import PackedLayout
from uic.feature_repo.store.tombstones import Tombstones
from uic.models.published import MANIFEST_NAME

LOG = logging.getLogger(__name__)


def write_generation(
    opened: OpenedView, table: FeatureView, generation: int, rows: PackedRows
) -> None:
    """Write values of one generation: memories, or item vectors.

    A generation that the store does not know is registered from the manifest beside the view's
    source, if the source is a snapshot (or an item version) of that generation: this is
    `feast materialize` into an empty store. Once all its rows are there it is ready, and the
    first one of a store is live.

    Raises:
        EmptyStoreError: the store does not know the generation, and the source does not either.
        StoreError: Redis does not take the write.
    """
    registry = Generations(opened.store.client, opened.view.keys, opened.store.address)
    try:
        opened.store.write(generation, rows.ids, rows.values)
    except EmptyStoreError:
        source = _source(table, opened.view.layout)
        if source is None or source.as_generation().number != generation:
            raise
        registry.register(source.as_generation())
        if isinstance(source, Snapshot):
            Tombstones(source.path.parents[2]).tell(registry)
        opened.store.write(generation, rows.ids, rows.values)
    known = registry.get(generation)
    there = known.rows + len(registry.forgotten()) if known.state is State.LOADING else -1
    if there >= known.rows_expected:
        _complete(registry, generation, _source(table, opened.view.layout))


def _complete(registry: Generations, number: int, source: PublishedValues | None) -> None:
    """Declare a generation ready whose last rows may have come, and live if none ever was.

    Feast has no verb for the switch. Where there was nothing before there is nothing to protect,
    and readers would be told that the store is empty. Any later generation waits for `uic`.
    """
    if source is None or source.as_generation().number != number:
        return
    try:
        registry.complete(number, source.ids(), source.as_generation().snapshot)
    except GenerationStateError:  # rows are still to come: those missing were not the forgotten
        return
    try:
        live = registry.live()
    except EmptyStoreError:
        registry.switch(number, 0)
        return
    LOG.warning(
        "%s: generation %d is loaded and ready, readers still read %d; to turn them: "
        "uic memories switch %d",
        registry.address,
        number,
        live,
        number,
    )


def _source(table: FeatureView, layout: PackedLayout) -> PublishedValues | None:
    """What a view's source holds: a snapshot, or an item version; None if neither."""
    path = Path(getattr(table.batch_source, "path", "") or "")
    folder = path.parent.resolve()
    if not (folder / MANIFEST_NAME).exists():
        return None
    return ItemImages.open(folder) if layout is ITEM_VECTOR else Snapshot.open(folder)
