"""`uic doctor`: is everything here that a day's work needs?"""

import sys

from rich.text import Text

from uic.jobs.commands.options import takes_workspace
from uic.jobs.config.console import OUT
from uic.jobs.workspace.workspace import Workspace


@takes_workspace
def doctor(*, workspace: Workspace) -> None:
    """Check an installation: packages, disk, Java, log, models, Redis, Kafka.

    Changes nothing. Ends with status 2 if something would not work; remarks are for what has not
    been set up yet.
    """
    from uic.jobs.checks.doctor import Level

    styles = {Level.OK: "green", Level.REMARK: "yellow", Level.WRONG: "bold red"}
    wrong = 0
    for finding in workspace.doctor():
        line = Text(f"{finding.level.value:<7}", styles[finding.level])
        OUT.print(line.append(f" {finding.subject:<10} {finding.text}", "default"))
        wrong += finding.level is Level.WRONG
    if wrong:
        sys.exit(2)
