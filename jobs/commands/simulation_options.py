"""The options of `uic simulate` that are fields of its plan.

They stand here and not in `uic.pipelines.simulator.plan`, which --help does not import; a test
holds names and defaults together. An option that is not given is left to the preset.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final

import typer

from uic.jobs.commands.options import replace_parameter

# Name, kind, default and meaning of each option.
SIZES: Final[tuple[tuple[str, type, float, str], ...]] = (
    ("users", int, 2000, "Users; at least 10."),
    ("items", int, 2000, "Items; at least 100."),
    ("days", int, 70, "Calendar days; at least 2."),
    ("seed", int, 1, "Same seed, same bytes."),
    (
        "visits_per_user_day",
        float,
        1.5,
        "Mean visits of a user a day; a visit is about 4.6 behaviours.",
    ),
    ("activity_spread", float, 0.6, "How unlike users are in how often they visit; 0 to 2."),
    ("impressions_per_user_day", float, 2.0, "Mean impressions of a user a day."),
    ("late_share", float, 0.0, "Share of behaviours that the log gets late or from a fast clock."),
    (
        "new_item_share",
        float,
        0.3,
        "With --images: share of items that appear after the first day.",
    ),
)
GAINS: Final[Mapping[str, str]] = {
    "interest_gain": "Long-lived interests and good items, in all that users do.",
    "order_gain": "What follows on the category of a recent click is liked (camera, lens).",
    "session_gain": "Visits have intents that decay within minutes.",
    "ages_gain": "A clicked category stays liked for a day, a week or a month, as it goes.",
    "satiation_gain": "What was bought, item and category, is not wanted again for weeks.",
    "return_gain": "Users are silent for 10 to 14 days and come back to what they last did.",
    "drift_gain": "Categories go in and out of fashion, new items replace old ones.",
    "pair_gain": "The last durable purchase decides which categories appeal, pair by pair.",
}


def takes_plan(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command these options in place of its parameter `plan`, a dict of what was given."""
    options = [
        *(_option(name, kind, default, help=meaning) for name, kind, default, meaning in SIZES),
        *(
            _option(
                name,
                float,
                1.0 if name == "interest_gain" else 0.0,
                help=meaning,
                rich_help_panel="What moves a click: 1 as built, 0 not at all",
            )
            for name, meaning in GAINS.items()
        ),
    ]
    names = [option.name for option in options]

    @functools.wraps(command)
    def run(**values: Any) -> None:
        chosen = {name: values.pop(name) for name in names}
        plan = {name: value for name, value in chosen.items() if value is not None}
        command(plan=plan, **values)

    replace_parameter(run, command, "plan", options)
    return run


def _option(name: str, kind: type, default: float, **told: Any) -> inspect.Parameter:
    option = typer.Option(show_default=f"{default:g}", **told)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, option],
    )
