"""The options of the next-item protocol: of imports that can make impressions, and of samples."""

import functools
import inspect
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from uic.jobs.commands.options import replace_parameter
from uic.models.errors import BadInputError

if TYPE_CHECKING:
    from uic.pipelines.importers.next_item import NextItemOptions
    from uic.pipelines.samples.next_item import NextItemTargets

Decorator = Callable[[Callable[..., None]], Callable[..., None]]


class Protocol(StrEnum):
    """Where impressions come from."""

    NONE = "none"
    NEXT_ITEM = "next-item"


class Sequence(StrEnum):
    """Which behaviours make a user's sequence in the next-item protocol."""

    CLICK = "click"
    ALL = "all"


class TargetBehavior(StrEnum):
    """Which behaviours are predicted."""

    CLICK = "click"
    CART = "cart"
    FAVOURITE = "favourite"
    BUY = "buy"


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


_SAMPLES_OPTIONS: dict[str, tuple[Any, Any]] = {
    "protocol": (
        Protocol.NONE,
        Annotated[
            Protocol,
            typer.Option(
                help="next-item: for a log without impressions. Each behaviour of --targets is a "
                "clicked impression, and beside it stands one of another item, drawn by its share "
                "of what was shown or happened on that local day, never an item of the user's day."
            ),
        ],
    ),
    "targets": (
        None,
        Annotated[
            list[TargetBehavior] | None,
            typer.Option(help="next-item: behaviours to predict. Repeatable. Default: all."),
        ],
    ),
    "min_history": (
        1,
        Annotated[
            int, typer.Option(min=0, help="next-item: least events in a target's window before it.")
        ],
    ),
    "negatives_within": (
        0,
        Annotated[
            int,
            typer.Option(
                min=0,
                max=365,
                metavar="DAYS",
                help="next-item: draw negatives from this many days before and after, too.",
            ),
        ],
    ),
    "seed": (0, Annotated[int, typer.Option(min=0, help="next-item: seed of the negatives.")]),
}


def with_next_item_options(
    *, truncate: int = 100, sequence_of: Sequence = Sequence.CLICK
) -> Decorator:
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
    options = {name: (defaults[name], annotation) for name, annotation in _OPTIONS.items()}
    return _in_place_of_next_item(options, _next_item)


def with_target_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give `uic samples` its options; it gets `next_item`, as above."""
    return _in_place_of_next_item(_SAMPLES_OPTIONS, _targets)(command)


def _in_place_of_next_item(
    options: dict[str, tuple[Any, Any]], made: Callable[..., Any]
) -> Decorator:
    """Options by name, (default, annotation) each, whose values `made` turns into `next_item`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**values: Any) -> None:
            chosen = {name: values.pop(name) for name in options}
            command(next_item=made(**chosen), **values)

        parameters = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
            )
            for name, (default, annotation) in options.items()
        ]
        replace_parameter(run, command, "next_item", parameters)
        return run

    return decorate


def _targets(
    *,
    protocol: Protocol,
    targets: list[TargetBehavior] | None,
    min_history: int,
    negatives_within: int,
    seed: int,
) -> "NextItemTargets | None":
    if protocol is Protocol.NONE:
        said = {
            "--targets": targets,
            "--min-history": min_history != 1,
            "--negatives-within": negatives_within,
            "--seed": seed,
        }
        for option in (name for name, value in said.items() if value):
            msg = f"{option}: is of --protocol next-item; add it, or leave {option} out"
            raise BadInputError(msg)
        return None
    from uic.pipelines.log.schemas import BEHAVIORS
    from uic.pipelines.samples.next_item import NextItemTargets

    kinds = tuple(sorted({BEHAVIORS.index(target) for target in targets})) if targets else None
    return NextItemTargets(kinds, min_history, negatives_within, seed)


def _next_item(
    *, protocol: Protocol, min_length: int, truncate: int, sequence_of: Sequence, seed: int
) -> "NextItemOptions | None":
    if protocol is Protocol.NONE:
        return None
    from uic.pipelines.importers.next_item import NextItemOptions
    from uic.pipelines.log.schemas import BEHAVIORS

    behaviors = (BEHAVIORS.index("click"),) if sequence_of is Sequence.CLICK else None
    return NextItemOptions(min_length, truncate or None, behaviors, seed)
