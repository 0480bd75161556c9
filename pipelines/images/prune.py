"""Removes old item versions from the workspace; what is read, and some before it, stay."""

from collections.abc import Collection
from pathlib import Path

from uic.feature_repo.snapshots.item_images import ITEM_IMAGES_FOLDER, ItemImages, list_item_images
from uic.feature_repo.snapshots.published_values import CURRENT
from uic.feature_repo.store.generation import State
from uic.feature_repo.store.item_store import ItemStore
from uic.models.bundles.shelf import BundleShelf


def prune_item_images(workspace: Path, read: Collection[int], kept: int) -> list[ItemImages]:
    """Leave of each model what is read, what is newer, and the `kept` before; those removed.

    A model's newest version counts as read if no other one is.

    Args:
        workspace: whose `item_images`.
        read: numbers of the versions that are read or loaded (`versions_in_use`).
        kept: versions before the newest of those that are read, to go back to; count.
    """
    current = (workspace / ITEM_IMAGES_FOLDER / CURRENT).resolve()
    by_model: dict[str, list[ItemImages]] = {}
    for images in list_item_images(workspace):  # by number
        by_model.setdefault(_model_of(images), []).append(images)
    removed = []
    for versions in by_model.values():
        in_use = [images for images in versions if images.version in read] or versions[-1:]
        before = [images for images in versions if images.version < in_use[-1].version]
        for images in before[: max(0, len(before) - kept)]:
            if images in in_use or images.path.resolve() == current:
                continue
            images.remove()
            removed.append(images)
    return sorted(removed, key=lambda images: images.version)


def versions_in_use(store: ItemStore, workspace: Path, shelf: BundleShelf) -> set[int]:
    """Versions that the store reads or loads: live, of a current bundle, or not complete.

    Raises:
        StoreError: the store does not answer.
    """
    loading = {version.number for version in store.versions.all() if version.state is State.LOADING}
    live = store.live()
    read = set() if live is None else {live}
    for images in list_item_images(workspace):
        model = _model_of(images)
        if images.manifest["bundle"] == f"{model}/{shelf.current(model)}":
            served = store.version_of(images.bundle)
            read |= set() if served is None else {served.number}
    return read | loading


def _model_of(images: ItemImages) -> str:
    return str(images.manifest["bundle"]).partition("/")[0]
