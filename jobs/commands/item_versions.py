"""Item versions in the store: load, switch, list, drop (commands of `uic images`)."""

from typing import TYPE_CHECKING, Annotated

import typer

from uic.jobs.commands.options import ConfigOption, WorkspaceOption
from uic.jobs.config.console import ERR, OUT, progress_display
from uic.jobs.config.context import DEFAULT_WORKSPACE, Context, open_context
from uic.models.errors import BadInputError

if TYPE_CHECKING:
    from uic.feature_repo.snapshots.item_images import ItemImages

VersionArgument = Annotated[int, typer.Argument(help="Number of the item version.", min=1)]


def register_on(app: typer.Typer) -> None:
    """Add these commands to the group `images`."""
    app.command()(load)
    app.command()(switch)
    app.command(name="list")(list_all)
    app.command()(drop)


def load(
    version: Annotated[
        int | None, typer.Argument(min=1, help="Item version; default: the newest.")
    ] = None,
    *,
    by_feast: Annotated[
        bool, typer.Option("--by-feast", help="Let `feast materialize` write the rows (slower).")
    ] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Load an item version into the store, beside the one that is read, until it is ready."""
    context = open_context(workspace, config)

    from uic.feature_repo.plugin.repository import materialize_item_images
    from uic.feature_repo.snapshots.item_images import load_item_images, point_current_to
    from uic.feature_repo.store.item_store import open_item_store

    found = _version(context, version)
    with open_item_store(context.config.store, context.workspace) as store:
        point_current_to(found.path)
        if by_feast:
            store.versions.register(found.as_generation())
            with ERR.status(f"feast materialize {found.path.name}"):
                materialize_item_images(context.config.store, context.workspace, found)
            generation = store.versions.complete(found.version, found.item_ids())
        else:
            with progress_display() as progress:
                task = progress.add_task(f"loading {found.path.name}", total=found.rows)
                generation = load_item_images(
                    found,
                    store.vectors,
                    store.versions,
                    lambda rows: progress.update(task, completed=rows),
                )
    OUT.print(f"item version {found.version}: {generation.state}, {found.rows:,} items loaded")


def switch(
    version: VersionArgument,
    *,
    with_bundle: Annotated[
        bool,
        typer.Option("--with-bundle", help="Make its bundle the model's current one, too."),
    ] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Make a ready item version the one that readers of the view item_image read.

    All readers turn together, a moment from now (store.switch_delay_seconds). A ranking service
    reads the version of its own bundle in any case; with --with-bundle it swaps to the bundle of
    this version, and vectors and ranker turn as one.
    """
    context = open_context(workspace, config)

    from uic.feature_repo.store.generation import State
    from uic.feature_repo.store.item_store import open_item_store
    from uic.models.bundles.shelf import BundleShelf

    with open_item_store(context.config.store, context.workspace) as store:
        found = store.version(version)
        if found.state is State.LOADING:
            store.versions.complete(version, _version(context, version).item_ids())
        seconds = store.versions.switch(version, context.config.store.switch_delay_seconds)
    OUT.print(f"item version {version} is live in {seconds:.1f} s")
    if with_bundle:
        model, _, name = found.bundle_name.partition("/")
        BundleShelf(context.bundles).choose(model, name)
        OUT.print(f"{found.bundle_name} is current", markup=False)


def list_all(workspace: WorkspaceOption = DEFAULT_WORKSPACE, config: ConfigOption = None) -> None:
    """Print image features, item versions in the workspace, and those in the store."""
    context = open_context(workspace, config)

    from uic.feature_repo.snapshots.item_images import list_item_images
    from uic.feature_repo.store.item_store import open_item_store
    from uic.models.images.features import ImageFeatures

    OUT.print("features              images     items      encoder")
    for path in sorted(context.images.glob("*/manifest.json")):
        found = ImageFeatures.open(path.parent)
        OUT.print(
            f"{path.parent.name:<20}  {len(found):<9,}  {len(found.item_ids):<9,}  {found.encoder}",
            markup=False,
        )
    OUT.print("\nitem version (files)  items      features   bundle")
    for images in list_item_images(context.workspace):
        OUT.print(
            f"{images.version:<20}  {images.rows:<9,}  {images.manifest['features']:<9}  "
            f"{images.manifest['bundle']} ({images.bundle.hex()})",
            markup=False,
        )
    OUT.print("\nitem version (store)  state      items      bundle")
    with open_item_store(context.config.store, context.workspace) as store:
        live = store.live()
        for version in store.versions.all():
            mark = "*" if version.number == live else " "
            OUT.print(
                f"{version.number:>19}{mark}  {version.state:<9}  {version.rows:<9,}  "
                f"{version.bundle_name} ({version.bundle.hex()})",
                markup=False,
            )


def drop(
    version: VersionArgument,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Delete an item version that nobody reads from the store; its files stay."""
    context = open_context(workspace, config)

    from uic.feature_repo.store.item_store import open_item_store

    deleted = 0
    with open_item_store(context.config.store, context.workspace) as store:
        rows = store.version(version).rows
        with progress_display() as progress:
            task = progress.add_task(f"dropping item version {version}", total=rows)
            for deleted in store.drop(version, context.config.store.drop_keys_per_second):
                progress.update(task, completed=deleted)
    OUT.print(f"item version {version} dropped, {deleted:,} vectors deleted")


def remove_old(context: Context) -> None:
    """Remove older item versions from the workspace; none while the store does not answer."""
    from uic.feature_repo.store.errors import StoreError
    from uic.feature_repo.store.item_store import open_item_store
    from uic.models.bundles.shelf import BundleShelf
    from uic.pipelines.images.prune import prune_item_images, versions_in_use

    try:
        with open_item_store(context.config.store, context.workspace) as store:
            read = versions_in_use(store, context.workspace, BundleShelf(context.bundles))
    except StoreError as error:
        ERR.print(f"no older item version was removed: {error}", markup=False)
        return
    removed = prune_item_images(context.workspace, read, context.config.images.versions_kept)
    for found in removed:
        OUT.print(
            f"removed item version {found.version} ({found.manifest['bundle']})", markup=False
        )


def _version(context: Context, number: int | None) -> "ItemImages":
    from uic.feature_repo.snapshots.item_images import list_item_images

    found = list_item_images(context.workspace)
    chosen = [one for one in found if number in {None, one.version}]
    if not chosen:
        known = ", ".join(str(one.version) for one in found) or "none"
        msg = (
            f"{context.workspace / 'item_images'}: no item version {number or ''} (there is: "
            f"{known}); make one with `uic images embed`"
        )
        raise BadInputError(msg)
    return chosen[-1]
