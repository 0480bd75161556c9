"""Item versions: vectors of items in the workspace and in the store."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from uic.jobs.config.progress import Progress, no_progress
from uic.jobs.workspace.base import WorkspacePanel
from uic.models.errors import BadInputError

if TYPE_CHECKING:
    from uic.feature_repo.snapshots.item_images import ItemImages
    from uic.feature_repo.store.generation import Generation
    from uic.feature_repo.store.item_store import ItemStore


@dataclass(frozen=True)
class PrunedVersions:
    """Item versions that were removed from the workspace; `reason` says why none could be."""

    removed: "list[ItemImages]"
    reason: str | None = None


class ItemVersionsPanel(WorkspacePanel):
    """Methods of `Workspace.images` for versions in the workspace and in the store."""

    def versions(self) -> "list[ItemImages]":
        """Item versions in the workspace, by number."""
        from uic.feature_repo.snapshots.item_images import list_item_images

        return list_item_images(self.path)

    def stored_versions(self) -> "list[Generation]":
        """Item versions in the store.

        Raises:
            StoreError: the store does not answer.
        """
        with self._open_items() as store:
            return store.versions.all()

    def live_version(self) -> int | None:
        """The item version that readers read; None: there was never one.

        Raises:
            StoreError: the store does not answer.
        """
        with self._open_items() as store:
            return store.live()

    def load(
        self,
        version: int | None = None,
        *,
        by_feast: bool = False,
        progress: Progress | None = None,
    ) -> "Generation":
        """Load an item version into the store, beside the one that is read, until it is ready.

        Args:
            version: its number; None: the newest.
            by_feast: let `feast materialize` write the rows; slower.
            progress: told the rows that were written.

        Raises:
            BadInputError: no such version.
            StoreError: the store does not answer, or its number is taken.
        """
        from uic.feature_repo.plugin.repository import materialize_item_images
        from uic.feature_repo.snapshots.published_values import load_values, point_current_to

        images = self._version(version)
        report = partial(progress or no_progress, f"loading {images.path.name}")
        with self._items_to_write() as store:
            point_current_to(images.path)
            if not by_feast:
                return load_values(
                    images,
                    store.vectors,
                    store.versions,
                    lambda rows: report(rows, images.rows),
                ).generation
            report(0, None)
            store.versions.register(images.as_generation())
            materialize_item_images(self.config.store, self.path, images)
            return store.versions.complete(images.version, images.ids())

    def switch(self, version: int, *, with_bundle: bool = False) -> tuple[float, str | None]:
        """Make a ready item version the one that readers of the view `item_image` read.

        Args:
            version: its number.
            with_bundle: make its bundle the model's current one, too.

        Returns:
            Seconds until all readers turn together, and the bundle that became current.

        Raises:
            StoreError: it is not ready, or the store does not answer.
        """
        from uic.feature_repo.store.generation import State
        from uic.models.bundles.shelf import BundleShelf

        with self._items_to_write() as store:
            found = store.version(version)
            if found.state is State.LOADING:
                store.versions.complete(version, self._version(version).ids())
            seconds = store.versions.switch(version, self.config.store.switch_delay_seconds)
        if not with_bundle:
            return seconds, None
        model, _, name = found.bundle_name.partition("/")
        BundleShelf(self.context.bundles).choose(model, name)
        return seconds, found.bundle_name

    def drop(self, version: int, *, progress: Progress | None = None) -> int:
        """Delete an item version that is not read from the store; its files stay.

        Returns:
            Vectors that were deleted.

        Raises:
            StoreError: it is live, or the store does not answer.
        """
        report = progress or no_progress
        deleted = 0
        with self._items_to_write() as store:
            rows = store.version(version).rows
            for deleted in store.drop(version, self.config.store.drop_keys_per_second):
                report(f"dropping item version {version}", deleted, rows)
        return deleted

    def prune(self) -> PrunedVersions:
        """Remove older item versions from the workspace; none while the store does not answer."""
        from uic.feature_repo.store.errors import StoreError
        from uic.models.bundles.shelf import BundleShelf
        from uic.pipelines.images.prune import prune_item_images, versions_in_use

        try:
            with self._open_items() as store:
                read = versions_in_use(store, self.path, BundleShelf(self.context.bundles))
        except StoreError as error:
            return PrunedVersions([], str(error))
        return PrunedVersions(prune_item_images(self.path, read, self.config.images.versions_kept))

    def _version(self, number: int | None) -> "ItemImages":
        versions = self.versions()
        chosen = [one for one in versions if number in {None, one.version}]
        if not chosen:
            known = ", ".join(str(one.version) for one in versions) or "none"
            msg = (
                f"{self.path / 'item_images'}: no item version {number or ''} (there is: "
                f"{known}); make one with `uic images embed`"
            )
            raise BadInputError(msg)
        return chosen[-1]

    def _open_items(self) -> "AbstractContextManager[ItemStore]":
        from uic.feature_repo.store.item_store import open_item_store

        return open_item_store(self.config.store, self.path)

    def _items_to_write(self) -> "AbstractContextManager[ItemStore]":
        """The same, for what writes: it refuses a store that is another workspace's."""
        from uic.feature_repo.store.item_store import open_items_for_writing

        return open_items_for_writing(self.config.store, self.path)
