"""`uic stream`: run, stop and look at the job that folds events into memories."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from uic.jobs.commands.options import ConfigOption, WorkspaceOption
from uic.jobs.config.console import ERR, OUT
from uic.jobs.config.context import DEFAULT_WORKSPACE, Context, open_context

if TYPE_CHECKING:
    from types import FrameType

app = typer.Typer(
    no_args_is_help=True,
    help="Run the stream job: every behaviour event changes its user's memory.",
)
GenerationOption = Annotated[
    int | None, typer.Option(help="Generation to fold; default: the live one.")
]
_DETACHED_SECONDS = 240.0


def register(root: typer.Typer) -> None:
    """Add this group to the command line."""
    root.add_typer(app, name="stream")


@app.command()
def run(
    *,
    generation: GenerationOption = None,
    source: Annotated[
        str | None, typer.Option(help="kafka|files; default: stream.source of the settings.")
    ] = None,
    parallelism: Annotated[
        int | None, typer.Option(help="Subtasks; default: stream.parallelism of the settings.")
    ] = None,
    until_end: Annotated[
        bool, typer.Option("--until-end", help="Stop at the end that the source has now.")
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Leave it running and return when it streams.")
    ] = False,
    bundle: Annotated[
        Path | None, typer.Option(help="Bundle's directory; default: the generation's own.")
    ] = None,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Go on where retention has eaten the start.")
    ] = False,
    new_epoch: Annotated[
        bool, typer.Option("--new-epoch", help="Go on with a topic that was made anew.")
    ] = False,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Resume from this checkpoint or savepoint.")
    ] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Fold events into the memories of one generation, until stopped.

    It starts after the store's marker, else after the generation's snapshot, else at the first
    event, and says which. Attempts that fail are followed by the next one, from the marker. Ctrl-C
    (or `uic stream stop`) ends it with a savepoint.

    The same job on a Flink cluster: `uic stream plan` writes its plan, then
    `flink run -py jobs/stream/run/attempt.py PLAN`.
    """
    context = _with_stream(open_context(workspace, config), source, parallelism)
    if detach:
        _detach(context, generation)
        return
    from uic.jobs.stream.run.planner import Planner, RunOptions
    from uic.jobs.stream.run.supervisor import Supervisor

    options = RunOptions(
        generation=generation,
        bundle=bundle,
        until_end=until_end,
        accept_loss=accept_loss,
        new_epoch=new_epoch,
        restore_from=checkpoint,
    )
    supervisor = Supervisor(Planner(context, options), lambda line: ERR.print(line, markup=False))

    def on_signal(number: int, frame: "FrameType | None") -> None:
        del number, frame
        supervisor.request_stop()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    supervisor.run()


@app.command()
def plan(
    out: Annotated[Path, typer.Argument(help="Where to write the plan (JSON).")],
    *,
    generation: GenerationOption = None,
    parallelism: Annotated[int | None, typer.Option(help="Subtasks.")] = None,
    until_end: Annotated[
        bool, typer.Option("--until-end", help="Stop at the end that the source has now.")
    ] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Write the plan of the next run, for `flink run -py jobs/stream/run/attempt.py OUT`.

    Workers on a cluster need this package, the bundle's directory and UIC_STORE__PASSWORD.
    """
    from uic.jobs.stream.run.planner import Planner, RunOptions
    from uic.jobs.stream.run.start_positions import summary

    context = _with_stream(open_context(workspace, config), None, parallelism)
    planner = Planner(context, RunOptions(generation=generation, until_end=until_end))
    made, starts = planner.plan(planner.generation().number, attempt=1)
    if made.source == "files":
        planner.stage(made)
    out.write_text(made.model_dump_json(indent=1), encoding="utf-8")
    for line in summary(starts):
        OUT.print(f"generation {made.generation}, epoch {made.epoch}, {line}", markup=False)


@app.command()
def stop(
    *,
    generation: GenerationOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Stop the stream of a generation with a savepoint, and wait until it has ended."""
    from uic.jobs.stream.run.detached import stop_stream
    from uic.jobs.stream.run.planner import Planner, RunOptions

    context = open_context(workspace, config)
    number = Planner(context, RunOptions(generation=generation)).generation().number
    if not stop_stream(context, number):
        OUT.print(f"generation {number} was not streaming")
        return
    OUT.print(f"generation {number}: stopped")


@app.command()
def status(
    *,
    generation: GenerationOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Show rates, lag per partition, freshness and rejects of a generation's stream."""
    from uic.jobs.stream.run.report import status_lines

    context = open_context(workspace, config)
    for line in status_lines(context, generation):
        OUT.print(line, markup=False)


def _with_stream(context: Context, source: str | None, parallelism: int | None) -> Context:
    """The context with the options of the command line in its section `stream`."""
    from dataclasses import replace

    from pydantic import ValidationError

    from uic.jobs.config.stream import StreamSettings
    from uic.models.errors import BadInputError

    given = {"source": source, "parallelism": parallelism}
    chosen = {name: value for name, value in given.items() if value is not None}
    try:
        stream = StreamSettings(**{**context.config.stream.model_dump(), **chosen})
    except ValidationError as error:
        first = error.errors()[0]
        msg = f"--{first['loc'][0]}: {first['msg']} (found {first['input']!r})"
        raise BadInputError(msg) from error
    return replace(context, config=context.config.model_copy(update={"stream": stream}))


def _detach(context: Context, generation: int | None) -> None:
    """Run the same command without `--detach` in a session of its own; wait until it streams."""
    from uic.jobs.stream.run.attempt import JOB_FILE
    from uic.jobs.stream.run.planner import Planner, RunOptions
    from uic.jobs.stream.run.start_positions import folder_name
    from uic.jobs.stream.run.supervisor import StreamFailedError, running

    planner = Planner(context, RunOptions(generation=generation))
    number = planner.generation().number
    folder = planner.folder / folder_name(number)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "supervisor.log"
    arguments = [word for word in sys.argv[1:] if word != "--detach"]
    with log.open("wb") as out:
        process = subprocess.Popen(  # noqa: S603 - this very command
            [sys.executable, "-m", "uic", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    until = time.monotonic() + _DETACHED_SECONDS
    while time.monotonic() < until and process.poll() is None:
        found = running(folder)
        if found and (Path(found["plan"]).parent / JOB_FILE).exists():
            OUT.print(f"generation {number} streams (process {process.pid}, log {log})")
            return
        time.sleep(0.2)
    text = log.read_text(encoding="utf-8", errors="replace").strip()
    if process.poll() == 0:
        OUT.print(text, markup=False)
        return
    msg = f"the stream did not start; {log} says: {text[-600:]}"
    raise StreamFailedError(msg)
