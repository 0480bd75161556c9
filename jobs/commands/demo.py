"""`uic demo`: the whole system at work, one plain command after the other."""

import os
import shlex
import signal
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from uic.jobs.commands.options import ConfigOption, WorkspaceOption
from uic.jobs.config.console import OUT
from uic.jobs.config.context import DEFAULT_WORKSPACE, Context, open_context

StartOption = Annotated[
    str | None, typer.Option("--from", help="Rerun from this stage; default: all, from nothing.")
]
SharedDataOption = Annotated[
    Path, typer.Option(envvar="UIC_SHARED_DATA", help="Folder of real data; else the simulator.")
]
QuickOption = Annotated[
    bool, typer.Option("--quick", help="A small simulation: to see all stages, not figures.")
]
KafkaOption = Annotated[
    bool, typer.Option("--kafka", help="Through a real Kafka broker (needs Java and jars).")
]


def demo(
    *,
    start: StartOption = None,
    shared_data: SharedDataOption = Path("../shared/data"),
    quick: QuickOption = False,
    kafka: KafkaOption = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Run the main job on embedded defaults and say where to look.

    Real data (KuaiRand) if it is there, else the simulator. Every stage prints the plain command
    that it runs, so that the demo is the tutorial. The workspace is emptied first, if an earlier
    demo made it; a folder with anything else in it is refused.

    With --kafka the replayed day goes through a real broker. Its events keep the times at which
    they happened, but become part of today's log: a broker's log time is when it got them.
    """
    from uic.jobs.demo.run import run_plan
    from uic.jobs.demo.stages import make_plan

    context = open_context(workspace, config)
    plan = make_plan(shared_data, quick=quick, kafka=kafka)
    if context.config_path is not None:
        os.environ["UIC_CONFIG"] = str(context.config_path.resolve())
    OUT.print(f"[bold]data:[/] {escape(plan.data)}, days of {plan.time_zone}")
    settings = {"UIC_TIME_ZONE": plan.time_zone, **plan.environment}
    exports = " ".join(f"{name}={shlex.quote(value)}" for name, value in settings.items())
    OUT.print(f"to run a command yourself: export {exports}", markup=False)
    # A polite kill ends the demo as Ctrl-C does: whatever it started is ended first.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    seconds = run_plan(plan, workspace, start, lambda line: OUT.print(f"[bold]{escape(line)}[/]"))
    _say_where_to_look(context, sum(seconds.values()))


def _say_where_to_look(context: Context, seconds: float) -> None:
    OUT.print(f"\n[bold]done[/] in {seconds:.0f} s. Look at:")
    OUT.print(f"  {context.reports / 'index.html'}   the whole day on one page")
    OUT.print(f"  {context.reports / 'quality' / 'behaviors.html'}   what the gates saw")
    OUT.print(f"  uic store start --workspace {context.workspace}   and look around: uic --help")
