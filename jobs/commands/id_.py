"""`uic id`: text ids of the log to the numbers they have inside, and back."""

from typing import Annotated

import typer

from uic.jobs.commands.options import takes_workspace
from uic.jobs.config.console import OUT, printable
from uic.jobs.workspace.workspace import Workspace
from uic.models.errors import BadInputError

NumberOption = Annotated[
    list[int] | None,
    typer.Option("--number", "-n", help="A number whose text to look up; may be repeated."),
]


@takes_workspace
def id_(
    texts: Annotated[list[str] | None, typer.Argument(help="Ids as they are in your data.")] = None,
    number: NumberOption = None,
    *,
    workspace: Workspace,
) -> None:
    """Print the numbers of text ids, or the texts of numbers, with their kind.

    A log that was imported with text ids has numbers inside: in its events, in Redis, in Feast.
    The number of a user or an item is a hash of the text, so any producer can compute it
    (docs/events.md), and a text that no import had has one, too. A category has a number of its
    own.
    """
    if not texts and not number:
        msg = "nothing to look up: give texts, or --number N"
        raise BadInputError(msg)
    ids = workspace.ids
    found = [one for text in texts or () for one in ids.find_text(text)]
    found += [one for wanted in number or () for one in ids.find_number(wanted)]
    for one in found:
        where = "in the log" if one.in_log else "not in the log"
        line = f"{one.number:>19}  {one.kind:<8}  {where:<14}  {printable(one.text)}"
        OUT.print(line, markup=False)
