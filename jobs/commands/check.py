"""`uic check`: judge the event log or samples, without making anything of them."""

from datetime import date, datetime
from enum import StrEnum
from typing import Annotated

import typer

from uic.jobs.config.context import (
    DEFAULT_WORKSPACE,
    ConfigOption,
    Context,
    WorkspaceOption,
    open_context,
)
from uic.models.errors import BadInputError
from uic.models.published import MANIFEST_NAME


class Judged(StrEnum):
    """What `uic check` can judge."""

    BEHAVIORS = "behaviors"
    IMPRESSIONS = "impressions"
    SAMPLES = "samples"
    ALL = "all"


def register(root: typer.Typer) -> None:
    """Add this command to the command line."""
    root.command("check")(check)


def check(
    what: Annotated[Judged, typer.Argument(help="What to judge.")] = Judged.ALL,
    name: Annotated[str | None, typer.Argument(help="Which samples; with `samples` only.")] = None,
    first: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="First day; default: the first that the log has."),
    ] = None,
    last: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="Last day; default: the last that the log has."),
    ] = None,
    *,
    docs: Annotated[
        bool, typer.Option("--docs/--no-docs", help="Write Data Docs to reports/quality.")
    ] = True,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Judge the data with Great Expectations; exit status 3 if an expectation fails.

    Prints every expectation with what was observed, and rows that broke the failed ones. The
    limits are the section `quality` of uic.yaml (see `uic config show`). The same gates stand
    before and after `uic samples`.
    """
    from uic.jobs.checks.gates import conclude, log_reports, samples_report  # pyarrow, pandas

    context = open_context(workspace, config)
    if (name is not None) != (what is Judged.SAMPLES):
        msg = "uic check samples NAME needs the name of the samples, the others take none"
        raise BadInputError(msg)
    tables = {Judged.BEHAVIORS, Judged.IMPRESSIONS} if what is Judged.ALL else {what}
    days = (_day(first), _day(last))
    reports = log_reports(
        context,
        behaviors=days if Judged.BEHAVIORS in tables else None,
        impressions=days if Judged.IMPRESSIONS in tables else None,
        skip_absent=what is Judged.ALL,
    )
    names = _all_samples(context) if what is Judged.ALL else [name] if name else []
    reports += [samples_report(context, found) for found in names]
    if not reports:
        msg = f"{context.workspace}: nothing to judge; `uic import` or `uic simulate` makes a log"
        raise BadInputError(msg)
    conclude(context, reports, docs=docs, show=True)


def _day(time: datetime | None) -> date | None:
    return None if time is None else time.date()


def _all_samples(context: Context) -> list[str]:
    return sorted(path.parent.name for path in context.samples.glob(f"*/{MANIFEST_NAME}"))
