"""Streams as processes of their own: started, looked for and stopped from another command."""

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from uic.jobs.config.context import Context
from uic.jobs.stream.run.attempt import JOB_FILE
from uic.jobs.stream.run.planner import Planner, RunOptions
from uic.jobs.stream.run.start_positions import folder_name
from uic.jobs.stream.run.supervisor import RUN_FILE, StreamFailedError, running

LOG_FILE: Final = "supervisor.log"
_STOP_SECONDS: Final = 240.0
_START_SECONDS: Final = 240.0
# Streams that this process has started: kept, so that they are waited for when they are stopped.
_CHILDREN: "dict[int, subprocess.Popen[bytes]]" = {}


def stream_folder(context: Context, generation: int) -> Path:
    """Where a generation's stream keeps its attempts and its logs."""
    return context.workspace / "stream" / folder_name(generation)


@dataclass(frozen=True)
class DetachedStream:
    """A stream that was started in a session of its own.

    Attributes:
        generation: that it folds.
        pid: of its process.
        log: what it says.
        ended: what it said, if it reached its end before it was seen to stream; else None.
    """

    generation: int
    pid: int
    log: Path
    ended: str | None = None


def start_stream(
    context: Context, generation: int, arguments: Sequence[str] | None = None
) -> "subprocess.Popen[bytes]":
    """Start `uic stream run` of a generation in a session of its own; does not wait for it.

    Args:
        context: workspace and configuration.
        generation: to fold.
        arguments: of `uic`; None: those of this workspace, configuration and generation.
    """
    folder = stream_folder(context, generation)
    folder.mkdir(parents=True, exist_ok=True)
    if arguments is None:
        (folder / RUN_FILE).unlink(missing_ok=True)
        arguments = ["stream", "run", "--generation", str(generation)]
        arguments += ["--workspace", str(context.workspace)]
        if context.config_path is not None:
            arguments += ["--config", str(context.config_path)]
    with (folder / LOG_FILE).open("wb") as out:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "uic", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    _CHILDREN[process.pid] = process
    return process


def start_and_wait(
    context: Context, generation: int | None, arguments: Sequence[str] | None
) -> DetachedStream:
    """Start a stream and wait until it streams, or has reached its end.

    Args:
        context: workspace and configuration.
        generation: to fold; None: the live one.
        arguments: as in `start_stream`.

    Raises:
        StreamFailedError: it ended with an error, or did not stream in time.
    """
    number = Planner(context, RunOptions(generation=generation)).generation().number
    folder = stream_folder(context, number)
    log = folder / LOG_FILE
    process = start_stream(context, number, arguments)
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        run = running(folder)
        if run and (Path(run["plan"]).parent / JOB_FILE).exists():
            return DetachedStream(number, process.pid, log)
        time.sleep(0.2)
    text = log.read_text(encoding="utf-8", errors="replace").strip()
    if process.poll() == 0:
        return DetachedStream(number, process.pid, log, text)
    msg = f"the stream did not start; {log} says: {text[-600:]}"
    raise StreamFailedError(msg)


def stop_stream(context: Context, generation: int) -> bool:
    """Stop a generation's stream with a savepoint, and wait until it has ended.

    Returns:
        Whether it was streaming.

    Raises:
        StreamFailedError: it did not end.
    """
    found = running(stream_folder(context, generation))
    if found is None:
        _forget_ended()
        return False
    try:
        process = psutil.Process(found["pid"])
        process.terminate()
        process.wait(_STOP_SECONDS)
    except psutil.NoSuchProcess:
        pass  # it ended by itself meanwhile
    except psutil.TimeoutExpired as error:
        msg = f"the stream (process {found['pid']}) did not end in {_STOP_SECONDS:.0f} s"
        raise StreamFailedError(msg) from error
    if found["pid"] in _CHILDREN:
        _CHILDREN.pop(found["pid"]).wait()
    return True


def _forget_ended() -> None:
    for pid, process in list(_CHILDREN.items()):
        if process.poll() is not None:
            del _CHILDREN[pid]
