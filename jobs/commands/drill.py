"""`uic drill`: exercises that show that the system survives what it claims to survive."""

import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from jobs.context import ERR, OUT

app = typer.Typer(no_args_is_help=True, help="Break things on purpose, and look at the result.")


class Source(StrEnum):
    """Where the drill's events come from."""

    KAFKA = "kafka"
    FILES = "files"


def register(root: typer.Typer) -> None:
    """Add this group to the command line."""
    root.add_typer(app, name="drill")


@app.callback()
def _group() -> None:
    """Keep `crash` a command of its own."""


@app.command()
def crash(
    *,
    source: Annotated[Source, typer.Option(help="A real Kafka broker, or files.")] = Source.KAFKA,
    events: Annotated[int, typer.Option(min=1000, help="Events of the log.")] = 200_000,
    kills: Annotated[
        str,
        typer.Option(help="What is killed, in order: worker, java, redis, away, restore."),
    ] = "worker,redis,java,away,restore,worker,java",
    seed: Annotated[int, typer.Option(help="Of the log and of the moments.")] = 1,
    folder: Annotated[
        Path | None, typer.Option(help="New folder to work in; default: a temporary one.")
    ] = None,
) -> None:
    """Kill -9 Python workers, the JVM and Redis while events stream, then compare every memory.

    Prints what was killed and when. Ends with status 3 if a memory differs by one byte from the
    batch fold of the same log, or a dead letter is missing. `away` kills Redis for longer than a
    worker waits, `restore` puts it back to a copy of its files from before. Takes a few minutes;
    needs Java, and for Kafka `make jars`.
    """
    from jobs.drills.crash import KILLS, DrillOptions, run_drill
    from models.errors import BadInputError

    chosen = tuple(name.strip() for name in kills.split(",") if name.strip())
    for name in chosen:
        if name not in KILLS:
            msg = f"--kills: found {name!r}, expected any of {', '.join(KILLS)}"
            raise BadInputError(msg)
    if folder is not None and folder.exists() and any(folder.iterdir()):
        msg = f"--folder {folder}: not empty; give a new folder"
        raise BadInputError(msg)
    options = DrillOptions(source=source.value, events=events, kills=chosen, seed=seed)

    def say(line: str) -> None:
        ERR.print(line, markup=False)

    if folder is not None:
        report = run_drill(folder, options, say)
    else:
        with tempfile.TemporaryDirectory(prefix="uic-drill-") as temporary:
            report = run_drill(Path(temporary), options, say)
    OUT.print(
        f"{report.users:,} memories are byte for byte the batch fold of {events:,} events, after "
        f"{len(report.kills)} kills in {report.seconds:.0f} s",
        markup=False,
    )
