"""What the engine asks of its scorers and of its reader, and how large its passes are best."""

import time
from collections.abc import Sequence
from typing import Final, Protocol

from uic.jobs.serving.rank.scorer import CandidateScorer
from uic.jobs.serving.read.breaker import CircuitBreaker
from uic.jobs.serving.read.reasons import DegradedReason
from uic.jobs.serving.read.records import Fetched
from uic.jobs.serving.score.asks import Ask, RecordFacts

# Candidates of a pass that are tried at start; each is several users with a part of it.
PASS_SIZES: Final = (64, 128, 256, 512, 1024)


class Chooser(Protocol):
    """Knows which scorer reads which record; replaced as a whole, and never changed."""

    @property
    def current(self) -> CandidateScorer:
        """Scores users without a record."""

    @property
    def others(self) -> Sequence[CandidateScorer]:
        """Score users whose records the current one does not read."""

    def choose(self, record: bytes) -> CandidateScorer | None:
        """The scorer for a record; None if no bundle here reads it."""

    @property
    def reads_parts(self) -> bool:
        """Whether `beside` wants records."""

    def beside(self, record: bytes | None) -> tuple[bytes | None, DegradedReason | None]:
        """The record that is used beside what `choose` reads, or why it is not."""

    def facts(self, record: bytes) -> RecordFacts:
        """What the record says of itself."""

    def state_numbers(self, record: bytes) -> dict[str, list[float]] | None:
        """Parts of a record's state by name, as nested lists; None if there are none."""


class Reader(Protocol):
    """Reads what is stored of users."""

    breaker: CircuitBreaker
    with_features: bool
    with_parts: bool

    async def fetch(self, user_ids: Sequence[int]) -> Fetched:
        """A record or a reason per user; never raises."""


def measure_pass_rows(scorer: CandidateScorer) -> int:
    """The smallest pass that scores nearly as many candidates a second as the best one.

    Fewer candidates than the best leave answers waiting for no gain.
    """
    known = scorer.bundle.vocabulary.item.ids[:1000].tolist() or [0]
    seconds = {}
    for size in PASS_SIZES:
        users = max(1, size // 32)
        asks = [Ask([known[at % len(known)] for at in range(size // users)])] * users
        runs = []
        for _ in range(5):
            started = time.perf_counter()
            scorer.answer_now(asks)
            runs.append(time.perf_counter() - started)
        seconds[size] = min(runs) / size
    best = min(seconds.values())
    return next(size for size in PASS_SIZES if seconds[size] <= 1.15 * best)
