"""`uic stream`: run, stop and look at the job that folds events into memories."""

import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from uic.jobs.commands import completion
from uic.jobs.commands.options import UntilEndOption, shown_progress, takes_workspace
from uic.jobs.config.console import ERR, OUT
from uic.jobs.config.progress import no_progress
from uic.jobs.workspace.workspace import Workspace

if TYPE_CHECKING:
    from types import FrameType

    from uic.jobs.stream.run.supervisor import Supervisor

app = typer.Typer(
    no_args_is_help=True,
    help="Run the stream job: every behaviour event changes its user's memory.",
)
GenerationOption = Annotated[
    int | None,
    typer.Option(
        help="Generation to fold; default: the live one.", autocompletion=completion.generations
    ),
]
SourceOption = Annotated[
    str | None, typer.Option(help="kafka|files; default: stream.source of the settings.")
]
ParallelismOption = Annotated[
    int | None, typer.Option(help="Subtasks; default: stream.parallelism of the settings.")
]
DetachOption = Annotated[
    bool, typer.Option("--detach", help="Leave it running and return when it streams.")
]
BundleOption = Annotated[
    Path | None, typer.Option(help="Bundle's directory; default: the generation's own.")
]
AcceptLossOption = Annotated[
    bool, typer.Option("--accept-loss", help="Go on where retention has eaten the start.")
]
NewEpochOption = Annotated[
    bool, typer.Option("--new-epoch", help="Go on with a topic that was made anew.")
]
CheckpointOption = Annotated[
    Path | None, typer.Option(help="Resume from this checkpoint or savepoint.")
]


@app.command()
@takes_workspace
def run(
    *,
    generation: GenerationOption = None,
    source: SourceOption = None,
    parallelism: ParallelismOption = None,
    until_end: UntilEndOption = False,
    detach: DetachOption = False,
    bundle: BundleOption = None,
    accept_loss: AcceptLossOption = False,
    new_epoch: NewEpochOption = False,
    checkpoint: CheckpointOption = None,
    workspace: Workspace,
) -> None:
    """Fold events into the memories of one generation, until stopped.

    It starts after the store's marker, else after the generation's snapshot, else at the first
    event, and says which. Attempts that fail are followed by the next one, from the marker. Ctrl-C
    (or `uic stream stop`) ends it with a savepoint.

    The same job on a Flink cluster: `uic stream plan` writes its plan, then
    `flink run -py jobs/stream/run/attempt.py PLAN`.
    """
    if detach:
        _detach(workspace, generation)
        return
    with shown_progress() if until_end else nullcontext(no_progress) as progress:
        supervisor = workspace.stream.supervisor(
            generation=generation, source=source, parallelism=parallelism, until_end=until_end,
            bundle=bundle, accept_loss=accept_loss, new_epoch=new_epoch, checkpoint=checkpoint,
            say=lambda line: ERR.print(line, markup=False), progress=progress,
        )  # fmt: skip
        _run_until_signal(supervisor)


def _run_until_signal(supervisor: "Supervisor") -> None:
    def on_signal(number: int, frame: "FrameType | None") -> None:
        del number, frame
        supervisor.request_stop()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    supervisor.run()


def _detach(workspace: Workspace, generation: int | None) -> None:
    """Run the same command without `--detach` in a session of its own; wait until it streams."""
    arguments = [word for word in sys.argv[1:] if word != "--detach"]
    started = workspace.stream.start(generation, arguments)
    if started.ended is not None:
        OUT.print(started.ended, markup=False)
        return
    OUT.print(f"generation {started.generation} streams (process {started.pid}, log {started.log})")


@app.command()
@takes_workspace
def plan(
    out: Annotated[Path, typer.Argument(help="Where to write the plan (JSON).")],
    *,
    generation: GenerationOption = None,
    parallelism: ParallelismOption = None,
    until_end: UntilEndOption = False,
    workspace: Workspace,
) -> None:
    """Write the plan of the next run, for `flink run -py jobs/stream/run/attempt.py OUT`.

    Workers on a cluster need this package, the bundle's directory and UIC_STORE__PASSWORD.
    """
    from uic.jobs.stream.run.start_positions import summary

    planned = workspace.stream.plan(
        out, generation=generation, parallelism=parallelism, until_end=until_end
    )
    for line in summary(planned.starts):
        where = f"generation {planned.plan.generation}, epoch {planned.plan.epoch}"
        OUT.print(f"{where}, {line}", markup=False)


@app.command()
@takes_workspace
def stop(*, generation: GenerationOption = None, workspace: Workspace) -> None:
    """Stop the stream of a generation with a savepoint, and wait until it has ended."""
    number, streamed = workspace.stream.stop(generation)
    state = ": stopped" if streamed else " was not streaming"
    OUT.print(f"generation {number}{state}")


@app.command()
@takes_workspace
def status(*, generation: GenerationOption = None, workspace: Workspace) -> None:
    """Show rates, lag per partition, freshness and rejects of a generation's stream."""
    for line in workspace.stream.status(generation):
        OUT.print(line, markup=False)
