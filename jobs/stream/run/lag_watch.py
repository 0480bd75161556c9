"""The lag of a running attempt, as a metric: written beside the attempt, and served with Flink's.

In a thread, since a broker that is away takes seconds to say nothing, and the supervisor's other
looks are every two. Where the lag is unknown there is no number, and no old one either.
"""

import threading
from typing import Final

from uic.jobs.stream.fold.plan import JobPlan
from uic.jobs.stream.run.lag import lag_of, lag_page
from uic.jobs.stream.run.metrics_relay import LAG_FILE
from uic.jobs.stream.run.planner import Planner
from uic.models.errors import UicError
from uic.models.published import write_bytes_atomically

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
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> None:
        """Begin to look; nothing is done for files, or where no port for metrics is set."""
        if self._plan.source == "kafka" and self._plan.metrics_port:
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
        try:
            page = lag_page(generation, lag_of(self._planner, generation))
            write_bytes_atomically(path, page.encode())
        except (UicError, OSError):  # the job itself notices a broker that is away, or a full disk
            path.unlink(missing_ok=True)

    def _run(self) -> None:
        while True:
            self.look()
            if self._ended.wait(_EACH_SECONDS):
                return
