"""The options of the next-item protocol, the same for every import that can make impressions."""

import functools
import inspect
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from uic.jobs.commands.options import replace_parameter

if TYPE_CHECKING:
    from uic.pipelines.importers.next_item import NextItemOptions


class Protocol(StrEnum):
    """Where impressions come from."""

    NONE = "none"
    NEXT_ITEM = "next-item"


class Sequence(StrEnum):
    """Which behaviours make a user's sequence in the next-item protocol."""

    CLICK = "click"
    ALL = "all"


_OPTIONS: dict[str, Any] = {
    "protocol": Annotated[
        Protocol,
        typer.Option(
            help="next-item: make impressions as the papers do: each user's last event, clicked, "
            "and one item that is not in the user's sequence. The last event is then left out of "
            "the behaviours, and so are users with a shorter sequence than --min-length."
        ),
    ],
    "min_length": Annotated[
        int, typer.Option(min=2, help="next-item: least events of a user, the target included.")
    ],
    "truncate": Annotated[
        int, typer.Option(min=0, help="next-item: events kept before the target; 0 keeps all.")
    ],
    "sequence_of": Annotated[
        Sequence, typer.Option("--sequence-of", help="next-item: which behaviours count.")
    ],
    "seed": Annotated[int, typer.Option(min=0, help="next-item: seed of the negatives.")],
}


def with_next_item_options(
    *, truncate: int = 100, sequence_of: Sequence = Sequence.CLICK
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command these options; it gets `next_item`, None unless the protocol is asked for.

    Args:
        truncate: default of --truncate, events.
        sequence_of: default of --sequence-of.
    """
    defaults = {
        "protocol": Protocol.NONE,
        "min_length": 20,
        "truncate": truncate,
        "sequence_of": sequence_of,
        "seed": 0,
    }

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**values: Any) -> None:
            chosen = {name: values.pop(name) for name in _OPTIONS}
            command(next_item=_next_item(**chosen), **values)

        options = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name], annotation=annotation
            )
            for name, annotation in _OPTIONS.items()
        ]
        replace_parameter(run, command, "next_item", options)
        return run

    return decorate


def _next_item(
    *, protocol: Protocol, min_length: int, truncate: int, sequence_of: Sequence, seed: int
) -> "NextItemOptions | None":
    if protocol is Protocol.NONE:
        return None
    from uic.pipelines.importers.next_item import NextItemOptions
    from uic.pipelines.log.schemas import BEHAVIORS

    behaviors = (BEHAVIORS.index("click"),) if sequence_of is Sequence.CLICK else None
    return NextItemOptions(min_length, truncate or None, behaviors, seed)
