"""`uic bundle`: what trained models there are, what is in one, and whether it is intact."""

import json
from typing import Annotated

import typer

from uic.jobs.commands import completion
from uic.jobs.commands.options import takes_workspace
from uic.jobs.config.console import OUT
from uic.jobs.workspace.models import BundleLine
from uic.jobs.workspace.workspace import Workspace

app = typer.Typer(no_args_is_help=True, help="List, show, verify and choose trained models.")

BundleArgument = Annotated[
    str,
    typer.Argument(
        help="A path, model/version, or model (its current version).",
        autocompletion=completion.bundles,
    ),
]


@app.command("list")
@takes_workspace
def list_bundles(*, workspace: Workspace) -> None:
    """One line a bundle: version, hash, days trained on, AUC of its test; `*` is the current one.

    `!` is a test that says little or a model below simple baselines; `uic report` says why.
    """
    for line in workspace.bundles():
        data = line.training_data
        OUT.print(
            f"{'*' if line.current else ' '} {line.model}/{line.version}",
            line.hash[:16],
            f"{data['samples']} trained on {data['first_day']} to {data['last_day']}",
            _tested(line),
            sep="  ",
            markup=False,
        )


def _tested(line: BundleLine) -> str:
    if not line.impressions:
        return "no test"
    measured = "no AUC" if line.auc is None else f"AUC {line.auc:.4f}"
    return f"{measured} on {line.impressions:,} impressions{' !' if line.remarks else ''}"


@app.command()
@takes_workspace
def show(bundle: BundleArgument, *, workspace: Workspace) -> None:
    """Print a bundle's manifest, configuration and metrics as JSON."""
    loaded = workspace.bundle(bundle)
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
@takes_workspace
def verify(bundle: BundleArgument, *, workspace: Workspace) -> None:
    """Load a bundle as a server would: every sum, key, tensor and size; exit 2 if one is wrong."""
    loaded = workspace.bundle(bundle)
    OUT.print(f"{loaded.name}/{loaded.version}  {loaded.hash8.hex()}  intact", markup=False)


@app.command()
@takes_workspace
def use(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    version: Annotated[str, typer.Argument(help="A published version.")],
    *,
    workspace: Workspace,
) -> None:
    """Make VERSION the current one of MODEL."""
    workspace.use_bundle(model, version)
    OUT.print(f"{model}/{version} is current", markup=False)
