"""The lag of a running attempt, as a metric: written beside the attempt, and served with Flink's.

In a thread, since a broker that is away takes seconds to say nothing, and the supervisor's other
looks are every two. Where the lag is unknown there is no number, and no old one either.

Where the workspace's `state.yaml` limits how far records may be behind (`freshness`), it also notes
in the store when each partition last had nothing left to fold, for the services that read them.
"""

import threading
import time
from typing import Final

from uic.feature_repo.store.folded_until import FoldedUntil
from uic.jobs.stream.fold.plan import JobPlan
from uic.jobs.stream.run.lag import SourceLag, lag_of, lag_page
from uic.jobs.stream.run.metrics_relay import LAG_FILE
from uic.jobs.stream.run.planner import Planner
from uic.models.errors import UicError
from uic.models.published import write_bytes_atomically
from uic.models.state.definition import freshness_of
from uic.models.state.part import StateFileError

_EACH_SECONDS: Final = 15.0
_LAST_LOOK_SECONDS: Final = 60.0


class LagWatch:
    """Keeps the lag of one attempt in a file; of a topic whose metrics are asked for.

    Args:
        planner: of the run.
        plan: of the attempt.
    """

    def __init__(self, planner: Planner, plan: JobPlan) -> None:
        self._planner, self._plan = planner, plan
        self._shows = plan.source == "kafka" and plan.metrics_port > 0
        self._caught_up_ms: dict[int, int] = {}
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> None:
        """Begin to look, for a metric of a topic or for the services' freshness."""
        if self._shows or self._limits():
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        """End, after the look that is under way."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(_LAST_LOOK_SECONDS)

    def look(self) -> None:
        """Write how far the attempt is behind, or remove what was written if it is unknown."""
        path = self._plan.run_folder / LAG_FILE
        generation = self._plan.generation
        now_ms = int(time.time() * 1000)
        try:
            lag = lag_of(self._planner, generation)
            if self._shows:
                write_bytes_atomically(path, lag_page(generation, lag).encode())
            if self._limits():
                self._note(lag, now_ms)
        except (UicError, OSError):  # the job itself notices a broker that is away, or a full disk
            path.unlink(missing_ok=True)

    def _limits(self) -> bool:
        try:
            return freshness_of(self._planner.context.workspace) is not None
        except StateFileError:  # the service says so
            return False

    def _note(self, lag: SourceLag, now_ms: int) -> None:
        """Note of each partition when nothing was left; one that is not read stays as it was."""
        for partition, events in lag.behind.items():
            if events == 0:
                self._caught_up_ms[partition] = now_ms
            self._caught_up_ms.setdefault(partition, 0)
        for partition in lag.unread:
            self._caught_up_ms.setdefault(partition, now_ms)
        if self._caught_up_ms:
            planner = self._planner
            folded = FoldedUntil(planner.client, planner.keys, str(planner.address))
            folded.note(self._plan.generation, self._plan.epoch, self._caught_up_ms)

    def _run(self) -> None:
        while True:
            self.look()
            if self._ended.wait(_EACH_SECONDS):
                if self._limits():
                    self.look()  # what a stream that ends has folded
                return
