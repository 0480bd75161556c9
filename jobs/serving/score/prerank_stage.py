"""One worker's pre-rank: what is read of a user, scores, and what is said where either fails."""

import logging
import time
from collections.abc import Set
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from uic.jobs.serving.read.metrics import ServiceMetrics
from uic.jobs.serving.read.reasons import DegradedReason
from uic.jobs.serving.read.records import MemoryReader
from uic.jobs.serving.read.unexpected import log_unexpected
from uic.jobs.serving.score.asks import Ask
from uic.jobs.serving.score.context import RequestContext
from uic.jobs.serving.score.prerank import Preranked, PrerankScorer
from uic.jobs.serving.score.sequences import RING

LOG: Final = logging.getLogger("uic.serve")


class PrerankStage:
    """One worker's pre-rank: reads the user's ring, then scores.

    Args:
        scorer: replaced as a whole when a bundle is swapped.
        reader: of the view `user_sequence`; every failure is a reason.
        metrics: counters.
        keep: candidates that are kept unless a request says otherwise; count.
    """

    def __init__(
        self, scorer: PrerankScorer, reader: MemoryReader, metrics: ServiceMetrics, keep: int
    ) -> None:
        self.reader = reader
        self.keep = keep
        self.metrics = metrics
        self._store = metrics.seconds.labels("prerank_store")
        self._score = metrics.seconds.labels("prerank_score")
        self._warnings: Set[str] = frozenset()
        self.use(scorer)

    def use(self, scorer: PrerankScorer) -> None:
        """Score with this one from the next request on."""
        self.scorer = scorer
        self.reader.with_features = bool(scorer.features.users)
        warnings = dict.fromkeys(scorer.features.warnings())
        for warning in warnings.keys() - self._warnings:
            LOG.warning("%s: %s", scorer.label, warning)
        self._warnings = warnings.keys()

    async def prerank(
        self, user_id: int, item_ids: list[int], context: RequestContext | None = None
    ) -> Preranked:
        """Score a user's distinct candidates; never raises for what the store does."""
        started = time.perf_counter()
        fetched = await self.reader.fetch([user_id])
        read = time.perf_counter()
        scorer = self.scorer
        record, reason = fetched.values[0], fetched.reasons[0]
        if record is not None and not RING.holds(record):
            record, reason = None, DegradedReason.FOREIGN_VALUE
        ask = Ask(item_ids, record, user_features=fetched.features[0], context=context)
        answer, failure = await _scored(scorer, user_id, ask)
        if failure is not None:  # the record is the likeliest cause: once more without
            reason = failure
            answer, failure = await _scored(scorer, user_id, replace(ask, record=None))
        if failure is not None:
            answer = _unscored(scorer, np.array(item_ids, np.int64))
        assert answer is not None  # noqa: S101 - or there was a failure
        self._store.observe(read - started)
        self._score.observe(time.perf_counter() - read)
        reasons = (() if reason is None else (reason,)) + answer.reasons
        faults = answer.faults
        self.metrics.count_defaults(faults.missing, faults.invalid, faults.unseen)
        for one in reasons:
            self.metrics.degraded.labels(one.value).inc()
        return replace(answer, reasons=reasons)


async def _scored(
    scorer: PrerankScorer, user_id: int, ask: Ask
) -> tuple[Preranked | None, DegradedReason | None]:
    """An answer of finite scores, or why there is none."""
    try:
        answer = await scorer.answer(user_id, ask)
    except Exception as error:  # an answer of equal scores, and never a 5xx
        log_unexpected(f"the pre-rank of one user with {scorer.label}", error)
        return None, DegradedReason.INTERNAL_ERROR
    if not np.isfinite(answer.logits).all():
        return None, DegradedReason.NOT_FINITE
    return answer, None


def _unscored(scorer: PrerankScorer, item_ids: NDArray[np.int64]) -> Preranked:
    """Equal scores, which leave the candidates in the order of the request."""
    count = len(item_ids)
    logits, known = np.zeros(count, np.float32), np.ones(count, np.bool_)
    return Preranked(item_ids, logits, known, np.arange(count), scorer.label, ())
