"""`uic dead-letters`: the events that the stream refused."""

from typing import Annotated

import typer

from uic.jobs.commands.options import ConfigOption, WorkspaceOption
from uic.jobs.config.console import ERR, OUT
from uic.jobs.config.context import DEFAULT_WORKSPACE, open_context

app = typer.Typer(
    no_args_is_help=True, help="Look at events that the stream refused, or send them again."
)
ReasonOption = Annotated[str | None, typer.Option(help="Only letters with this reason.")]


def register(root: typer.Typer) -> None:
    """Add this group to the command line."""
    root.add_typer(app, name="dead-letters")


@app.command()
def show(
    *,
    reason: ReasonOption = None,
    last: Annotated[int, typer.Option(min=0, help="How many letters to print.")] = 20,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Print how many letters there are by reason, and the newest with place, time and payload."""
    from collections import Counter

    import numpy as np

    from uic.jobs.stream.letters.dead_letters import letters_of

    letters = [
        letter
        for letter in letters_of(open_context(workspace, config))
        if reason in (None, letter.reason)
    ]
    for found, count in Counter(letter.reason for letter in letters).most_common():
        OUT.print(f"{count:>9,}  {found}", markup=False)
    letters.sort(key=lambda letter: letter.log_time_ms)
    for letter in letters[len(letters) - last :]:
        when = np.datetime_as_string(np.datetime64(letter.log_time_ms, "ms"))
        place = f"{letter.epoch}:{letter.partition}:{letter.offset}"
        OUT.print(f"{when}Z  {place}  {letter.reason}  {letter.payload!r}", markup=False)
    if not letters:
        OUT.print("no dead letters")


@app.command()
def retry(
    *,
    reason: ReasonOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Send letters to the topic again, where they get a new place in the log.

    For letters that may be accepted now: after a change of the limits, or of a producer's key
    (partition_moved). Each is sent once; what is refused again becomes a new letter. A letter
    without a readable user id cannot be keyed, and stays.
    """
    from uic.jobs.stream.letters.dead_letters import letters_of, note_retried, retried, sendable
    from uic.jobs.stream.topics.produce import Pace, send_to_kafka

    context = open_context(workspace, config)
    before = retried(context)
    chosen = [
        letter
        for letter in letters_of(context)
        if reason in (None, letter.reason) and letter.place not in before
    ]
    outgoing, sent_letters = sendable(chosen)
    if sent_letters:
        stream = context.config.stream
        send_to_kafka([outgoing], stream.brokers, stream.topic, Pace())
        note_retried(context, before | {letter.place for letter in sent_letters})
    OUT.print(f"{len(sent_letters):,} letters sent again", markup=False)
    if len(chosen) > len(sent_letters):
        ERR.print(f"{len(chosen) - len(sent_letters):,} have no user id to key them by")
