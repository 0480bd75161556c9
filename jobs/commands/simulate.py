"""`uic simulate`: a behaviour log of users whose long history matters, to try everything on."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from uic.jobs.config.context import (
    DEFAULT_WORKSPACE,
    OUT,
    ConfigOption,
    WorkspaceOption,
    open_context,
    progress_display,
)
from uic.models.errors import BadInputError

if TYPE_CHECKING:
    from uic.pipelines.simulator.item_images import Photographs
    from uic.pipelines.simulator.plan import SimulationPlan
    from uic.pipelines.simulator.write import SimulatedLog

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
    images: Annotated[
        Path | None,
        typer.Option(help="Class folders of photographs that items show, as users' tastes go."),
    ] = None,
    new_item_share: Annotated[
        float, typer.Option(help="With --images: share of items that appear after the first day.")
    ] = 0.3,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Write a simulated event log into an empty workspace.

    Each user has 8 interests that wax and wane over weeks; one or two show in recent behaviour,
    all of them decide what is clicked. So a model that remembers more ranks better, and the best
    reachable AUC is known: it is printed and kept in the manifest. Days are of `time_zone`.

    With --images, items show photographs: users have a taste for their classes, and some items
    appear every day with photographs never seen before, so that images say what ids cannot yet.
    Which item shows which file is written beside the log, for `uic images extract`.

    With --sale-day, a calendar of these days is written beside the log; name it as
    `sale.calendar` in the settings to leave them out of samples and memories.
    """
    from uic.pipelines.log.event_log import EventLog
    from uic.pipelines.simulator.plan import SimulationPlan
    from uic.pipelines.simulator.write import write_simulation

    context = open_context(workspace, config)
    photographs = None if images is None else _photographs(images)
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
        photographs=() if photographs is None else photographs.counts,
        new_item_share=new_item_share,
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
    if photographs is not None and images is not None:
        _write_images(plan, photographs, images, context.workspace)


def _photographs(folder: Path) -> "Photographs":
    from uic.pipelines.images.sources import ImageSource
    from uic.pipelines.simulator.item_images import Photographs

    if not folder.is_dir():
        msg = f"--images {folder}: not a folder; expected folders of photographs, one a class"
        raise BadInputError(msg)
    listed = ImageSource.open(folder).images
    return Photographs.of(((image.path, image.label) for image in listed), folder)


def _write_images(
    plan: "SimulationPlan", photographs: "Photographs", folder: Path, workspace: Path
) -> None:
    from uic.pipelines.simulator.item_images import ITEM_IMAGES_NAME, write_item_images
    from uic.pipelines.simulator.world import Catalogue

    path = workspace / ITEM_IMAGES_NAME
    write_item_images(plan, Catalogue.of(plan), photographs, path)
    OUT.print(
        f"images                {path}, for `uic images extract {path} --root {folder} --out NAME`",
        markup=False,
    )


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
