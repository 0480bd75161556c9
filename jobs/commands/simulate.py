"""`uic simulate`: a behaviour log of users whose long history matters, to try everything on."""

from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from uic.jobs.commands.options import (
    DAY_FORMATS,
    shown_progress,
    takes_workspace,
)
from uic.jobs.commands.simulation_options import takes_plan
from uic.jobs.config.console import OUT
from uic.jobs.workspace.workspace import Workspace

if TYPE_CHECKING:
    from uic.jobs.workspace.data import Simulated

SaleDayOption = Annotated[
    list[datetime] | None,
    typer.Option(formats=DAY_FORMATS, help="A day of bargains, unlike the users; may be repeated."),
]
FirstDayOption = Annotated[
    datetime,
    typer.Option(formats=DAY_FORMATS, help="The first simulated day.", show_default="2025-01-01"),
]
ImagesOption = Annotated[
    Path | None,
    typer.Option(help="Class folders of photographs that items show, as users' tastes go."),
]
FeaturesOption = Annotated[
    bool,
    typer.Option("--features", help="Users, items and impressions have features that matter."),
]
PresetOption = Annotated[
    str,
    typer.Option(
        help="Where fields that are not given come from: plain (interests alone, defaults as told "
        "here), signals (order, session, satiation and pair besides, interests less; 1,500 users, "
        "600 items, 45 days), or public (visits as in public logs, all signals but silences).",
    ),
]
ExplainOption = Annotated[
    bool,
    typer.Option("--explain", help="Tell which knowledge of users is worth how much AUC."),
]
# A calendar day; Typer has no type for a date.
_FIRST_DAY = datetime(2025, 1, 1)  # noqa: DTZ001


@takes_workspace
@takes_plan
def simulate(
    *,
    plan: dict[str, Any],
    preset: PresetOption = "plain",
    sale_day: SaleDayOption = None,
    first_day: FirstDayOption = _FIRST_DAY,
    images: ImagesOption = None,
    features: FeaturesOption = False,
    explain: ExplainOption = False,
    workspace: Workspace,
) -> None:
    """Write a simulated event log into an empty workspace.

    Each user has 8 interests that wax and wane over weeks; one or two show in recent behaviour,
    all of them decide what is clicked. So a model that remembers more ranks better, and the best
    reachable AUC is known: it is printed and kept in the manifest. Days are of `time_zone`.

    Signals make more of the past count than an average of it can tell: --order-gain, …, or all that
    a preset has. --explain tells what it costs not to know each of them.

    With --images, items show photographs: users have a taste for their classes, and some items
    appear every day with photographs never seen before, so that images say what ids cannot yet;
    which item shows which file is beside the log, for `uic images extract`.
    With --features, clicks depend on features beside ids, too (features.yaml): the best AUC is told
    with and without knowing them. With --sale-day, a calendar of these days is written beside the
    log; name it as `sale.calendar` in the settings to leave them out of samples and memories.
    """
    plan |= {"first_day": first_day.date(), "sale_days": _days(sale_day or [])}
    if features:
        plan["feature_gain"] = 1.0
    with shown_progress() as progress:
        simulated = workspace.simulate(
            preset=preset, photographs=images, explain=explain, progress=progress, **plan
        )
    _print_summary(simulated, workspace.context.log, images)


def _days(times: list[datetime]) -> tuple[date, ...]:
    return tuple(sorted({time.date() for time in times}))


def _print_summary(simulated: "Simulated", log: Path, images: Path | None) -> None:
    plan, published = simulated.plan, simulated.log.publication
    shown = published.impressions
    OUT.print(
        f"{published.behaviors:,} behaviours and {shown:,} impressions of {published.users:,} "
        f"users on {plan.days} days, {plan.first_day} to {plan.last_day}"
    )
    if shown:
        OUT.print(f"click rate            {simulated.log.clicks / shown:.3f}")
        OUT.print(f"best reachable AUC    {_auc(simulated.log.best_auc)}")
    if shown and simulated.log.features is not None:
        OUT.print(f"  without features    {_auc(simulated.log.unaided_auc)}")
    if shown and simulated.calendar is not None:
        OUT.print(f"  without sale days   {_auc(simulated.log.best_ordinary_auc)}")
    if shown and simulated.log.ceilings is not None:
        OUT.print(ceilings_table(simulated.log.ceilings))
    OUT.print(f"written to            {log} ({published.bytes / 1e6:.1f} MB)", markup=False)
    if simulated.calendar is not None:
        OUT.print(f"sale days             {simulated.calendar}, for `sale.calendar`", markup=False)
    if simulated.log.features is not None:
        OUT.print(f"features              {simulated.log.features}", markup=False)
    path = simulated.item_images
    if path is not None:
        OUT.print(
            f"images                {path}, for `uic images extract {path} --root {images} "
            "--out NAME`",
            markup=False,
        )


def ceilings_table(ceilings: Mapping[str, float | None]) -> Table:
    """The best AUC by what is known of users, and what is lost by not knowing it."""
    table = Table("what is known", "best AUC", "loss", box=None, pad_edge=False)
    best = next(iter(ceilings.values()))
    for name, value in ceilings.items():
        if best is not None and value is not None:
            table.add_row(name, f"{value:.4f}", f"{best - value:.4f}")
    return table


def _auc(value: float | None) -> str:
    return "none (all or no impressions were clicked)" if value is None else f"{value:.4f}"
