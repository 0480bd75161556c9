"""Options that several commands have, and the workspace that each of them opens.

A command that takes `workspace: Workspace` is decorated with `takes_workspace`, which gives it the
options --workspace and --config instead and opens the workspace that they name.
"""

import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.progress import TaskID

from uic.jobs.commands import completion
from uic.jobs.config.console import ERR, progress_display
from uic.jobs.config.context import DEFAULT_WORKSPACE
from uic.jobs.config.progress import Progress
from uic.jobs.workspace.workspace import Workspace
from uic.models.errors import BadInputError

_UMASKS: Final = {"owner": 0o077, "group": 0o027}
WorkspaceOption = Annotated[
    Path,
    typer.Option(
        "--workspace", "-w", envvar="UIC_WORKSPACE", help="Folder that holds everything uic makes."
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        envvar="UIC_CONFIG",
        help="Settings (YAML); default: uic.yaml in the workspace, then in the current folder.",
    ),
]
DAY_FORMATS = ["%Y-%m-%d"]
RunnerOption = Annotated[
    str, typer.Option(help="Beam runner: DirectRunner, FlinkRunner, PortableRunner, …")
]
SamplesOption = Annotated[
    str,
    typer.Option(
        help="Name of the samples (`uic samples --out NAME`).", autocompletion=completion.samples
    ),
]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, or auto.")]
FirstTrainingDayOption = Annotated[
    datetime | None, typer.Option(formats=DAY_FORMATS, help="Leave out days before this one.")
]
LastTrainingDayOption = Annotated[
    datetime | None, typer.Option(formats=DAY_FORMATS, help="Leave out days after this one.")
]
UntilEndOption = Annotated[
    bool, typer.Option("--until-end", help="Stop at the end that the source has now.")
]
ByFeastOption = Annotated[
    bool, typer.Option("--by-feast", help="Let `feast materialize` write the rows (slower).")
]
ExcludeOption = Annotated[
    Path | None,
    typer.Option(help="YAML list of rules for what is left out: from, until, sources, users."),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
# What follows `--` goes to Beam.
BEAM_SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": False}


def takes_workspace(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command --workspace and --config in place of its parameter `workspace`."""

    @functools.wraps(command)
    def run(*, workspace: Path, config: Path | None, **values: Any) -> None:
        opened = Workspace(workspace, config)
        # What the process and its children write from here on: Java's files, too.
        os.umask(_UMASKS[opened.config.file_access])
        command(workspace=opened, **values)

    options = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
        )
        for name, default, annotation in (
            ("workspace", DEFAULT_WORKSPACE, WorkspaceOption),
            ("config", None, ConfigOption),
        )
    ]
    replace_parameter(run, command, "workspace", options)
    return run


def replace_parameter(
    run: Callable[..., None],
    command: Callable[..., None],
    name: str,
    options: list[inspect.Parameter],
) -> None:
    """Show Typer the signature of `command` on `run`, with options in place of one parameter."""
    signature = inspect.signature(command)
    everything = [
        parameter
        for own in signature.parameters.values()
        for parameter in (options if own.name == name else [own])
    ]
    # Typer reads the signature, and the annotations beside it.
    run.__signature__ = signature.replace(parameters=everything)  # type: ignore[attr-defined] # functions take any attribute
    run.__annotations__ = {one.name: one.annotation for one in everything}


def confirm(goes: Sequence[str], *, yes: bool) -> None:
    """Say what a command removes, and ask; nothing is asked where nothing goes.

    Args:
        goes: what is removed, a line each.
        yes: asked for on the command line.

    Raises:
        BadInputError: there is no terminal to ask on, and --yes was not said.
        typer.Abort: the answer was no.
    """
    if yes or not goes:
        return
    for line in goes:
        ERR.print(f"will be removed: {line}", markup=False)
    if not sys.stdin.isatty():
        msg = "this removes what is named above; say --yes"
        raise BadInputError(msg)
    typer.confirm("Go on?", abort=True, err=True)


def day_of(time: datetime | None) -> date | None:
    """The day of an option; Typer has no type for a date."""
    return None if time is None else time.date()


def parse_day(text: str, option: str) -> date:
    """The day that an option's text names.

    Raises:
        BadInputError: it is none.
    """
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        msg = f"{option}: found {text!r}, expected a day like 2025-11-11"
        raise BadInputError(msg) from error


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """A progress callback that draws one bar a step on standard error."""
    with progress_display() as display:
        tasks: dict[str, TaskID] = {}

        def progress(step: str, done: int, total: int | None) -> None:
            if step not in tasks:
                tasks[step] = display.add_task(step, total=total)
            display.update(tasks[step], completed=done, total=total)

        yield progress
