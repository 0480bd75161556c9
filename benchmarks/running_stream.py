"""Our stream as the benchmarks run it: supervised in a thread, on a Redis of its own."""

import threading
from pathlib import Path
from typing import Any

from harness import say

from uic.jobs.drills.trial import start_trial, trial_context
from uic.jobs.stream.fold.status import read_status
from uic.jobs.stream.run.planner import Planner, RunOptions
from uic.jobs.stream.run.supervisor import Supervisor
from uic.models.bundles.bundle import Bundle

PARTITIONS = 4


class Ours:
    """Our stream in a workspace of its own, supervised in a thread."""

    def __init__(
        self,
        folder: Path,
        brokers: str,
        topic: str,
        bundle: Bundle | None = None,
        **stream: Any,
    ) -> None:
        settings = {"brokers": brokers, "topic": topic, "parallelism": 2, **stream}
        self.context = trial_context(folder, settings)
        self.server, _ = start_trial(self.context, bundle=bundle)
        self.planner = Planner(self.context, RunOptions())
        self.supervisor = Supervisor(self.planner, say)
        self.thread = threading.Thread(target=self.supervisor.run, daemon=True)

    def __enter__(self) -> "Ours":
        """Start streaming."""
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it, and Redis."""
        self.supervisor.request_stop()
        self.thread.join(120)
        self.server.stop()

    def folded(self) -> int:
        """Events that the markers have passed."""
        marks = self.planner.generations.markers(1)
        return sum(offset + 1 for epoch in marks.values() for offset in epoch.values())

    def status(self):
        """Counts of the workers."""
        return read_status(self.planner.client, self.planner.keys.project, 1)
