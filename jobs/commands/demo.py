"""`uic demo`: the whole system at work, one plain command after the other."""

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from jobs.context import DEFAULT_WORKSPACE, OUT, ConfigOption, WorkspaceOption, open_context


def register(root: typer.Typer) -> None:
    """Add `demo` to the command line."""
    root.command()(demo)


def demo(
    start: Annotated[
        str | None,
        typer.Option("--from", help="Rerun from this stage; default: all, from nothing."),
    ] = None,
    shared_data: Annotated[
        Path,
        typer.Option(envvar="UIC_SHARED_DATA", help="Folder of real data; else the simulator."),
    ] = Path("../shared/data"),
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Run the main job on embedded defaults and say where to look.

    Real data (KuaiRand) if it is there, else the simulator. Every stage prints the plain command
    that it runs, so that the demo is the tutorial. The workspace is emptied first, if an earlier
    demo made it; a folder with anything else in it is refused.
    """
    from jobs.demo import make_plan, run_plan

    context = open_context(workspace, config)
    plan = make_plan(shared_data)
    if context.config_path is not None:
        os.environ["UIC_CONFIG"] = str(context.config_path.resolve())
    OUT.print(f"[bold]data:[/] {escape(plan.data)}, days of {plan.time_zone}")
    OUT.print(f"to run a command yourself: export UIC_TIME_ZONE={shlex.quote(plan.time_zone)}")
    seconds = run_plan(plan, workspace, start, lambda line: OUT.print(f"[bold]{escape(line)}[/]"))
    OUT.print(f"\n[bold]done[/] in {sum(seconds.values()):.0f} s. Look at:")
    OUT.print(f"  {context.reports / 'quality' / 'behaviors.html'}   what the gates saw")
    OUT.print(f"  {context.samples / 'default' / 'manifest.json'}   the training samples")
    OUT.print("  uic check --help, uic samples --help   the same, by hand")
