"""`uic log`: care of the event log."""

from datetime import datetime
from typing import Annotated

import typer

from uic.jobs.commands.options import DAY_FORMATS, takes_workspace
from uic.jobs.config.console import ERR, OUT
from uic.jobs.workspace.workspace import Workspace

app = typer.Typer(no_args_is_help=True, help="Make the event log of what has streamed.")


AcceptLossOption = Annotated[
    bool,
    typer.Option(help="Go on without events that were not archived; the log notes which ones."),
]


@app.callback()
def _group() -> None:
    """Keep `compact` a command of its own."""


@app.command()
@takes_workspace
def compact(
    day: Annotated[
        datetime, typer.Argument(formats=DAY_FORMATS, help="Last day, in the time zone.")
    ],
    *,
    accept_loss: AcceptLossOption = False,
    workspace: Workspace,
) -> None:
    """Add what streamed up to and including a day to the event log.

    The stream's archive is parsed again with the same parser, put in order of position and freed
    of repetitions; so batch folds what the stream has folded. Can be repeated: what the log has
    is left alone.

    Then log, snapshots, archive, dead letters, served features and the features of users are
    written anew without those who were forgotten since (`uic user forget`), and files of the
    archive, of dead letters and of served features go that are
    older than stream.archive_days, stream.dead_letter_days and serve.feature_days.
    """
    with ERR.status("reading the archive"):
        done = workspace.compact(day.date(), accept_loss=accept_loss)
    for entry in done:
        made = entry.publication
        shown = f", {made.shown:,} items shown" if made.shown else ""
        OUT.print(
            f"epoch {entry.epoch}: {made.behaviors:,} events of {made.days} days published{shown}, "
            f"{entry.rejected:,} refused",
            markup=False,
        )
    if not done:
        OUT.print(f"nothing new: the log has all that streamed up to {day.date()}")
    with ERR.status("forgotten users"):
        erased = workspace.erase_forgotten()
    for place in erased:
        OUT.print(f"{place.place}: {place.rows:,} rows of forgotten users erased")
    for pruned in workspace.stream.prune():
        size = pruned.bytes / 2**20
        OUT.print(f"{pruned.place}: {pruned.files:,} old files removed, {size:,.1f} MiB")
