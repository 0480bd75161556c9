"""Item versions in the store: load, switch, list, drop (commands of `uic images`)."""

from typing import Annotated

import typer

from uic.jobs.commands.options import (
    ByFeastOption,
    YesOption,
    confirm,
    shown_progress,
    takes_workspace,
)
from uic.jobs.config.console import ERR, OUT
from uic.jobs.workspace.workspace import Workspace

VersionArgument = Annotated[int, typer.Argument(help="Number of the item version.", min=1)]


def register_on(app: typer.Typer) -> None:
    """Add these commands to the group `images`."""
    app.command()(load)
    app.command()(switch)
    app.command(name="list")(list_all)
    app.command()(drop)


@takes_workspace
def load(
    version: Annotated[
        int | None, typer.Argument(min=1, help="Item version; default: the newest.")
    ] = None,
    *,
    by_feast: ByFeastOption = False,
    workspace: Workspace,
) -> None:
    """Load an item version into the store, beside the one that is read, until it is ready."""
    with shown_progress() as progress:
        loaded = workspace.images.load(version, by_feast=by_feast, progress=progress)
    OUT.print(f"item version {loaded.number}: {loaded.state}, {loaded.rows:,} items loaded")


@takes_workspace
def switch(
    version: VersionArgument,
    *,
    with_bundle: Annotated[
        bool,
        typer.Option("--with-bundle", help="Make its bundle the model's current one, too."),
    ] = False,
    workspace: Workspace,
) -> None:
    """Make a ready item version the one that readers of the view item_image read.

    All readers turn together, a moment from now (store.switch_delay_seconds). A ranking service
    reads the version of its own bundle in any case; with --with-bundle it swaps to the bundle of
    this version, and vectors and ranker turn as one.
    """
    seconds, bundle = workspace.images.switch(version, with_bundle=with_bundle)
    OUT.print(f"item version {version} is live in {seconds:.1f} s")
    if bundle is not None:
        OUT.print(f"{bundle} is current", markup=False)


@takes_workspace
def list_all(*, workspace: Workspace) -> None:
    """Print image features, item versions in the workspace, and those in the store."""
    images = workspace.images
    OUT.print("features              images     items      encoder")
    for name, features in images.features().items():
        items = len(features.item_ids)
        OUT.print(f"{name:<20}  {len(features):<9,}  {items:<9,}  {features.encoder}", markup=False)
    OUT.print("\nitem version (files)  items      features   bundle")
    for version in images.versions():
        OUT.print(
            f"{version.version:<20}  {version.rows:<9,}  {version.manifest['features']:<9}  "
            f"{version.manifest['bundle']} ({version.bundle.hex()})",
            markup=False,
        )
    OUT.print("\nitem version (store)  state      items      bundle")
    live = images.live_version()
    for stored in images.stored_versions():
        mark = "*" if stored.number == live else " "
        OUT.print(
            f"{stored.number:>19}{mark}  {stored.state:<9}  {stored.rows:<9,}  "
            f"{stored.bundle_name} ({stored.bundle.hex()})",
            markup=False,
        )


@takes_workspace
def drop(version: VersionArgument, *, yes: YesOption = False, workspace: Workspace) -> None:
    """Delete an item version that is not read from the store; its files stay.

    `uic images load` brings it back. Says what goes and asks.
    """
    rows = {stored.number: stored.rows for stored in workspace.images.stored_versions()}
    if version in rows:
        confirm([f"{rows[version]:,} vectors of item version {version} in the store"], yes=yes)
    with shown_progress() as progress:
        deleted = workspace.images.drop(version, progress=progress)
    OUT.print(f"item version {version} dropped, {deleted:,} vectors deleted")


def remove_old(workspace: Workspace) -> None:
    """Remove older item versions from the workspace, and say which."""
    pruned = workspace.images.prune()
    if pruned.reason is not None:
        ERR.print(f"no older item version was removed: {pruned.reason}", markup=False)
    for images in pruned.removed:
        OUT.print(
            f"removed item version {images.version} ({images.manifest['bundle']})", markup=False
        )
