"""`uic doctor`: is everything here that a day's work needs?"""

import sys

import typer
from rich.text import Text

from uic.jobs.commands.options import ConfigOption, WorkspaceOption
from uic.jobs.config.console import OUT
from uic.jobs.config.context import DEFAULT_WORKSPACE, open_context


def register(root: typer.Typer) -> None:
    """Add `doctor` to the command line."""
    root.command()(doctor)


def doctor(workspace: WorkspaceOption = DEFAULT_WORKSPACE, config: ConfigOption = None) -> None:
    """Check an installation: packages, disk, Java, log, models, Redis, Kafka.

    Changes nothing. Ends with status 2 if something would not work; remarks are for what has not
    been set up yet.
    """
    context = open_context(workspace, config)
    from uic.jobs.checks.doctor import Level, examine

    styles = {Level.OK: "green", Level.REMARK: "yellow", Level.WRONG: "bold red"}
    wrong = 0
    for finding in examine(context):
        line = Text(f"{finding.level.value:<7}", styles[finding.level])
        OUT.print(line.append(f" {finding.subject:<10} {finding.text}", "default"))
        wrong += finding.level is Level.WRONG
    if wrong:
        sys.exit(2)
