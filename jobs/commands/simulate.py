"""`uic simulate`: a behaviour log of users whose long history matters, to try everything on."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.context import (
    DEFAULT_WORKSPACE,
    OUT,
    ConfigOption,
    WorkspaceOption,
    open_context,
    progress_display,
)
from models.errors import BadInputError

if TYPE_CHECKING:
    from pipelines.simulator.plan import SimulationPlan
    from pipelines.simulator.write import SimulatedLog

_DAY = ["%Y-%m-%d"]
SALE_DAYS_NAME = "simulated_sale_days.yaml"


def register(root: typer.Typer) -> None:
    """Add this command to the command line."""
    root.command()(simulate)


def simulate(
    *,
    users: Annotated[int, typer.Option(help="Users; at least 10.")] = 2000,
    items: Annotated[int, typer.Option(help="Items; at least 100.")] = 2000,
    days: Annotated[int, typer.Option(help="Calendar days; at least 2.")] = 70,
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 1,
    sale_day: Annotated[
        list[datetime] | None,
        typer.Option(formats=_DAY, help="A day of bargains, unlike the users; may be repeated."),
    ] = None,
    first_day: Annotated[
        datetime,
        typer.Option(formats=_DAY, help="The first simulated day.", show_default="2025-01-01"),
    ] = datetime(2025, 1, 1),  # noqa: DTZ001 - a calendar day; Typer has no type for a date
    visits_per_user_day: Annotated[
        float, typer.Option(help="Mean visits of a user a day; a visit is about 4.6 behaviours.")
    ] = 1.5,
    impressions_per_user_day: Annotated[
        float, typer.Option(help="Mean impressions of a user a day.")
    ] = 2.0,
    late_share: Annotated[
        float,
        typer.Option(help="Share of behaviours that the log gets late or from a fast clock."),
    ] = 0.0,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Write a simulated event log into an empty workspace.

    Each user has 8 interests that wax and wane over weeks; one or two show in recent behaviour,
    all of them decide what is clicked. So a model that remembers more ranks better, and the best
    reachable AUC is known: it is printed and kept in the manifest. Days are of `time_zone`.

    With --sale-day, a calendar of these days is written beside the log; name it as
    `sale.calendar` in the settings to leave them out of samples and memories.
    """
    from pipelines.event_log import EventLog
    from pipelines.simulator.plan import SimulationPlan
    from pipelines.simulator.write import write_simulation

    context = open_context(workspace, config)
    plan = SimulationPlan.of(
        users=users,
        items=items,
        days=days,
        seed=seed,
        first_day=first_day.date(),
        sale_days=tuple(sorted({day.date() for day in sale_day or ()})),
        time_zone=context.config.time_zone,
        visits_per_user_day=visits_per_user_day,
        impressions_per_user_day=impressions_per_user_day,
        late_share=late_share,
    )
    with progress_display() as display:
        making = display.add_task("simulating days", total=plan.days)
        writing = display.add_task("writing days", total=None)
        simulated = write_simulation(
            plan,
            EventLog(context.log),
            context.config.log,
            generated=lambda done, total: display.update(making, completed=done, total=total),
            written=lambda done, total: display.update(writing, completed=done, total=total),
        )
    calendar = _write_calendar(plan, context.workspace)
    _print_summary(plan, simulated, context.log, calendar)


def _write_calendar(plan: "SimulationPlan", workspace: Path) -> Path | None:
    if not plan.sale_days:
        return None
    path = workspace / SALE_DAYS_NAME
    try:
        path.write_text(plan.sale_calendar.to_yaml(), encoding="utf-8")
    except OSError as error:
        msg = f"{path}: cannot be written ({error.strerror}); the log itself is complete"
        raise BadInputError(msg) from error
    return path


def _print_summary(
    plan: "SimulationPlan", simulated: "SimulatedLog", log: Path, calendar: Path | None
) -> None:
    published = simulated.publication
    shown = published.impressions
    OUT.print(
        f"{published.behaviors:,} behaviours and {shown:,} impressions of {published.users:,} "
        f"users on {plan.days} days, {plan.first_day} to {plan.last_day}"
    )
    if shown:
        OUT.print(f"click rate            {simulated.clicks / shown:.3f}")
        OUT.print(f"best reachable AUC    {_auc(simulated.best_auc)}")
    if shown and calendar is not None:
        OUT.print(f"  without sale days   {_auc(simulated.best_ordinary_auc)}")
    OUT.print(f"written to            {log} ({published.bytes / 1e6:.1f} MB)", markup=False)
    if calendar is not None:
        OUT.print(f"sale days             {calendar}, for `sale.calendar`", markup=False)


def _auc(value: float | None) -> str:
    return "none (all or no impressions were clicked)" if value is None else f"{value:.4f}"
