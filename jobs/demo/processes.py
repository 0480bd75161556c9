"""Runs the demo's commands as processes, and leaves none behind."""

import http.client
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from uic.jobs.demo.stages import DemoStage, Plan
from uic.models.errors import UicError
from uic.models.published import write_json_atomically

_READY_SECONDS: Final = 300.0
_END_SECONDS: Final = 30.0


class StageFailedError(UicError):
    """A stage of the demo failed; the line names its log and how to go on."""

    exit_code = 1


class Runner:
    """Runs stages; what they leave running is ended by `stack`.

    Args:
        plan: whose time zone and settings the commands get.
        workspace: of the demo.
        stack: closed by the caller of the stages, however they end.
        say: a line for people.
    """

    def __init__(
        self, plan: Plan, workspace: Path, stack: ExitStack, say: Callable[[str], None]
    ) -> None:
        self._workspace = workspace
        self._options = plan.options
        self._stack = stack
        self._say = say
        self._environment = {
            **os.environ,
            # A line of output is in the log when it is printed.
            "PYTHONUNBUFFERED": "1",
            "UIC_TIME_ZONE": plan.time_zone,
            **plan.environment,
        }

    def run(self, stage: DemoStage, command: Sequence[str]) -> None:
        """Run one stage; its output goes to the terminal and to its log.

        Raises:
            StageFailedError: it ended with another exit status than 0, or is not ready in time.
        """
        log = self._log(stage.name)
        if stage.background:
            self._start(stage, command, log)
            return
        if stage.ended_by:
            # Before it runs: a stage that fails half-way may have started what it is to end.
            self._stack.callback(self._end, stage)
        last = self._follow(command, log)
        if last.returncode:
            raise self._failure(stage, f"exit status {last.returncode}", log)
        if stage.keeps_json_as:
            self._keep_json(stage, log)

    def run_quietly(self, arguments: Sequence[str]) -> None:
        """Run a command that puts things in order; a failure shows in the next stage."""
        command = [*arguments, "--workspace", str(self._workspace)]
        self._say(f"$ uic {shlex.join(command)}")
        subprocess.run(  # noqa: S603 - our own command line, without a shell
            self._argv(command), env=self._environment, check=False
        )

    def _argv(self, command: Sequence[str]) -> list[str]:
        return [sys.executable, "-m", "uic", *command]

    def _log(self, name: str) -> Path:
        log = self._workspace / "logs" / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        return log

    def _follow(self, command: Sequence[str], log: Path) -> "subprocess.Popen[str]":
        with (
            log.open("w", encoding="utf-8") as sink,
            subprocess.Popen(  # noqa: S603 - as above
                self._argv(command),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=self._environment,
            ) as process,
        ):
            assert process.stdout is not None  # noqa: S101 - PIPE was asked for
            try:
                for line in process.stdout:
                    sys.stdout.write(f"    {line}")
                    sys.stdout.flush()
                    sink.write(line)
            except BaseException:
                # Ctrl-C: the child got it too; never leave it behind.
                process.terminate()
                raise
        return process

    def _start(self, stage: DemoStage, command: Sequence[str], log: Path) -> None:
        """Start a process that stays, in a session of its own: Ctrl-C is for the demo."""
        with log.open("w", encoding="utf-8") as sink:
            process = subprocess.Popen(  # noqa: S603 - as above
                self._argv(command),
                stdout=sink,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=self._environment,
                start_new_session=True,
            )
        self._stack.callback(end_session, process)
        until = time.monotonic() + _READY_SECONDS
        while time.monotonic() < until:
            if process.poll() is not None:
                raise self._failure(stage, f"exit status {process.returncode}", log)
            ready = ready_line_of(stage, log)
            if ready:
                self._say(f"    {ready}")
                return
            time.sleep(0.1)
        raise self._failure(stage, f"no answer in {_READY_SECONDS:.0f} s", log)

    def _end(self, stage: DemoStage) -> None:
        """Run the command that ends what a stage has left running."""
        command = [*stage.ended_by, "--workspace", str(self._workspace)]
        self._say(f"$ uic {shlex.join(command)}")
        subprocess.run(  # noqa: S603 - as above
            self._argv(command), env=self._environment, check=False, start_new_session=True
        )

    def _keep_json(self, stage: DemoStage, log: Path) -> None:
        """Keep the last line of output, one JSON document, for the report."""
        for line in reversed(log.read_text(encoding="utf-8").splitlines()):
            if line.startswith("{"):
                path = self._workspace / "reports" / str(stage.keeps_json_as)
                write_json_atomically(path, json.loads(line))
                return
        raise self._failure(stage, "no JSON in its output", log)

    def _failure(self, stage: DemoStage, reason: str, log: Path) -> StageFailedError:
        tail = " ".join(log.read_text(encoding="utf-8", errors="replace").split())[-300:]
        again = shlex.join(
            ["--from", stage.name, *self._options, "--workspace", str(self._workspace)]
        )
        msg = (
            f"stage {stage.name} failed with {reason}; log: {log} (…{tail}); "
            f"go on with: uic demo {again}"
        )
        return StageFailedError(msg)


def ready_line_of(stage: DemoStage, log: Path) -> str:
    """A line for people once a background stage is ready; empty until then."""
    if not stage.ready_line:
        url = f"http://127.0.0.1:{stage.port}"
        return f"{stage.name} is ready at {url}" if answers(stage.port, stage.ready_path) else ""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line for line in lines if stage.ready_line in line), "")


def answers(port: int, path: str) -> bool:
    """Whether something on loopback answers a GET with 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def end_session(process: "subprocess.Popen[bytes]") -> None:
    """TERM to the whole session, then KILL to what is left of it."""
    for number, seconds in ((signal.SIGTERM, _END_SECONDS), (signal.SIGKILL, _END_SECONDS)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
        if number == signal.SIGTERM:
            time.sleep(0.2)
    process.wait()
