"""`uic stream run`: one attempt after the other, until the job is stopped or at its end.

Flink restarts a job by itself when a task fails, from its checkpoint. What it does not notice is
found here, by asking its REST interface every two seconds: a mini-cluster that has lost its only
task manager stays RUNNING for ever. An attempt ends when

* its process ends,
* there is no task manager for ten seconds,
* no checkpoint completes for several intervals,
* a worker found that the store fell behind its marker (a restart by Flink would start from the
  checkpoint, which is beyond it).

The next attempt is planned from the store's marker, after a pause that doubles.
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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import psutil

from uic.feature_repo.store.errors import StoreFullError, StoreReadOnlyError, StoreUnavailableError
from uic.feature_repo.store.markers import NO_OFFSET
from uic.jobs.stream.fold.plan import JobPlan
from uic.jobs.stream.run.attempt import JOB_FILE
from uic.jobs.stream.run.failures import failure_of, readable
from uic.jobs.stream.run.file_feed import FileFeed
from uic.jobs.stream.run.flink_rest import FlinkError, FlinkRest
from uic.jobs.stream.run.planner import Planner
from uic.jobs.stream.run.start_positions import folder_name, summary
from uic.jobs.stream.run.topic_watch import TopicWatch
from uic.jobs.stream.topics.kafka_topic import NoBrokerError
from uic.models.errors import UicError
from uic.models.published import only_writer, write_json_atomically

RUN_FILE: Final = "run.json"
_LOOK_SECONDS: Final = 2.0
_NO_TASK_MANAGER_SECONDS: Final = 10.0
_START_SECONDS: Final = 180.0
# A worker that starts anew loads the bundle and compiled code before its first batch.
_SHORTEST_STALL_SECONDS: Final = 60.0
_LONGEST_BACKOFF_SECONDS: Final = 60.0
_KEPT_ATTEMPTS: Final = 5
# Errors of planning that may pass by themselves; others end the run.
_PASSING: Final = (StoreUnavailableError, StoreReadOnlyError, StoreFullError, NoBrokerError)
# A restart from Flink's checkpoint cannot mend these.
_FATAL_FOR_ATTEMPT: Final = (
    "StoreFellBehindError",
    "EmptyStoreError",
    "GenerationStateError",
    "UnfitGenerationError",
    "LogGapError",
)


class StreamFailedError(UicError):
    """The stream gave up after its last attempt."""

    exit_code = 1


class StreamBusyError(UicError):
    """A stream of this generation runs already."""


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended: finished, stopped or failed, and why."""

    kind: str
    reason: str = ""
    progressed: bool = False


