"""`uic dead-letters`: the events that the stream refused."""

from collections import Counter
from typing import Annotated, Final

import typer

from uic.jobs.commands.options import takes_workspace
from uic.jobs.config.console import ERR, OUT
from uic.jobs.workspace.workspace import Workspace

app = typer.Typer(
    no_args_is_help=True, help="Look at events that the stream refused, or send them again."
)
_SHOWN_BYTES: Final = 300
ReasonOption = Annotated[str | None, typer.Option(help="Only letters with this reason.")]


@app.command()
@takes_workspace
def show(
    *,
    reason: ReasonOption = None,
    last: Annotated[int, typer.Option(min=0, help="How many letters to print.")] = 20,
    workspace: Workspace,
) -> None:
    """Print how many letters there are by reason, and the newest with place, time and payload."""
    import numpy as np

    letters = workspace.events.dead_letters(reason)
    for name, count in Counter(letter.reason for letter in letters).most_common():
        OUT.print(f"{count:>9,}  {name}", markup=False)
    for letter in letters[max(len(letters) - last, 0) :]:
        when = np.datetime_as_string(np.datetime64(letter.log_time_ms, "ms"))
        place = f"{letter.epoch}:{letter.partition}:{letter.offset}"
        payload = letter.payload or b""
        long = len(payload) > _SHOWN_BYTES or letter.is_cut
        size = f"({letter.payload_bytes or len(payload):,} bytes{', cut' * letter.is_cut})  "
        shown = payload[:_SHOWN_BYTES] if letter.payload is not None else None
        text = f"{when}Z  {place}  {letter.reason}  {size * long}{shown!r}"
        OUT.print(text, markup=False)
    if not letters:
        OUT.print("no dead letters")


@app.command()
@takes_workspace
def retry(*, reason: ReasonOption = None, workspace: Workspace) -> None:
    """Send letters to the topic again, where they get a new place in the log.

    For letters that may be accepted now: after a change of the limits, or of a producer's key
    (partition_moved). Each is sent once; what is refused again becomes a new letter. A letter
    without a readable user id cannot be keyed, and stays.
    """
    done = workspace.events.retry(reason)
    OUT.print(f"{done.sent:,} letters sent again", markup=False)
    if done.without_user:
        ERR.print(f"{done.without_user:,} have no user id to key them by")
