"""`uic user`: look at one user's memory, or delete it for good."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from uic.jobs.commands.options import ConfigOption, WorkspaceOption
from uic.jobs.config.console import ERR, OUT
from uic.jobs.config.context import DEFAULT_WORKSPACE, open_context
from uic.models.errors import BadInputError

app = typer.Typer(no_args_is_help=True, help="Look at one user's memory, or delete it for good.")
UserArgument = Annotated[int, typer.Argument(help="User id.")]


def register(root: typer.Typer) -> None:
    """Add this group to the command line."""
    root.add_typer(app, name="user")


@app.command(context_settings={"ignore_unknown_options": True})
def show(
    user: UserArgument,
    generation: Annotated[
        int | None, typer.Option(min=1, help="Generation; default: the live one.")
    ] = None,
    items: Annotated[int, typer.Option(min=0, help="Nearest items to print a channel.")] = 5,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Print a user's position, age, generation, channels as small pictures, and nearest items.

    A channel's picture shows the size of its numbers, all channels on one scale. Nearest are the
    items whose attention in the ranker goes to that channel most.
    """
    context = open_context(workspace, config)

    from uic.feature_repo.store.opened import open_memories
    from uic.jobs.checks.user_view import find_bundle, nearest_items, picture, view_record
    from uic.models.records.record import header_view
    from uic.pipelines.log.event_log import EventLog

    with open_memories(context.config.store, context.workspace) as store:
        number = generation if generation is not None else store.live.resolve()
        found_generation = store.generations.get(number)
        record, found = store.memories.read(number, [user])
        forgotten = bool((store.generations.forgotten() == user).any())
    if not found[0]:
        why = "was forgotten on request" if forgotten else "has no behaviour in it"
        msg = f"user {user}: unknown to generation {number}: {why}"
        raise BadInputError(msg)
    bundle = find_bundle(context.bundles, header_view(record)["bundle"][0].tobytes())
    view = view_record(record, bundle)
    age = datetime.now(UTC) - view.last_event
    epoch, partition, offset = view.position
    OUT.print(f"user         {user}")
    OUT.print(f"generation   {number} ({found_generation.state})", markup=False)
    OUT.print(f"position     epoch {epoch}, partition {partition}, offset {offset}")
    OUT.print(f"last event   {view.last_event:%Y-%m-%d %H:%M:%S} UTC, {age.days:,} days ago")
    OUT.print(f"events       {view.events:,}")
    OUT.print(f"bundle       {found_generation.bundle_name} ({view.bundle_hash})", markup=False)
    if bundle is None or view.channels is None:
        ERR.print(f"bundle {view.bundle_hash} is not in {context.bundles}: no channels to show")
        return
    items_file = EventLog(context.log).items_file() if items else None
    nearest = None if items_file is None else nearest_items(record, bundle, items_file, items)
    largest = float(abs(view.channels).max())
    for at, row in enumerate(view.channels.tolist()):
        near = "" if nearest is None else f"  items {', '.join(map(str, nearest[at])) or 'none'}"
        OUT.print(f"channel {at:<4} |{picture(row, largest)}|{near}", markup=False)


@app.command(context_settings={"ignore_unknown_options": True})
def forget(
    user: UserArgument,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Delete a user in every generation, for good.

    A tombstone stays in the store, also when generations are dropped, so that no replay, load or
    stream job brings the user back. Snapshots and the event log keep what they have: they are
    pruned by their own age.
    """
    context = open_context(workspace, config)

    from uic.feature_repo.store.opened import open_memories

    with open_memories(context.config.store, context.workspace) as store:
        held = store.generations.forget(user)
    where = ", ".join(str(number) for number in held)
    OUT.print(f"user {user} forgotten" + (f"; deleted in generation {where}" if held else ""))
