"""`uic report`: one page of everything that a workspace has to show."""

import typer

from uic.jobs.commands.options import ConfigOption, WorkspaceOption
from uic.jobs.config.console import ERR, OUT
from uic.jobs.config.context import DEFAULT_WORKSPACE, open_context


def register(root: typer.Typer) -> None:
    """Add `report` to the command line."""
    root.command()(report)


def report(workspace: WorkspaceOption = DEFAULT_WORKSPACE, config: ConfigOption = None) -> None:
    """Write WORKSPACE/reports/index.html, one file that needs no network, and demo.json.

    Shows what has run: the log, the samples, the models, a replayed day, the audit. What has not
    run is left out.
    """
    context = open_context(workspace, config)
    with ERR.status("drawing the report"):
        from uic.jobs.report.page import write_report

        page, numbers = write_report(context)
    OUT.print(f"report: {page}", markup=False)
    OUT.print(f"numbers: {numbers}", markup=False)
