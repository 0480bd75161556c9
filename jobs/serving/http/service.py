"""One worker of the service: everything it holds, from opening to closing."""

import asyncio
import contextlib
import gc
import logging
import os
import time
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, Final

import torch
from feast import FeatureStore

from uic.jobs.config.context import Context
from uic.jobs.config.serve import ServeSettings
from uic.jobs.serving.follow.follower import Follower
from uic.jobs.serving.http.api import chosen_order
from uic.jobs.serving.http.feature_log import FeatureLog
from uic.jobs.serving.http.parts import ServiceParts
from uic.jobs.serving.rank.engine import RankingEngine
from uic.jobs.serving.read.metrics import ServiceMetrics
from uic.jobs.serving.read.unexpected import log_unexpected
from uic.jobs.serving.score.memories import MemoryScorers
from uic.jobs.serving.score.prerank import PrerankScorer
from uic.jobs.serving.score.prerank_stage import PrerankStage
from uic.jobs.serving.score.sequences import SequenceScorer
from uic.models.bundles.bundle import Bundle
from uic.models.features.definition import Owner
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.text_ids import TextIds

LOG: Final = logging.getLogger("uic.serve")
_OLD_DAYS: Final = 30


@dataclass
class Service:
    """A worker.

    Args:
        settings: of the service.
        engine: ranks.
        follower: keeps the engine's scorers fresh; None where nothing is followed.
        metrics: counters.
        store: Feast.
        feature_log: None unless switched on.
        prerank: the stage before ranking; None unless a bundle was named for it.
        prerank_follower: keeps its scorer fresh.
        ids: of users and items, as requests and answers have them.
        draining: set by SIGTERM: not ready any more, but answering.
    """

    settings: ServeSettings
    engine: RankingEngine
    follower: Follower[MemoryScorers] | Follower[SequenceScorer] | None
    metrics: ServiceMetrics
    store: FeatureStore
    feature_log: FeatureLog | None
    prerank: PrerankStage | None = None
    prerank_follower: Follower[PrerankScorer] | None = None
    ids: TextIds = field(default_factory=TextIds)
    draining: bool = False
    _following: list["asyncio.Task[None]"] = field(default_factory=list, repr=False)

    @classmethod
    def open(
        cls,
        context: Context,
        bundle: str,
        metrics: ServiceMetrics,
        *,
        history_from: str = "store",
        prerank_bundle: str = "",
    ) -> "Service":
        """Load and warm everything; the store may be away, the bundle may not.

        Args:
            context: workspace and settings.
            bundle: `model`, `model/version`, or a path.
            metrics: of this process.
            history_from: `store` ranks with memories; `log` with stored sequences of events, and
                maybe images of items.
            prerank_bundle: `prerank`, `prerank/version`, or a path; empty for no pre-rank.

        Raises:
            UicError: no such bundle, it is damaged or of the other kind, or Feast's registry lacks
                what it needs and the store that it is made with does not answer; or the log's
                table of text ids is not what it has to be.
        """
        torch.set_num_threads(1)
        parts = ServiceParts.of(context, metrics)
        follower: Follower[MemoryScorers] | Follower[SequenceScorer]
        if history_from == "store":
            engine, follower = parts.memories(bundle)
        else:
            engine, follower = parts.sequences(bundle)
        old = ages_of_an_old_log(engine.scorers.current.bundle, EventLog(context.log))
        if old:
            LOG.warning(old)
        log = _feature_log(context, metrics)
        service = cls(parts.settings, engine, follower, metrics, parts.store, log, ids=parts.ids)
        if prerank_bundle:
            service.prerank, service.prerank_follower = parts.prerank(prerank_bundle)
        return service

    async def start(self) -> None:
        """Begin to follow; the first read opens the connection to the store."""
        await self.engine.reader.fetch([0])
        # What is alive now stays: collections look at a request's own garbage only.
        gc.collect()
        gc.freeze()
        for follower in (self.follower, self.prerank_follower):
            if follower is not None:
                task = asyncio.create_task(follower.run(), name=f"following for {follower.stage}")
                task.add_done_callback(_say_if_dead)
                self._following.append(task)

    async def stop(self) -> None:
        """Close connections and write what is left to write."""
        for following in self._following:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following
        if self.feature_log is not None:
            await asyncio.to_thread(self.feature_log.close)
        provider: Any = self.store._get_provider()  # noqa: SLF001 - Feast's own way to its store
        await provider.online_store.close()

    def order_of(self, order_by: str | None) -> str:
        """See `uic.jobs.serving.http.api.chosen_order`."""
        return chosen_order(order_by, self.settings, self.engine.scorers.current.bundle.model.tasks)

    def status(self) -> dict[str, Any]:
        """What /readyz says."""
        scorers, breaker = self.engine.scorers, self.engine.reader.breaker
        current = scorers.current
        return {
            "ready": not self.draining,
            "bundle": current.label,
            "bundle_hash": current.bundle.hash8.hex(),
            "pending": None if self.follower is None else self.follower.pending,
            "looked_seconds_ago": {
                one.stage: one.ages()
                for one in (self.follower, self.prerank_follower)
                if one is not None
            },
            "reads_also": sorted(other.label for other in scorers.others),
            "items": current.table.version,
            "item_version": current.item_version,
            "features": {
                "items": current.table.features.version,
                "warnings": current.features.warnings(),
            },
            "store": "circuit open" if breaker.is_open else "answers",
            "prerank": None if self.prerank is None else self.prerank.scorer.label,
            "pass_candidates": self.engine.pass_rows,
            "worker": os.getpid(),
            "now": round(time.time(), 3),
        }


def ages_of_an_old_log(bundle: Bundle, log: EventLog, today: date | None = None) -> str:
    """What to say where a record's ages are longer than any that training saw; empty for nothing.

    Args:
        bundle: that ranks.
        log: that its records are of.
        today: in UTC; None: today.
    """
    keys = {one.named.owner for one in bundle.vocabulary.features.fitted}
    # By the manifests alone: a service needs no file of a day, so one may be missing.
    files = (entry for manifest in log.manifests() for entry in manifest["files"])
    days_of = (entry["dt"] for entry in files if entry["table"] == "behaviors")
    last = max(map(date.fromisoformat, days_of), default=None)
    if Owner.STATE not in keys or last is None:
        return ""
    days = ((today or datetime.now(UTC).date()) - last).days
    if days <= _OLD_DAYS:
        return ""
    return (
        f"the log ends on {last}, {days} days ago: ages and decayed counts in records are as of "
        "now, and training saw none so old; a request may name a moment_ms near the log's end"
    )


def _say_if_dead(task: "asyncio.Task[None]") -> None:
    """A task that should run until it is cancelled has ended by an error."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log_unexpected(task.get_name(), error)


def _feature_log(context: Context, metrics: ServiceMetrics) -> FeatureLog | None:
    settings = context.config.serve
    if not settings.log_features:
        return None
    folder = context.workspace / "serving" / "features"
    return FeatureLog(folder, settings.log_features_sample, metrics.served_rows_dropped.inc)
