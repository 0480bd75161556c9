"""`uic state`: the exact parts of a record, without a model."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from uic.jobs.commands.options import takes_workspace
from uic.jobs.config.console import ERR, OUT, working
from uic.jobs.workspace.workspace import Workspace

app = typer.Typer(
    no_args_is_help=True,
    help="Exact parts of a user's record: counts, rates, recent events, windows (docs/state.md).",
)

FileOption = Annotated[
    Path | None,
    typer.Option(
        "--state", metavar="FILE", help="Default: WORKSPACE/state.yaml, or the package's parts."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
@takes_workspace
def init(*, workspace: Workspace) -> None:
    """Write the package's parts as WORKSPACE/state.yaml, to be changed."""
    OUT.print(f"{workspace.state.init()}: change it, then run uic state check", markup=False)


@app.command()
@takes_workspace
def show(*, state: FileOption = None, as_json: JsonOption = False, workspace: Workspace) -> None:
    """Print the parts, their bytes, and the features that each gives.

    A part that reads a column of events which features.yaml does not declare is refused.
    """
    found = workspace.state.read(state)
    workspace.state.columns(found)
    if as_json:
        features = [
            {"name": one.name, "description": one.description, "of_candidate": one.of_candidate}
            for one in found.described
        ]
        document = {**found.document(), "bytes": found.bytes, "sha256": found.sha256}
        OUT.print_json(json.dumps({**document, "features": features}))
        return
    parts = Table("part", "bytes", "facts", box=SIMPLE_HEAD)
    for part in found.parts:
        facts = ", ".join(f"{name} {said}" for name, said in part.facts.items())
        parts.add_row(part.name, str(part.bytes), escape(facts))
    OUT.print(parts)
    table = Table("feature", "of", "what it is", box=SIMPLE_HEAD)
    for one in found.described:
        table.add_row(
            one.name, "candidate" if one.of_candidate else "user", escape(one.description)
        )
    OUT.print(table)
    OUT.print(f"{found.bytes} bytes a user beside 44 of the header; sum {found.sha256[:16]}")


@app.command()
@takes_workspace
def check(*, state: FileOption = None, as_json: JsonOption = False, workspace: Workspace) -> None:
    """Fold some users of the log, and say what their parts hold at its end.

    Tells of each feature the share of users with a value, its median and 99th percentile, and
    remarks where tables are full, counts stay at their most, or a part says nothing.
    """
    with working("folding the log"):
        found = workspace.state.check(state)
    if as_json:
        document = {
            "users": found.users,
            "events": found.events,
            "features": [vars(one) for one in found.features],
            "remarks": list(found.remarks),
        }
        OUT.print(json.dumps(document), markup=False, soft_wrap=True)
        return
    table = Table("feature", "known", "not 0", "median", "99 %", box=SIMPLE_HEAD)
    for one in found.features:
        shares = (f"{one.known:.1%}", f"{one.nonzero:.1%}")
        table.add_row(one.name, *shares, f"{one.median:.4g}", f"{one.high:.4g}")
    OUT.print(table)
    OUT.print(f"{found.users:,} users with {found.events:,} events")
    for remark in found.remarks:
        ERR.print(f"[yellow]remark:[/] {escape(remark)}")


@app.command()
@takes_workspace
def publish(
    *,
    state: FileOption = None,
    version: Annotated[str | None, typer.Option(help="Default: the next free one.")] = None,
    workspace: Workspace,
) -> None:
    """Publish the parts as a bundle, which memories are built and streamed with; no training.

    Then: uic memories build --bundle state, uic memories load, uic stream run.
    """
    OUT.print(f"bundle {workspace.state.publish(state, version)}")
