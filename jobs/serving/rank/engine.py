"""Ranking: requests wait in a line, and are read and scored together where that is faster.

A worker is one thread with one event loop. Whoever finds the line idle starts the pump:

1. Take all requests that wait.
2. Read their memories with one call; requests that arrive meanwhile wait for the next round.
3. Choose each one's readout by its record, and score in passes of up to `pass_rows` candidates.
   The number is measured at start: past it a pass takes longer per candidate, since its arrays
   leave the processor's cache (200 candidates: 1.0 ms; 8 x 200 at once: 12 ms).
4. Answer after each pass, and let the loop send what is done.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from uic.jobs.serving.read.metrics import Metrics
from uic.jobs.serving.read.reasons import Reason
from uic.jobs.serving.read.store import Fetched
from uic.jobs.serving.score.items import ItemCache
from uic.jobs.serving.score.readouts import Ask, RecordFacts, Scored


class Scorer(Protocol):
    """Scores the candidates of some users in one forward pass."""

    @property
    def label(self) -> str:
        """`model/version`."""

    @property
    def items(self) -> ItemCache:
        """Its item cache."""

    def score(self, asks: Sequence[Ask]) -> list[Scored]:
        """Logits for each ask."""

    async def answer(self, asks: Sequence[Ask]) -> list[Scored]:
        """As `score`, while the loop goes on if the store must be read for it."""


class Chooser(Protocol):
    """Knows which scorer reads which record."""

    @property
    def current(self) -> Scorer:
        """Scores users without a memory."""

    def choose(self, record: bytes) -> Scorer | None:
        """The scorer for a record; None if nobody understands it."""

    def facts(self, record: bytes) -> RecordFacts:
        """What the record says of itself."""


class Reader(Protocol):
    """Reads what is stored of users."""

    async def fetch(self, user_ids: Sequence[int]) -> Fetched:
        """A record or a reason per user; never raises."""


class OverloadedError(Exception):
    """The request waited longer for its turn than it may."""


@dataclass(frozen=True)
class Ranked:
    """The answer to one user's candidates, in the order of the request.

    Args:
        item_ids: distinct candidates.
        scored: their logits.
        facts: of the memory that was found; None if none was.
        age_seconds: since that memory's last event.
        reasons: why the answer is degraded; empty if it is not.
        record: the memory that was used; None if none was.
        stages: seconds by stage.
    """

    item_ids: list[int]
    scored: Scored
    facts: RecordFacts | None
    age_seconds: float | None
    reasons: tuple[Reason, ...]
    record: bytes | None
    stages: dict[str, float]


@dataclass
class _Waiting:
    user_id: int
    item_ids: list[int]
    explain: bool
    since: float
    done: "asyncio.Future[Ranked]"
    record: bytes | None = None
    facts: RecordFacts | None = None
    age_seconds: float | None = None
    scorer: Scorer | None = None
    reasons: list[Reason] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)


class RankingEngine:
    """One worker's line of requests.

    Args:
        reader: of memories.
        readouts: scorers; replaced as a whole when a bundle is swapped.
        metrics: counters.
        pass_rows: candidates of one forward pass, unless a single request has more.
        timeout_seconds: for the wait in line.
        max_age_seconds: of a memory; None for no limit.
        now: seconds since 1970.
    """

    def __init__(
        self,
        reader: Reader,
        readouts: Chooser,
        metrics: Metrics,
        *,
        pass_rows: int,
        timeout_seconds: float,
        max_age_seconds: float | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.reader = reader
        self.readouts = readouts
        self.metrics = metrics
        self.pass_rows = pass_rows
        self._timeout_seconds = timeout_seconds
        self._max_age_seconds = max_age_seconds
        self._now = now
        self._line: list[_Waiting] = []
        self._pump: asyncio.Task[None] | None = None
        # Hashes of bundles that nobody here can read, for whoever looks for bundles.
        self.not_understood: set[str] = set()

    async def rank(self, user_id: int, item_ids: list[int], *, explain: bool = False) -> Ranked:
        """Score a user's distinct candidates.

        Raises:
            OverloadedError: its turn did not come in time.
        """
        done = asyncio.get_running_loop().create_future()
        self._line.append(_Waiting(user_id, item_ids, explain, time.perf_counter(), done))
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._run())
        answer: Ranked = await done
        return answer

    async def _run(self) -> None:
        """Steps 1 to 4 until nobody waits."""
        while self._line:
            # Step 1
            taken, self._line = self._line, []
            try:
                await self._serve(self._in_time(taken))
            except Exception as error:
                for waiting in taken:
                    if not waiting.done.done():
                        waiting.done.set_exception(error)

    def _in_time(self, taken: list[_Waiting]) -> list[_Waiting]:
        """Those whose client still waits, and has not waited too long."""
        started = time.perf_counter()
        kept = []
        for waiting in taken:
            waited = started - waiting.since
            waiting.stages["wait"] = waited
            if waiting.done.done():
                continue
            if waited > self._timeout_seconds:
                waiting.done.set_exception(OverloadedError())
                continue
            self.metrics.wait.observe(waited)
            kept.append(waiting)
        return kept

    async def _serve(self, taken: list[_Waiting]) -> None:
        if not taken:
            return
        # Step 2
        started = time.perf_counter()
        fetched = await self.reader.fetch([waiting.user_id for waiting in taken])
        seconds = time.perf_counter() - started
        self.metrics.store.observe(seconds)
        # Step 3: one set of readouts for the round, so that a swap falls between two rounds.
        readouts = self.readouts
        for waiting, value, reason in zip(taken, fetched.values, fetched.reasons, strict=True):
            waiting.stages["store"] = seconds
            self._place(waiting, readouts, value, reason)
        for scorer, members in _passes(taken, self.pass_rows):
            await self._score(scorer, members)
            # Step 4
            await asyncio.sleep(0)

    def _place(
        self, waiting: _Waiting, readouts: Chooser, value: bytes | None, reason: Reason | None
    ) -> None:
        """Decide whether a record is used, and by whom."""
        waiting.scorer = readouts.current
        if reason is not None:
            waiting.reasons.append(reason)
        if value is None:
            return
        waiting.facts = readouts.facts(value)
        waiting.age_seconds = self._now() - waiting.facts.last_event_time_ms / 1000
        self.metrics.now_serving("generations", str(waiting.facts.generation))
        self.metrics.memory_age.observe(waiting.age_seconds)
        if self._max_age_seconds is not None and waiting.age_seconds > self._max_age_seconds:
            waiting.reasons.append(Reason.STALE_MEMORY)
            return
        chosen = readouts.choose(value)
        if chosen is None:
            waiting.reasons.append(Reason.UNKNOWN_BUNDLE)
            self.not_understood.add(waiting.facts.bundle)
            return
        if chosen is not readouts.current:
            self.metrics.other_bundle.inc()
        waiting.scorer, waiting.record = chosen, value

    async def _score(self, scorer: Scorer, members: list[_Waiting]) -> None:
        """One forward pass, and the answers to those in it."""
        started = time.perf_counter()
        cache = scorer.items
        hits, misses = cache.hits, cache.misses
        moment_ms = round(self._now() * 1000)
        asks = [
            Ask(member.item_ids, member.record, member.explain, moment_ms, member.user_id)
            for member in members
        ]
        answers = await scorer.answer(asks)
        seconds = time.perf_counter() - started
        metrics = self.metrics
        metrics.score.observe(seconds)
        metrics.pass_rows.observe(sum(len(ask.item_ids) for ask in asks))
        metrics.cache_hits.inc(cache.hits - hits)
        metrics.cache_misses.inc(cache.misses - misses)
        for member, scored in zip(members, answers, strict=True):
            if not scored.known.all():
                member.reasons.append(Reason.UNKNOWN_ITEM)
            member.reasons.extend(scored.reasons)
            if scored.without_image:
                metrics.items_without_image.inc(scored.without_image)
            for reason in member.reasons:
                metrics.degraded.labels(reason.value).inc()
            member.stages["score"] = seconds
            # A client that went away has cancelled its future.
            with contextlib.suppress(asyncio.InvalidStateError):
                member.done.set_result(
                    Ranked(
                        member.item_ids,
                        scored,
                        member.facts,
                        member.age_seconds,
                        tuple(member.reasons),
                        member.record,
                        member.stages,
                    )
                )


def _passes(taken: list[_Waiting], pass_rows: int) -> list[tuple[Scorer, list[_Waiting]]]:
    """Requests in order, gathered by scorer into passes of up to `pass_rows` candidates."""
    passes: list[tuple[Scorer, list[_Waiting]]] = []
    open_passes: dict[int, tuple[int, list[_Waiting]]] = {}
    for waiting in taken:
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


def measure_pass_rows(scorer: Scorer, sample: Sequence[int], sizes: Sequence[int]) -> int:
    """The smallest pass that scores nearly as many candidates a second as the best one.

    Args:
        scorer: warmed.
        sample: item ids to score.
        sizes: candidates of a pass, to be tried; each is several users with a part of it.

    Returns:
        One of `sizes`. Fewer candidates than the best leave answers waiting for no gain.
    """
    seconds = {}
    for size in sizes:
        users = max(1, size // 32)
        items = [int(sample[at % len(sample)]) for at in range(size // users)]
        asks = [Ask(items) for _ in range(users)]
        runs = []
        for _ in range(5):
            started = time.perf_counter()
            scorer.score(asks)
            runs.append(time.perf_counter() - started)
        seconds[size] = float(np.min(runs)) / size
    best = min(seconds.values())
    return next(size for size in sizes if seconds[size] <= 1.15 * best)
