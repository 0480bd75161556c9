"""`uic check`: judge the event log or samples, without making anything of them."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

import typer

from uic.jobs.commands.gate_tables import show_report
from uic.jobs.commands.options import DAY_FORMATS, day_of, shown_progress, takes_workspace
from uic.jobs.workspace.workspace import Workspace


class Judged(StrEnum):
    """What `uic check` can judge."""

    BEHAVIORS = "behaviors"
    IMPRESSIONS = "impressions"
    SAMPLES = "samples"
    ALL = "all"


@takes_workspace
def check(
    what: Annotated[Judged, typer.Argument(help="What to judge.")] = Judged.ALL,
    name: Annotated[str | None, typer.Argument(help="Which samples; with `samples` only.")] = None,
    first: Annotated[
        datetime | None,
        typer.Option(formats=DAY_FORMATS, help="First day; default: the first that the log has."),
    ] = None,
    last: Annotated[
        datetime | None,
        typer.Option(formats=DAY_FORMATS, help="Last day; default: the last that the log has."),
    ] = None,
    *,
    docs: Annotated[
        bool, typer.Option("--docs/--no-docs", help="Write Data Docs to reports/quality.")
    ] = True,
    workspace: Workspace,
) -> None:
    """Judge the data with Great Expectations; exit status 3 if an expectation fails.

    Prints every expectation with what was observed, and rows that broke the failed ones. The
    limits are the section `quality` of uic.yaml (see `uic config show`). The same gates stand
    before and after `uic samples`.
    """
    with shown_progress() as progress:
        workspace.check(
            what.value,
            name,
            first=day_of(first),
            last=day_of(last),
            docs=docs,
            judged=show_report,
            progress=progress,
        )
