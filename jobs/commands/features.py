"""`uic features`: features beside ids, in the store."""

import json
from typing import Annotated, Any

import typer

from uic.jobs.commands.options import shown_progress, takes_workspace
from uic.jobs.config.console import OUT
from uic.jobs.workspace.workspace import Workspace
from uic.models.errors import BadInputError

app = typer.Typer(no_args_is_help=True, help="Features beside ids (features.yaml).")


@app.command()
@takes_workspace
def load(*, workspace: Workspace) -> None:
    """Write the users' features that hold now into the store, for the ranking service.

    Only rows that differ are written; a row that was pushed and holds from later stays. Run it
    when the table of users has changed: `uic serve` reads a row with the memory, in one round trip.
    """
    with shown_progress() as progress:
        loaded = workspace.features.load(progress=progress)
    OUT.print(
        f"{loaded.users:,} users: {loaded.written:,} written, {loaded.unchanged:,} unchanged, "
        f"{loaded.newer:,} newer in the store, {loaded.forgotten:,} forgotten, "
        f"{loaded.deleted:,} deleted"
    )


@app.command()
@takes_workspace
def push(
    user: Annotated[int, typer.Argument(min=0, help="Id of the user.")],
    values: Annotated[list[str], typer.Argument(help="NAME=VALUE; JSON, or a text.")],
    *,
    workspace: Workspace,
) -> None:
    """Write some features of one user into the store, as of now; the others stay."""
    given = dict(_pair(value) for value in values)
    landed = workspace.features.push(user, given)
    OUT.print(f"user {user}: {'written' if landed else 'not written: forgotten, or newer there'}")


def _pair(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        msg = f"{text}: expected NAME=VALUE"
        raise BadInputError(msg)
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
