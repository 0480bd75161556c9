"""Looks at `freshness` of the workspace's `state.yaml`, and at how far the records are."""

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic

from uic.feature_repo.store.errors import EmptyStoreError
from uic.feature_repo.store.folded_until import FoldedUntil
from uic.feature_repo.store.generations import Generations
from uic.jobs.serving.follow.follower import S
from uic.jobs.serving.read.freshness import RecordsFreshness
from uic.jobs.serving.read.metrics import ServiceMetrics
from uic.jobs.serving.score.sequences import SequenceScorer
from uic.models.state.definition import freshness_of
from uic.models.state.freshness import Freshness


@dataclass
class FreshnessProbe(Generic[S]):
    """Changes no scorer: tells `told` what it finds.

    Args:
        workspace: whose file.
        generations: of the store; which is live.
        folded: of the store.
        metrics: of this process.
        told: of the engine.
    """

    workspace: Path
    generations: Generations
    folded: FoldedUntil
    metrics: ServiceMetrics
    told: RecordsFreshness
    name: str = "freshness"
    _policy: Freshness | None = None
    _stamp: tuple[int, int] | None = field(default=None)

    async def look(self, current: S) -> None:
        """See `ChangeProbe`."""
        await asyncio.to_thread(self.read, current)

    def read(self, current: S) -> None:
        """Look once.

        Raises:
            StateFileError: the file is none; what it said before stays.
            StoreError: the store does not answer.
        """
        reads_records = not isinstance(current, SequenceScorer) or current.reads_parts
        policy = self._followed() if reads_records else None
        until = None
        if policy is not None:
            try:
                until = self.folded.read(self.generations.live())
            except EmptyStoreError:
                until = None  # answers say so themselves
        self.told.found(policy, until)
        behind = self.told.behind_seconds(time.time())
        self.metrics.records_behind.set(0.0 if behind is None else behind)

    def _followed(self) -> Freshness | None:
        path = self.workspace / "state.yaml"
        try:
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_size)
        except OSError:
            stamp = None
        if stamp != self._stamp:
            self._policy = freshness_of(self.workspace)
            self._stamp = stamp
        return self._policy
