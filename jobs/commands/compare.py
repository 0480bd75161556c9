"""`uic compare`: is one bundle above another, on the same impressions?"""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from uic.jobs.commands import completion
from uic.jobs.commands.options import (
    DAY_FORMATS,
    DeviceOption,
    SamplesOption,
    day_of,
    shown_progress,
    takes_workspace,
)
from uic.jobs.config.console import ERR, OUT
from uic.jobs.workspace.workspace import Workspace

if TYPE_CHECKING:
    from uic.jobs.training.compare import Comparison


@takes_workspace
def compare(
    *,
    bundles: Annotated[
        list[str],
        typer.Argument(
            help="Two or more: a path, model/version, or model (its current); seeds of one model "
            "are joined by commas, as in din/1,din/2,din/3.",
            autocompletion=completion.bundles,
        ),
    ],
    samples: SamplesOption,
    first: Annotated[
        datetime | None, typer.Option(formats=DAY_FORMATS, help="First day; default: the last one.")
    ] = None,
    last: Annotated[
        datetime | None, typer.Option(formats=DAY_FORMATS, help="Last day; default: the last one.")
    ] = None,
    device: DeviceOption = "auto",
    workspace: Workspace,
) -> None:
    """Compare bundles with the first one: AUC, difference, and its 95 % interval.

    All score the same impressions. The interval is that of a bootstrap over users, paired: a
    difference is called above or below only where all of it is.
    """
    with shown_progress() as progress:
        found = workspace.compare(
            bundles,
            samples,
            first=day_of(first),
            last=day_of(last),
            device=device,
            progress=progress,
        )
    _show(found)


def _show(found: "Comparison") -> None:
    """A line a model, and what a person should know of it."""
    OUT.print(
        f"{found.impressions:,} impressions of {found.users:,} users, {found.days[0]} to "
        f"{found.days[1]}",
        markup=False,
    )
    for row in found.rows:
        error = "" if row.standard_error is None else f" ± {row.standard_error:.4f}"
        against = "" if row.difference is None else row.difference.describe()
        OUT.print(f"{row.label}  AUC {row.auc:.4f}{error}  {against}".rstrip(), markup=False,
                  soft_wrap=True)  # fmt: skip
        for remark in row.remarks:
            ERR.print(f"warning: {remark}", markup=False)
