"""`uic user`: look at one user's memory, or delete it for good."""

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from uic.jobs.commands.options import YesOption, confirm, takes_workspace
from uic.jobs.config.console import ERR, OUT, printable
from uic.jobs.workspace.users import UserMemory
from uic.jobs.workspace.workspace import Workspace

app = typer.Typer(no_args_is_help=True, help="Look at one user's memory, or delete it for good.")
UserArgument = Annotated[str, typer.Argument(help="User id, as the log's own system has it.")]


@app.command(context_settings={"ignore_unknown_options": True})
@takes_workspace
def show(
    user: UserArgument,
    generation: Annotated[
        int | None, typer.Option(min=1, help="Generation; default: the live one.")
    ] = None,
    items: Annotated[int, typer.Option(min=0, help="Nearest items to print a channel.")] = 5,
    *,
    workspace: Workspace,
) -> None:
    """Print a user's position, age, generation, channels as small pictures, and nearest items.

    A channel's picture shows the size of its numbers, all channels on one scale. Nearest are the
    items whose attention in the ranker goes to that channel most.
    """
    memory = workspace.user(user, generation=generation, items=items)
    view = memory.view
    epoch, partition, offset = view.position
    name = f"{memory.generation.bundle_name} ({view.bundle_hash})"
    OUT.print(f"user         {printable(user)}", markup=False)
    OUT.print(f"generation   {memory.generation.number} ({memory.generation.state})", markup=False)
    OUT.print(f"position     epoch {epoch}, partition {partition}, offset {offset}")
    if view.last_event is None:
        OUT.print("last event   none; things were only shown")
    else:
        age = datetime.now(UTC) - view.last_event
        OUT.print(f"last event   {view.last_event:%Y-%m-%d %H:%M:%S} UTC, {age.days:,} days ago")
    OUT.print(f"events       {view.events:,}")
    OUT.print(f"bundle       {name}", markup=False)
    for feature, value in view.parts.items():
        OUT.print(f"{feature:<12} {value:,.4g}", markup=False)
    if view.channels is None and view.parts:
        return
    if view.channels is None:
        bundles = workspace.context.bundles
        ERR.print(f"bundle {view.bundle_hash} is not in {bundles}: no channels to show")
        return
    _print_channels(memory)


def _print_channels(memory: UserMemory) -> None:
    from uic.jobs.checks.user_view import picture

    channels, nearest = memory.view.channels, memory.nearest
    if channels is None:
        return
    largest = float(abs(channels).max())
    for at, row in enumerate(channels.tolist()):
        items = [] if nearest is None else [printable(str(item)) for item in nearest[at]]
        near = "" if nearest is None else f"  items {', '.join(items) or 'none'}"
        OUT.print(f"channel {at:<4} |{picture(row, largest)}|{near}", markup=False)


@app.command(context_settings={"ignore_unknown_options": True})
@takes_workspace
def forget(
    user: UserArgument,
    *,
    now: Annotated[
        bool, typer.Option("--now", help="Erase the files, too, without waiting for the night.")
    ] = False,
    yes: YesOption = False,
    workspace: Workspace,
) -> None:
    """Delete a user in every generation, for good: there is no way back.

    A tombstone stays, in the store and in WORKSPACE/forgotten.json, so that no replay, load, stream
    job or loss of Redis brings the user back. The user's rows in the files of the workspace (log,
    snapshots, archive, dead letters, served features, features of users) are erased by the next
    `uic log compact`, or at once with --now. Prints what remains, and until when.
    """
    holding, said = workspace.generations_of(user), printable(user)
    if holding:
        numbers = ", ".join(str(number) for number in holding)
        goes = f"the memory of user {said} in generation {numbers}"
    else:
        goes = (
            f"nothing yet: no generation has user {said}; a tombstone keeps the user out for good"
        )
    confirm([goes], yes=yes)
    generations = workspace.forget(user)
    if not generations:
        ERR.print(f"warning: no generation had user {said}; is the id right?", markup=False)
    where = ", ".join(str(number) for number in generations)
    OUT.print(
        f"user {said} forgotten" + (f"; deleted in generation {where}" if generations else ""),
        markup=False,
    )
    for erased in workspace.erase_forgotten() if now else ():
        OUT.print(f"{erased.place}: {erased.rows:,} rows of forgotten users erased")
    OUT.print(_what_remains(workspace, now=now))


def _what_remains(workspace: Workspace, *, now: bool) -> Table:
    """Where a forgotten user still is, and until when."""
    stream = workspace.config.stream
    table = Table("what remains of a forgotten user", "until", box=SIMPLE_HEAD)
    if not now:
        files = "log, snapshots, archive, dead letters, served features, features of users"
        table.add_row(files, "the next `uic log compact`, every night (or --now)")
    else:
        table.add_row("files that the stream has open", "the next `uic log compact`")
    samples = workspace.context.samples.glob("*/manifest.json")
    names = ", ".join(sorted(path.parent.name for path in samples))
    if names:
        table.add_row(f"samples {names}, and bundles trained on them", "they are made anew")
    if stream.source == "kafka":
        table.add_row(f"topic {stream.topic}", "its retention (retention.ms), or a null per key")
    if stream.dead_letter_topic:
        table.add_row(f"topic {stream.dead_letter_topic}", "its retention")
    table.add_row("Redis' append-only file, its backups", "BGREWRITEAOF, and their own age")
    return table
