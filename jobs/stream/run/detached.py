"""Streams as processes of their own: started, looked for and stopped from another command."""

import subprocess
import sys
from pathlib import Path
from typing import Final

import psutil

from uic.jobs.config.context import Context
from uic.jobs.stream.run.start_positions import folder_name
from uic.jobs.stream.run.supervisor import RUN_FILE, StreamFailedError, running

_STOP_SECONDS: Final = 240.0
# Streams that this process has started: kept, so that they are waited for when they are stopped.
_CHILDREN: "dict[int, subprocess.Popen[bytes]]" = {}


def stream_folder(context: Context, generation: int) -> Path:
    """Where a generation's stream keeps its attempts and its logs."""
    return context.workspace / "stream" / folder_name(generation)


def start_stream(context: Context, generation: int) -> "subprocess.Popen[bytes]":
    """Start `uic stream run` of a generation in a session of its own; does not wait for it."""
    folder = stream_folder(context, generation)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RUN_FILE).unlink(missing_ok=True)
    arguments = ["stream", "run", "--generation", str(generation)]
    arguments += ["--workspace", str(context.workspace)]
    if context.config_path is not None:
        arguments += ["--config", str(context.config_path)]
    with (folder / "supervisor.log").open("wb") as out:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "uic", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    _CHILDREN[process.pid] = process
    return process


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
