"""`uic stream run`: one attempt after the other, until the job is stopped or at its end.

Flink restarts a job by itself when a task fails, from its checkpoint. What it does not notice is
found here, by asking its REST interface every two seconds: a mini-cluster that has lost its only
task manager stays RUNNING for ever. An attempt ends when

* its process ends,
* there is no task manager for ten seconds,
* no checkpoint completes for several intervals,
* a worker ended with an error that a restart by Flink cannot mend (`UicError.passing` is False),
* the store's markers stand behind what they were at the look before: an older copy was restored,
* the topic is not the one that the attempt was planned for.

The next attempt is planned from the store's marker, after a pause that doubles. Where that is of no
use either (`UicError.replanned` is False, too), the run ends with the error's line. An error of the
system, such as a full disk, may pass.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil

from uic.jobs.config.progress import Progress, no_progress
from uic.jobs.stream.fold.plan import JobPlan
from uic.jobs.stream.run.attempt_watch import AttemptWatch, Outcome
from uic.jobs.stream.run.planner import Planner
from uic.jobs.stream.run.start_positions import folder_name, summary
from uic.jobs.stream.topics.brokers import brokers_of
from uic.models.errors import UicError
from uic.models.published import only_writer, write_json_atomically

RUN_FILE: Final = "run.json"
_LONGEST_BACKOFF_SECONDS: Final = 60.0
_KEPT_ATTEMPTS: Final = 5


class StreamFailedError(UicError):
    """The stream gave up after its last attempt."""

    exit_code = 1


class StreamBusyError(UicError):
    """A stream of this generation runs already."""


class Supervisor:
    """Runs the stream job of one generation.

    Args:
        planner: plans each attempt.
        say: remarks for people, one line each.
        progress: told how many events are read, rejected ones too, where the run has an end.
    """

    def __init__(
        self, planner: Planner, say: Callable[[str], None], progress: Progress = no_progress
    ) -> None:
        self._planner = planner
        self._say = say
        self._progress = progress
        # Where the first attempt began: a later one begins where that one ended.
        self._first_starts: dict[int, int] = {}
        self._stopping = False

    def request_stop(self) -> None:
        """Stop with a savepoint at the next look."""
        self._stopping = True

    def run(self) -> None:
        """Attempt after attempt.

        Raises:
            StreamBusyError: this generation streams already.
            StreamFailedError: `attempts` in a row failed without progress, or the last one with an
                error that no further attempt can mend.
            UicError: the job cannot be planned.
        """
        settings = self._planner.stream
        generation = self._planner.generation().number
        folder = self._planner.folder / folder_name(generation)
        failures, attempt = 0, 0
        with _only_one(folder, generation):
            shutil.rmtree(folder / "failed", ignore_errors=True)
            _remove_old_attempts(folder, keep=0)
            while True:
                attempt += 1
                outcome = self._attempt(generation, attempt, folder)
                if outcome.kind == "refused":
                    msg = f"generation {generation}: {outcome.reason}; logs are in {folder}"
                    raise StreamFailedError(msg)
                if outcome.kind != "failed":
                    self._say(f"attempt {attempt} {outcome.kind}{_because(outcome.reason)}")
                    return
                failures = 1 if outcome.progressed else failures + 1
                self._say(f"attempt {attempt} failed: {outcome.reason}")
                if failures >= settings.attempts:
                    msg = (
                        f"generation {generation}: {failures} attempts failed without progress, "
                        f"the last one: {outcome.reason}; logs are in {folder}"
                    )
                    raise StreamFailedError(msg)
                pause = settings.backoff_seconds * 2 ** (failures - 1)
                self._pause(min(pause, _LONGEST_BACKOFF_SECONDS))
                if self._stopping:
                    return
                _remove_old_attempts(folder, keep=_KEPT_ATTEMPTS)

    def _attempt(self, generation: int, attempt: int, folder: Path) -> Outcome:
        """Plan an attempt and run it; what may pass by itself makes a failed one."""
        try:
            return self._planned(generation, attempt, folder)
        except UicError as error:
            if not error.passing:
                raise
            return Outcome("failed", str(error))
        except OSError as error:  # a full disk, a file system that is away
            return Outcome("failed", f"the system says: {error}")

    def _planned(self, generation: int, attempt: int, folder: Path) -> Outcome:
        plan, starts = self._planner.plan(generation, attempt)
        self._first_starts = self._first_starts or dict(plan.starts)
        if attempt == 1 or self._planner.stream.source == "kafka":
            for line in summary(starts):
                self._say(f"generation {generation}, epoch {plan.epoch}, {line}")
        left = sum(plan.ends[start.partition] > start.offset for start in starts)
        if plan.until_end and not left:
            return Outcome("finished", "there was nothing to read")
        if plan.source == "files":
            self._planner.stage(plan)
        process = _start(plan, self._planner.address.password)
        try:
            write_json_atomically(
                folder / RUN_FILE,
                {
                    "pid": os.getpid(),
                    "created": psutil.Process().create_time(),
                    "generation": generation,
                    "attempt": attempt,
                    "attempt_pid": process.pid,
                    "rest_port": plan.rest_port,
                    "plan": str(plan.run_folder / "plan.json"),
                },
            )
            watch = AttemptWatch(
                plan,
                process,
                self._planner,
                lambda: self._stopping,
                self._say,
                progress=self._progress,
                first_starts=self._first_starts,
            )
            return watch.until_end()
        finally:
            _end(process)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._stopping:
            time.sleep(0.1)


def _start(plan: JobPlan, password: str | None) -> "subprocess.Popen[bytes]":
    # Not in the plan, which is a file.
    secrets = {"UIC_STORE__PASSWORD": password} if password else {}
    if plan.uses_kafka:
        secrets |= brokers_of(plan.stream).java_environment()
    path = plan.run_folder / "plan.json"
    path.write_text(plan.model_dump_json(indent=1), encoding="utf-8")
    with (plan.run_folder / "out.log").open("wb") as out:
        return subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "uic.jobs.stream.run.attempt", str(path)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=os.environ | secrets,
            # Its own group: Java and the workers are in it too, and end with it.
            start_new_session=True,
        )


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End an attempt's whole group; workers outlive a Java that was killed."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def _only_one(folder: Path, generation: int) -> Iterator[None]:
    msg = (
        f"{folder}: generation {generation} streams already; "
        "`uic stream status` shows it, `uic stream stop` ends it"
    )
    with only_writer(folder / ".lock", StreamBusyError(msg)):
        try:
            yield
        finally:
            (folder / RUN_FILE).unlink(missing_ok=True)


def running(folder: Path) -> dict[str, Any] | None:
    """`run.json` of a generation's folder, if its supervisor is alive."""
    try:
        document: dict[str, Any] = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
        process = psutil.Process(document["pid"])
        same = abs(process.create_time() - document["created"]) < 1.0
    except (OSError, ValueError, KeyError, psutil.NoSuchProcess):
        return None
    return document if same and process.is_running() else None


def all_running(workspace: Path) -> list[dict[str, Any]]:
    """`run.json` of each generation of a workspace whose supervisor is alive."""
    folders = sorted((workspace / "stream").glob("generation=*"))
    return [run for folder in folders if (run := running(folder)) is not None]


def is_streaming(workspace: Path) -> bool:
    """Whether the supervisor of any generation of a workspace is alive."""
    return bool(all_running(workspace))


def _remove_old_attempts(folder: Path, keep: int) -> None:
    attempts = sorted(folder.glob("attempt=*"))
    for old in attempts[: len(attempts) - keep]:
        shutil.rmtree(old, ignore_errors=True)


def _because(reason: str) -> str:
    return f" ({reason})" if reason else ""
