"""`uic log`: care of the event log."""

from datetime import datetime
from typing import Annotated

import typer

from uic.jobs.commands.options import ConfigOption, WorkspaceOption
from uic.jobs.config.console import ERR, OUT
from uic.jobs.config.context import DEFAULT_WORKSPACE, open_context

app = typer.Typer(no_args_is_help=True, help="Make the event log of what has streamed.")


def register(root: typer.Typer) -> None:
    """Add this group to the command line."""
    root.add_typer(app, name="log")


@app.callback()
def _group() -> None:
    """Keep `compact` a command of its own."""


@app.command()
def compact(
    day: Annotated[
        datetime, typer.Argument(formats=["%Y-%m-%d"], help="Last day, in the time zone.")
    ],
    *,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Add what streamed up to and including a day to the event log.

    The stream's archive is parsed again with the same parser, put in order of position and freed
    of repetitions; so batch folds what the stream has folded. Can be repeated: what the log has
    is left alone.
    """
    from uic.jobs.stream.letters.compact import compact as compact_archive

    with ERR.status("reading the archive"):
        done = compact_archive(open_context(workspace, config), day.date())
    for entry in done:
        made = entry.publication
        OUT.print(
            f"epoch {made.epoch.number}: {made.behaviors:,} events of {made.days} days published, "
            f"{entry.rejected:,} refused",
            markup=False,
        )
