"""`uic memories upgrade`: build, load, catch up and switch in one command."""

from pathlib import Path
from typing import Annotated

import typer

from uic.jobs.commands.memories import app
from uic.jobs.commands.options import ConfigOption, WorkspaceOption
from uic.jobs.config.console import ERR, OUT
from uic.jobs.config.context import DEFAULT_WORKSPACE, open_context


def register(root: typer.Typer) -> None:
    """Add the command to `uic memories`, which is registered already."""
    del root
    app.command()(upgrade)


def upgrade(
    *,
    bundle: Annotated[
        str, typer.Option(help="New bundle: MODEL/VERSION of WORKSPACE/bundles, or a path.")
    ],
    max_lag: Annotated[
        int, typer.Option(min=0, help="Events that the new generation may lag when readers turn.")
    ] = 1000,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Give everybody a memory of a new bundle without a pause, and make it the live one.

    Builds a generation from the log, loads it beside the live one, streams it until it lags by at
    most --max-lag events, turns readers to it, and stops the old stream. May be cut off at any
    time; the same command goes on. Until the old generation is dropped, `uic memories switch`
    goes back.
    """
    from uic.jobs.stream.run.upgrade import CatchUp, UpgradeOptions
    from uic.jobs.stream.run.upgrade import upgrade as run_upgrade
    from uic.models.errors import BadInputError

    context = open_context(workspace, config)
    found = [path for path in (context.bundles / bundle, Path(bundle)) if path.is_dir()]
    if not found:
        msg = f"--bundle {bundle}: no such folder, neither here nor in {context.bundles}"
        raise BadInputError(msg)
    options = UpgradeOptions(found[0], CatchUp(max_lag))
    live = run_upgrade(context, options, lambda line: ERR.print(line, markup=False))
    OUT.print(f"generation {live} is live")
