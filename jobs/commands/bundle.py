"""`uic bundle`: what trained models there are, what is in one, and whether it is intact."""

from typing import Annotated

import typer

from uic.jobs.config.context import (
    DEFAULT_WORKSPACE,
    OUT,
    ConfigOption,
    WorkspaceOption,
    open_context,
)

app = typer.Typer(no_args_is_help=True, help="List, show, verify and choose trained models.")

BundleArgument = Annotated[
    str, typer.Argument(help="A path, model/version, or model (its current version).")
]


def register(root: typer.Typer) -> None:
    """Add this group to the command line."""
    root.add_typer(app, name="bundle")


@app.command("list")
def list_bundles(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE, config: ConfigOption = None
) -> None:
    """One line a bundle: version, hash, training days, AUC; `*` marks the current one."""
    context = open_context(workspace, config)
    import json

    from uic.models.bundles.bundle import read_bundle_manifest
    from uic.models.bundles.shelf import BundleShelf

    shelf = BundleShelf(context.bundles)
    for model in shelf.models():
        for version in shelf.versions(model):
            path = shelf.path(model, version)
            manifest = read_bundle_manifest(path)
            metrics = json.loads((path / "metrics.json").read_text(encoding="utf-8"))
            data = manifest["training_data"]
            auc = (metrics["test"] or {}).get("auc")
            OUT.print(
                f"{'*' if shelf.current(model) == version else ' '} {model}/{version}",
                manifest["hash"][:16],
                f"{data['samples']} {data['first_day']} to {data['last_day']}",
                "no AUC" if auc is None else f"AUC {auc:.4f}",
                sep="  ",
                markup=False,
            )


@app.command()
def show(
    bundle: BundleArgument,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Print a bundle's manifest, configuration and metrics as JSON."""
    context = open_context(workspace, config)
    import json

    from uic.models.bundles.bundle import load_bundle
    from uic.models.bundles.shelf import BundleShelf

    loaded = load_bundle(BundleShelf(context.bundles).find(bundle))
    document = {
        "path": str(loaded.path),
        "hash8": loaded.hash8.hex(),
        "weights": sum(weight.numel() for weight in loaded.model.state_dict().values()),
        "config": loaded.config.model_dump(mode="json"),
        "metrics": {key: value for key, value in loaded.metrics.items() if key != "curve"},
        "manifest": loaded.manifest,
    }
    OUT.print(json.dumps(document, indent=1, sort_keys=True), markup=False)


@app.command()
def verify(
    bundle: BundleArgument,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Load a bundle as a server would: every sum, key, tensor and size; exit 2 if one is wrong."""
    context = open_context(workspace, config)
    from uic.models.bundles.bundle import load_bundle
    from uic.models.bundles.shelf import BundleShelf

    loaded = load_bundle(BundleShelf(context.bundles).find(bundle))
    OUT.print(f"{loaded.name}/{loaded.version}  {loaded.hash8.hex()}  intact", markup=False)


@app.command()
def use(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    version: Annotated[str, typer.Argument(help="A published version.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Make VERSION the current one of MODEL."""
    context = open_context(workspace, config)
    from uic.models.bundles.shelf import BundleShelf

    BundleShelf(context.bundles).choose(model, version)
    OUT.print(f"{model}/{version} is current", markup=False)
