"""`uic report`: one page of everything that a workspace has to show."""

from uic.jobs.commands.options import takes_workspace
from uic.jobs.config.console import OUT, working
from uic.jobs.workspace.workspace import Workspace


@takes_workspace
def report(*, workspace: Workspace) -> None:
    """Write WORKSPACE/reports/index.html, one file that needs no network, and demo.json.

    Shows what has run: the log, the samples, the models, a replayed day, the audit. What has not
    run is left out.
    """
    with working("drawing the report"):
        page, numbers = workspace.report()
    OUT.print(f"report: {page}", markup=False)
    OUT.print(f"numbers: {numbers}", markup=False)
