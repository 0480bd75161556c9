"""Looks at one running attempt until it is over: by Flink's REST interface, the store, the topic.

A mini-cluster that has lost its only task manager stays RUNNING for ever, a store that was set back
is not noticed by workers that have nothing to write, a topic that was made anew may look like the
old one. So all three are looked at every two seconds.
"""

import contextlib
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from uic.feature_repo.store.errors import StoreClaimError
from uic.feature_repo.store.markers import NO_OFFSET
from uic.jobs.config.progress import Progress, no_progress
from uic.jobs.stream.fold.plan import JobPlan
from uic.jobs.stream.run.attempt import JOB_FILE
from uic.jobs.stream.run.failures import Failure, failure_of, read_failure
from uic.jobs.stream.run.file_feed import FileFeed
from uic.jobs.stream.run.flink_rest import FlinkError, FlinkRest
from uic.jobs.stream.run.lag_watch import LagWatch
from uic.jobs.stream.run.listeners import ListenerWatch
from uic.jobs.stream.run.metrics_relay import meant_ports
from uic.jobs.stream.run.planner import Planner
from uic.jobs.stream.run.topic_watch import TopicWatch
from uic.models.errors import UicError

_LOOK_SECONDS: Final = 2.0
_NO_TASK_MANAGER_SECONDS: Final = 10.0
_START_SECONDS: Final = 180.0
# A worker that starts anew loads the bundle and compiled code before its first batch.
_SHORTEST_STALL_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended: finished, stopped, failed, or refused for good; and why."""

    kind: str
    reason: str = ""
    progressed: bool = False


def _failed(failure: Failure) -> Outcome:
    return Outcome("refused" if failure.ends_run else "failed", failure.reason)


class AttemptWatch:
    """Looks at one running attempt until it is over."""

    def __init__(
        self,
        plan: JobPlan,
        process: "subprocess.Popen[bytes]",
        planner: Planner,
        stopping: Callable[[], bool],
        say: Callable[[str], None],
        *,
        progress: Progress = no_progress,
        first_starts: Mapping[int, int] | None = None,
    ) -> None:
        self._plan = plan
        self._process = process
        self._stopping = stopping
        self._progress = progress
        self._from = plan.starts if first_starts is None else first_starts
        self._feed = FileFeed(plan, planner) if plan.source == "files" else None
        now = time.monotonic()
        self._started = self._task_manager_at = self._checkpoint_at = now
        self._checkpoints = 0
        self._planner = planner
        # By partition, the store's markers of the last look; they never fall by themselves.
        self._markers = {
            partition: marker
            for partition, marker in plan.start_markers.items()
            if marker != NO_OFFSET
        }
        self._topic = TopicWatch(plan, plan.run_folder.parent)
        stream = plan.stream
        self._listeners = ListenerWatch(
            process.pid,
            {plan.rest_port: "Flink's REST", stream.prometheus_port: "Flink's metrics"},
            meant=meant_ports(stream),
            say=say,
        )
        self._stall_seconds = max(
            _SHORTEST_STALL_SECONDS,
            stream.stalled_checkpoints * stream.checkpoint_seconds,
            stream.retry_seconds + _SHORTEST_STALL_SECONDS,
        )

    def until_end(self) -> Outcome:
        """Wait for the attempt's end, and look once more at how far it came."""
        self._tell(self._markers)
        with LagWatch(self._planner, self._plan):
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
                outcome = self._look()
                if outcome is not None:
                    return outcome
            time.sleep(0.1)
        if self._process.returncode == 0:
            return Outcome("finished")
        return _failed(failure_of(self._plan.run_folder))

    def _read_markers(self) -> str:
        """What was lost since the look before; empty if nothing was, or the store is away.

        A worker holds its markers against the store's when it writes. This is the same for the
        hours in which no event comes.
        """
        with contextlib.suppress(UicError):
            marks = self._planner.generations.markers(self._plan.generation)
            now, before = marks.get(self._plan.epoch, {}), self._markers
            self._markers = now
            self._tell(now)
            return fell_behind(before, now, self._plan.epoch)
        return ""

    def _tell(self, markers: Mapping[int, int]) -> None:
        """How far it is, where the end is known."""
        if not self._plan.until_end:
            return
        left = {
            partition: (start, end - start)
            for partition, start in self._from.items()
            if (end := self._plan.ends.get(partition, 0)) > start
        }
        done = sum(
            min(max(markers.get(partition, NO_OFFSET) + 1 - start, 0), count)
            for partition, (start, count) in left.items()
        )
        self._progress("events read", done, sum(count for _, count in left.values()))

    def _taken_over(self) -> str:
        """What to say where another workspace has the store now; empty if none has."""
        try:
            self._planner.claim.refuse_other()
        except StoreClaimError as error:
            return str(error)
        except UicError:
            pass  # a store that is away is the workers' to notice
        return ""

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

    def _look(self) -> Outcome | None:
        """How this attempt has ended; None if it is well."""
        now = time.monotonic()
        rest = self._rest()
        self._listeners.look(runs=self._checkpoints > 0)
        if rest is None:
            late = now - self._started > _START_SECONDS
            self._task_manager_at = self._checkpoint_at = now
            return Outcome("failed", f"no job in {_START_SECONDS:.0f} s") if late else None
        if self._feed is not None:
            self._feed.hand_on()
        try:
            if rest.task_managers():
                self._task_manager_at = now
            completed = rest.completed_checkpoints()
            if completed > self._checkpoints:
                self._checkpoints, self._checkpoint_at = completed, now
            failure = read_failure(rest.failures())
        except FlinkError:
            failure = Failure("")  # no answer counts as no task manager
        if failure.ends_attempt:
            return _failed(failure)
        reason = (
            self._read_markers()
            or self._taken_over()
            or self._topic.look(self._markers)
            or self._stalled(failure)
        )
        return Outcome("failed", reason) if reason else None

    def _stalled(self, failure: Failure) -> str:
        now = time.monotonic()
        if now - self._task_manager_at > _NO_TASK_MANAGER_SECONDS:
            return f"no task manager for {_NO_TASK_MANAGER_SECONDS:.0f} s"
        limit = (
            self._stall_seconds if self._checkpoints else max(_START_SECONDS, self._stall_seconds)
        )
        if now - self._checkpoint_at > limit:
            return f"no checkpoint completed for {limit:.0f} s; {failure.reason}"
        return ""

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


def fell_behind(before: Mapping[int, int], now: Mapping[int, int], epoch: int) -> str:
    """What to say of markers, by partition, that stand behind earlier ones; empty if none does."""
    for partition, marker in sorted(before.items()):
        if now.get(partition, NO_OFFSET) < marker:
            return (
                f"epoch {epoch}, partition {partition}: the store's marker was at {marker} and is "
                f"at {now.get(partition, NO_OFFSET)}: an older copy of the store was restored"
            )
    return ""
