"""`uic log`: care of the event log."""

from datetime import datetime
from typing import Annotated

import typer

from uic.jobs.commands.options import DAY_FORMATS, takes_workspace
from uic.jobs.commands.pictures import HtmlOption, show_bars
from uic.jobs.config.console import OUT, working
from uic.jobs.workspace.workspace import Workspace
from uic.models.errors import BadInputError

app = typer.Typer(no_args_is_help=True, help="The event log: its pictures, and what has streamed.")


AcceptLossOption = Annotated[
    bool,
    typer.Option(help="Go on without events that were not archived; the log notes which ones."),
]


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
    with working("reading the archive"):
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
    with working("forgotten users"):
        erased = workspace.erase_forgotten()
    for place in erased:
        OUT.print(f"{place.place}: {place.rows:,} rows of forgotten users erased")
    for pruned in workspace.stream.prune():
        size = pruned.bytes / 2**20
        OUT.print(f"{pruned.place}: {pruned.files:,} old files removed, {size:,.1f} MiB")


@app.command()
@takes_workspace
def show(*, html: HtmlOption = None, workspace: Workspace) -> None:
    """Draw the log: events a day, users by length of history, popularity's skew, gaps.

    Bars of plain characters; --html writes the same as a page that needs no network. Gaps between
    events are those of a share of the users where the log has more than two million events.
    """
    from uic.jobs.report.profiles import log_bars
    from uic.pipelines.log.event_log import open_log
    from uic.pipelines.log.profile import log_profile

    log = open_log(workspace.context.log, workspace.config.time_zone, BadInputError)
    with working("reading the log"):
        pictures = log_bars(log_profile(log))
    show_bars(f"The log of {workspace.path.name}", pictures, html)