class Supervisor:
    """Runs the stream job of one generation.

    Args:
        planner: plans each attempt.
        say: remarks for people, one line each.
    """

    def __init__(self, planner: Planner, say: Callable[[str], None]) -> None:
        self._planner = planner
        self._say = say
        self._stopping = False

    def request_stop(self) -> None:
        """Stop with a savepoint at the next look."""
        self._stopping = True

    def run(self) -> None:
        """Attempt after attempt.

        Raises:
            StreamBusyError: this generation streams already.
            StreamFailedError: `attempts` in a row failed without progress.
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
        try:
            plan, starts = self._planner.plan(generation, attempt)
        except _PASSING as error:
            return Outcome("failed", str(error))
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
            return AttemptWatch(plan, process, self._planner, lambda: self._stopping).until_end()
        finally:
            _end(process)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._stopping:
            time.sleep(0.1)


class AttemptWatch:
    """Looks at one running attempt until it is over."""

    def __init__(
        self,
        plan: JobPlan,
        process: "subprocess.Popen[bytes]",
        planner: Planner,
        stopping: Callable[[], bool],
    ) -> None:
        self._plan = plan
        self._process = process
        self._stopping = stopping
        self._feed = FileFeed(plan, planner) if plan.source == "files" else None
        now = time.monotonic()
        self._started = self._task_manager_at = self._checkpoint_at = now
        self._checkpoints = 0
        self._planner = planner
        self._markers: dict[int, int] = {}
        self._topic = TopicWatch(plan, plan.run_folder.parent)
        stream = plan.stream
        self._stall_seconds = max(
            _SHORTEST_STALL_SECONDS,
            stream.stalled_checkpoints * stream.checkpoint_seconds,
            stream.retry_seconds + _SHORTEST_STALL_SECONDS,
        )

    def until_end(self) -> Outcome:
        """Wait for the attempt's end, and look once more at how far it came."""
        outcome = self._until_end()
        self._read_markers()
        if self._markers:
            self._topic.look(self._markers, now=True)
        return replace(outcome, progressed=self._progressed())

    def _until_end(self) -> Outcome:
        looked = 0.0
        while self._process.poll() is None:
            if self._stopping():
                return self._stop()
            if time.monotonic() - looked >= _LOOK_SECONDS:
                looked = time.monotonic()
                reason = self._look()
                if reason:
                    return Outcome("failed", reason)
            time.sleep(0.1)
        if self._process.returncode == 0:
            return Outcome("finished")
        return Outcome("failed", failure_of(self._plan.run_folder))

    def _read_markers(self) -> None:
        """A store that is away leaves those that were read last."""
        with contextlib.suppress(UicError):
            marks = self._planner.generations.markers(self._plan.generation)
            self._markers = marks.get(self._plan.epoch, {})

    def _progressed(self) -> bool:
        """Whether events were folded; a checkpoint while what is known is read again is none."""
        return any(
            marker > self._plan.start_markers.get(partition, NO_OFFSET)
            for partition, marker in self._markers.items()
        )

    def _rest(self) -> FlinkRest | None:
        with contextlib.suppress(OSError):
            job = (self._plan.run_folder / JOB_FILE).read_text(encoding="utf-8")
            return FlinkRest(self._plan.rest_port, job) if job else None
        return None

    def _look(self) -> str:
        """Why this attempt is over; empty if it is well."""
        now = time.monotonic()
        rest = self._rest()
        if rest is None:
            late = now - self._started > _START_SECONDS
            self._task_manager_at = self._checkpoint_at = now
            return f"the job did not start in {_START_SECONDS:.0f} s" if late else ""
        if self._feed is not None:
            self._feed.hand_on()
        try:
            if rest.task_managers():
                self._task_manager_at = now
            completed = rest.completed_checkpoints()
            if completed > self._checkpoints:
                self._checkpoints, self._checkpoint_at = completed, now
                self._read_markers()
            failures = rest.failures()
        except FlinkError:
            failures = ""  # no answer counts as no task manager
        if any(name in failures for name in _FATAL_FOR_ATTEMPT):
            return readable(failures)
        if now - self._task_manager_at > _NO_TASK_MANAGER_SECONDS:
            return f"no task manager for {_NO_TASK_MANAGER_SECONDS:.0f} s"
        limit = (
            self._stall_seconds if self._checkpoints else max(_START_SECONDS, self._stall_seconds)
        )
        if now - self._checkpoint_at > limit:
            return f"no checkpoint completed for {limit:.0f} s; {readable(failures)}"
        return self._topic.look(self._markers)

    def _stop(self) -> Outcome:
        rest = self._rest()
        if rest is None:
            return Outcome("stopped", "before the job had started")
        try:
            savepoint = rest.stop_with_savepoint()
        except FlinkError as error:
            return Outcome("stopped", f"without a savepoint: {error}")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(30)
        return Outcome("stopped", f"savepoint {savepoint.removeprefix('file:')}")


def _start(plan: JobPlan, password: str | None) -> "subprocess.Popen[bytes]":
    path = plan.run_folder / "plan.json"
    path.write_text(plan.model_dump_json(indent=1), encoding="utf-8")
    with (plan.run_folder / "out.log").open("wb") as out:
        return subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "uic.jobs.stream.run.attempt", str(path)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            # Not in the plan, which is a file.
            env=os.environ | ({"UIC_STORE__PASSWORD": password} if password else {}),
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


def _remove_old_attempts(folder: Path, keep: int) -> None:
    attempts = sorted(folder.glob("attempt=*"))
    for old in attempts[: len(attempts) - keep]:
        shutil.rmtree(old, ignore_errors=True)


def _because(reason: str) -> str:
    return f" ({reason})" if reason else ""
