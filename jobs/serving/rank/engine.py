"""Ranking: requests wait in a line, and are read and scored together where that is faster.

A worker is one thread with one event loop. A request that finds the line idle starts the pump:

1. Take all requests that wait.
2. Read their memories with one call; requests that arrive meanwhile wait for the next round.
3. Choose each one's scorer by its record, and score in passes of up to `pass_rows` candidates.
   The number is measured at start: past it a pass takes longer per candidate, since its arrays
   leave the processor's cache (200 candidates: 1.0 ms; 8 x 200 at once: 12 ms).
4. Answer after each pass, and let the loop send what is done.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from typing import Final

from uic.jobs.serving.rank.chooser import Chooser, Reader
from uic.jobs.serving.rank.scorer import CandidateScorer, score_each, unscored
from uic.jobs.serving.read.freshness import RecordsFreshness
from uic.jobs.serving.read.metrics import ServiceMetrics
from uic.jobs.serving.read.reasons import DegradedReason
from uic.jobs.serving.read.unexpected import log_unexpected
from uic.jobs.serving.score.asks import Ask, RecordFacts, Scored
from uic.jobs.serving.score.context import RequestContext
from uic.models.errors import BadInputError
from uic.models.state.freshness import WhenBehind

LOG: Final = logging.getLogger("uic.serve")


class OverloadedError(Exception):
    """The request waited longer for its turn than it may."""


@dataclass(frozen=True)
class RankedCandidates:
    """The answer to one user's candidates, in the order of the request.

    Args:
        item_ids: distinct candidates.
        scored: their logits.
        facts: of the stored record; None if there was none.
        age_seconds: since that memory's last behaviour; None where things were only shown.
        reasons: why the answer is degraded; empty if it is not.
        record: the memory or the exact parts that were used; None if none were.
        behind_seconds: how far the records are behind the log; None if `state.yaml` does not ask.
    """

    item_ids: list[int]
    scored: Scored
    facts: RecordFacts | None
    age_seconds: float | None
    reasons: tuple[DegradedReason, ...]
    record: bytes | None
    behind_seconds: float | None = None


@dataclass
class _Waiting:
    user_id: int
    item_ids: list[int]
    explain: bool
    since: float
    done: "asyncio.Future[RankedCandidates]"
    record: bytes | None = None
    facts: RecordFacts | None = None
    age_seconds: float | None = None
    scorer: CandidateScorer | None = None
    context: RequestContext | None = None
    moment_ms: int | None = None
    features: bytes | None = None
    beside: bytes | None = None
    behind_seconds: float | None = None
    reasons: list[DegradedReason] = field(default_factory=list)

    def ask(self, now_ms: int) -> Ask:
        """What its scorer is asked, now unless the request is of another moment."""
        moment_ms = now_ms if self.moment_ms is None else self.moment_ms
        shown = self.item_ids, self.record, self.explain, moment_ms
        return Ask(*shown, self.user_id, self.features, self.context, self.beside)


class RankingEngine:
    """One worker's line of requests.

    Args:
        reader: of memories.
        scorers: replaced as a whole when a bundle is swapped.
        metrics: counters.
        pass_rows: candidates of one forward pass, unless a single request has more.
        timeout_seconds: for the wait in line.
        max_age_seconds: of a memory; None for no limit.
        not_understood: takes the hashes of bundles whose records no scorer here reads.
        now: seconds since 1970.
    """

    def __init__(
        self,
        reader: Reader,
        scorers: Chooser,
        metrics: ServiceMetrics,
        *,
        pass_rows: int,
        timeout_seconds: float,
        max_age_seconds: float | None = None,
        not_understood: set[str] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.reader = reader
        self.metrics = metrics
        self.pass_rows = pass_rows
        self._timeout_seconds = timeout_seconds
        self._max_age_seconds = max_age_seconds
        self._now = now
        self._line: list[_Waiting] = []
        self._pump: asyncio.Task[None] | None = None
        self.freshness = RecordsFreshness()
        self.not_understood: set[str] = set() if not_understood is None else not_understood
        self._warnings: Set[str] = frozenset()
        self.use(scorers)

    def use(self, scorers: Chooser) -> None:
        """Score with these from the next round on."""
        self.scorers = scorers
        wanted = (bool(one.features.users) for one in (scorers.current, *scorers.others))
        self.reader.with_features = any(wanted)
        self.reader.with_parts = scorers.reads_parts
        warnings = dict.fromkeys(scorers.current.features.warnings())
        for warning in warnings.keys() - self._warnings:
            LOG.warning("%s: %s", scorers.current.label, warning)
        self._warnings = warnings.keys()
        self.metrics.now_serving("bundles", scorers.current.label)

    async def rank(
        self,
        user_id: int,
        item_ids: list[int],
        *,
        explain: bool = False,
        context: RequestContext | None = None,
        moment_ms: int | None = None,
    ) -> RankedCandidates:
        """Score a user's distinct candidates, in the context of the request.

        Args:
            user_id: whose record to use.
            item_ids: distinct candidates.
            explain: also without the memory.
            context: of the request.
            moment_ms: when they are shown, milliseconds since 1970 UTC; None: now.

        Raises:
            OverloadedError: its turn did not come in time.
            RecordsBehindError: the records are behind, and `state.yaml` says to refuse.
        """
        done = asyncio.get_running_loop().create_future()
        waiting = _Waiting(user_id, item_ids, explain, time.perf_counter(), done)
        waiting.context, waiting.moment_ms = context, moment_ms
        self._line.append(waiting)
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._run())
        answer: RankedCandidates = await done
        return answer

    async def _run(self) -> None:
        """Steps 1 to 4 until no request waits."""
        while self._line:
            # Step 1
            requests, self._line = self._line, []
            try:
                await self._serve(self._in_time(requests))
            except Exception as error:  # the rounds must go on, and each request end
                log_unexpected("a round of requests", error)
                for waiting in requests:
                    if not waiting.done.done():
                        label = self.scorers.current.label
                        self._answer(waiting, unscored(label, len(waiting.item_ids)))

    def _in_time(self, requests: list[_Waiting]) -> list[_Waiting]:
        """Those whose client still waits, and has not waited too long."""
        started = time.perf_counter()
        in_time = []
        for waiting in requests:
            waited = started - waiting.since
            if waiting.done.done():
                continue
            if waited > self._timeout_seconds:
                waiting.done.set_exception(OverloadedError())
                continue
            self.metrics.wait.observe(waited)
            in_time.append(waiting)
        return in_time

    async def _serve(self, requests: list[_Waiting]) -> None:
        wanted = self._noted_lag(requests)
        if not requests or wanted is WhenBehind.REFUSE:
            return
        # Step 2
        started = time.perf_counter()
        fetched = await self.reader.fetch([waiting.user_id for waiting in requests])
        self.metrics.store.observe(time.perf_counter() - started)
        if wanted is WhenBehind.DEFAULT:
            fetched = fetched.without_records(beside=self.scorers.reads_parts)
        # Step 3: one set of scorers for the round, so that a swap falls between two rounds.
        scorers = self.scorers
        read = zip(requests, fetched.values, fetched.reasons, strict=True)
        for at, (waiting, value, reason) in enumerate(read):
            waiting.features = fetched.features[at]
            try:
                self._place(waiting, scorers, value, reason, fetched.beside[at])
            except BadInputError:  # the value is not what its header says
                waiting.reasons.append(DegradedReason.FOREIGN_VALUE)
            except Exception as error:  # costs this user's memory, and no neighbour's
                log_unexpected("looking at a user's record", error)
                waiting.reasons.append(DegradedReason.INTERNAL_ERROR)
        for scorer, members in _passes(requests, self.pass_rows):
            await self._score(scorer, members)
            # Step 4
            await asyncio.sleep(0)

    def _noted_lag(self, requests: list[_Waiting]) -> WhenBehind | None:
        """What the records' lag asks for: of answers a reason, or their refusal."""
        behind_seconds = self.freshness.behind_seconds(self._now())
        wanted = self.freshness.wanted(behind_seconds)
        for waiting in requests:
            waiting.behind_seconds = behind_seconds
            if wanted is WhenBehind.REFUSE:
                self.metrics.degraded.labels(DegradedReason.RECORDS_BEHIND.value).inc()
                waiting.done.set_exception(self.freshness.refusal(behind_seconds))
            elif wanted is not None:
                waiting.reasons.append(DegradedReason.RECORDS_BEHIND)
        return wanted

    def _place(
        self,
        waiting: _Waiting,
        scorers: Chooser,
        value: bytes | None,
        reason: DegradedReason | None,
        beside: bytes | None,
    ) -> None:
        """Decide whether a record is used, and by which scorer."""
        waiting.scorer = scorers.current
        if reason is not None:
            waiting.reasons.append(reason)
        beside, lacks = scorers.beside(beside)
        if lacks is DegradedReason.PARTS_MISSING and reason is not None:
            lacks = None  # of a new user, or while no generation is live, this says no more
        if lacks is not None:
            waiting.reasons.append(lacks)
        told = value if beside is None else beside
        if told is None:
            return
        waiting.facts = scorers.facts(told)
        moment = self._now() if waiting.moment_ms is None else waiting.moment_ms / 1000
        age = waiting.age_seconds = waiting.facts.age_seconds(moment)
        self.metrics.now_serving("generations", str(waiting.facts.generation))
        if age is not None:
            self.metrics.memory_age.observe(age)
            if self._max_age_seconds is not None and age > self._max_age_seconds:
                waiting.reasons.append(DegradedReason.STALE_MEMORY)
                return
        waiting.beside = beside
        if value is None:
            return
        chosen = scorers.choose(value)
        if chosen is None:
            waiting.reasons.append(DegradedReason.UNKNOWN_BUNDLE)
            self.not_understood.add(waiting.facts.bundle)
            return
        if chosen is not scorers.current:
            self.metrics.other_bundle.inc()
        waiting.scorer, waiting.record = chosen, value

    async def _score(self, scorer: CandidateScorer, members: list[_Waiting]) -> None:
        """One forward pass, and the answers to those in it."""
        started = time.perf_counter()
        hits, misses = scorer.cache_counts()
        now_ms = round(self._now() * 1000)
        asks = [member.ask(now_ms) for member in members]
        answers = await score_each(scorer, asks)
        metrics = self.metrics
        metrics.score.observe(time.perf_counter() - started)
        metrics.pass_rows.observe(sum(len(ask.item_ids) for ask in asks))
        hits_after, misses_after = scorer.cache_counts()
        metrics.cache_hits.inc(hits_after - hits)
        metrics.cache_misses.inc(misses_after - misses)
        for member, scored in zip(members, answers, strict=True):
            self._answer(member, scored)

    def _answer(self, member: _Waiting, scored: Scored) -> None:
        """Tell one request its scores, and count why they are degraded."""
        if not scored.known.all():
            member.reasons.append(DegradedReason.UNKNOWN_ITEM)
        member.reasons.extend(scored.reasons)
        member.reasons = list(dict.fromkeys(member.reasons))
        if scored.without_image:
            self.metrics.items_without_image.inc(scored.without_image)
        faults = scored.faults
        self.metrics.count_defaults(faults.missing, faults.invalid, faults.unseen)
        for reason in member.reasons:
            self.metrics.degraded.labels(reason.value).inc()
        # A client that went away has cancelled its future.
        with contextlib.suppress(asyncio.InvalidStateError):
            member.done.set_result(
                RankedCandidates(
                    member.item_ids,
                    scored,
                    member.facts,
                    member.age_seconds,
                    tuple(member.reasons),
                    scored.record,
                    member.behind_seconds,
                )
            )


def _passes(
    requests: list[_Waiting], pass_rows: int
) -> list[tuple[CandidateScorer, list[_Waiting]]]:
    """Requests in order, gathered by scorer into passes of up to `pass_rows` candidates."""
    passes: list[tuple[CandidateScorer, list[_Waiting]]] = []
    open_passes: dict[int, tuple[int, list[_Waiting]]] = {}
    for waiting in requests:
        scorer = waiting.scorer
        assert scorer is not None  # noqa: S101 - `_place` came before
        rows = len(waiting.item_ids)
        filled, members = open_passes.get(id(scorer), (pass_rows, []))
        if filled + rows > pass_rows:
            filled, members = 0, []
            passes.append((scorer, members))
        members.append(waiting)
        open_passes[id(scorer)] = (filled + rows, members)
    return passes
