"""Parts of the service by themselves: breaker, item cache, passes."""

import asyncio
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.jobs.serving.counting import METRICS
from uic.feature_repo.store.errors import ForeignValueError
from uic.jobs.serving.http.limits import Limits
from uic.jobs.serving.rank.engine import OverloadedError, RankingEngine
from uic.jobs.serving.read.breaker import CircuitBreaker
from uic.jobs.serving.read.records import Fetched, MemoryReader
from uic.jobs.serving.score.asks import Ask, RecordFacts, Scored
from uic.jobs.serving.score.items import UNKNOWN_CATEGORY, ItemCache, ItemTable
from uic.jobs.serving.score.sequences import RING


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_breaker_opens_tries_once_a_moment_and_closes():
    clock = Clock()
    breaker = CircuitBreaker(3, 0.5, clock)
    for _ in range(2):
        assert breaker.allow()
        breaker.failed()
    breaker.succeeded()  # failures must be in a row
    for _ in range(3):
        assert breaker.allow()
        breaker.failed()
    assert breaker.is_open
    assert not breaker.allow()
    clock.now += 0.6
    assert breaker.allow()
    assert not breaker.allow()  # one try at a time
    breaker.failed()
    clock.now += 0.4
    assert not breaker.allow()
    clock.now += 0.2
    assert breaker.allow()
    breaker.succeeded()
    assert breaker.allow()
    assert breaker.allow()


TABLE = ItemTable("v1", np.arange(0, 1000, 2), np.arange(0, 1000, 2) // 10)


def embed(items, categories):
    """A vector that shows which item and category it was made of."""
    return torch.from_numpy(np.stack([items, categories], axis=1).astype(np.float32))


@settings(max_examples=60, deadline=None)
@given(
    capacity=st.integers(1, 30),
    requests=st.lists(st.lists(st.integers(0, 60), min_size=1, max_size=40), max_size=20),
)
def test_a_bounded_cache_answers_as_the_table_does(capacity: int, requests: list[list[int]]):
    cache = ItemCache(TABLE, embed, capacity)
    for items in requests:
        found = cache.lookup(items)
        vectors, known = found.vectors, found.known
        ids = np.array(items)
        categories, expected = TABLE.categories(ids)
        np.testing.assert_array_equal(vectors.numpy(), embed(ids, categories).numpy())
        np.testing.assert_array_equal(known, expected)
        assert len(cache.rows) <= capacity


def test_a_cache_keeps_what_is_used():
    cache = ItemCache(TABLE, embed, 10)
    cache.warm(np.arange(10))
    for new in range(10, 60):
        cache.lookup([1, 2])
        cache.lookup([new])
    misses = cache.rows.misses
    cache.lookup([1, 2])
    assert cache.rows.misses == misses


def test_an_item_that_the_table_lacks_has_no_category():
    categories, known = TABLE.categories(np.array([4, 5, 10**12]))
    assert categories.tolist() == [0, UNKNOWN_CATEGORY, UNKNOWN_CATEGORY]
    assert known.tolist() == [True, False, False]


class Doubles:
    """A scorer whose logit is the item, and whose passes a test can look at."""

    label = "doubles/1"
    features = SimpleNamespace(users=(), warnings=list)

    def __init__(self, slow: float = 0.0) -> None:
        self.passes: list[list[int]] = []
        self.slow = slow

    def cache_counts(self) -> tuple[int, int]:
        return 0, 0

    def answer_now(self, asks: list[Ask]) -> list[Scored]:
        time.sleep(self.slow)
        self.passes.append([len(ask.item_ids) for ask in asks])
        return [
            Scored(
                np.float32(ask.item_ids), np.ones(len(ask.item_ids)), self.label, record=ask.record
            )
            for ask in asks
        ]

    async def answer(self, asks: list[Ask]) -> list[Scored]:
        return self.answer_now(asks)


class Only:
    """A chooser with one scorer."""

    def __init__(self, current: Doubles) -> None:
        self.current = current
        self.others: list[Doubles] = []

    def choose(self, record: bytes) -> Doubles | None:
        return self.current if record == b"mine" else None

    reads_parts = False

    def beside(self, record: None) -> tuple[None, None]:
        return record, None

    def facts(self, record: bytes) -> RecordFacts:
        return RecordFacts(1, 1, 1_000_000, "ff", 1, 0, 0)


class Stored:
    """A reader with the same value for everybody; counts its reads."""

    def __init__(self, value: bytes) -> None:
        self.value = value
        self.reads: list[int] = []

    async def fetch(self, user_ids):
        self.reads.append(len(user_ids))
        await asyncio.sleep(0.01)
        return Fetched(*([value] * len(user_ids) for value in (self.value, None, None, None)))


def engine(scorer: Doubles, value: bytes = b"mine", **options) -> RankingEngine:
    arguments = {"pass_rows": 10, "timeout_seconds": 60.0, **options}
    return RankingEngine(Stored(value), Only(scorer), METRICS, **arguments)


async def being_read(line: RankingEngine) -> None:
    """Until the first request's read has begun, however busy the machine is."""
    while not line.reader.reads:
        await asyncio.sleep(0)


def test_requests_that_wait_share_one_read_and_passes_up_to_the_bound():
    scorer = Doubles()
    line = engine(scorer)

    async def many():
        first = asyncio.create_task(line.rank(0, [1]))
        await being_read(line)  # the others wait for the next round
        rest = [line.rank(user, list(range(4))) for user in range(1, 6)]
        return await asyncio.gather(first, *rest, line.rank(9, list(range(50))))

    answers = asyncio.run(many())
    assert line.reader.reads == [1, 6]
    assert scorer.passes == [[1], [4, 4], [4, 4], [4], [50]]
    assert [len(answer.item_ids) for answer in answers] == [1, 4, 4, 4, 4, 4, 50]


def test_a_request_that_waited_too_long_is_refused():
    line = engine(Doubles(slow=0.2), timeout_seconds=0.05)

    async def two():
        first = asyncio.create_task(line.rank(1, [1]))
        await being_read(line)
        return await asyncio.gather(first, line.rank(2, [1]), return_exceptions=True)

    first, second = asyncio.run(two())
    assert first.scored.logits.tolist() == [1.0]
    assert isinstance(second, OverloadedError)


def test_a_record_of_what_was_only_shown_has_no_age():
    line = engine(Doubles(), max_age_seconds=500.0)
    line.scorers.facts = lambda _: RecordFacts(1, 0, 0, "ff", 1, 0, 0)
    answer = asyncio.run(line.rank(1, [1]))
    assert (answer.age_seconds, answer.reasons) == (None, ())


@pytest.mark.parametrize(
    ("value", "options", "reasons"),
    [
        (b"mine", {}, ()),
        (b"mine", {"max_age_seconds": 500.0, "now": lambda: 1600.0}, ("stale_memory",)),
        (b"mine", {"max_age_seconds": 500.0, "now": lambda: 1400.0}, ()),
        (b"others", {}, ("unknown_bundle",)),
    ],
)
def test_a_memory_is_used_if_it_is_young_and_understood(value, options, reasons):
    answer = asyncio.run(engine(Doubles(), value, **options).rank(1, [1]))
    assert answer.reasons == reasons
    assert answer.record == (None if reasons else value)
    assert answer.facts is not None  # what was found is told either way


class Breaks(Doubles):
    """Fails for the item 13 with a record, and for the item 14 always; 15 gives no number."""

    def answer_now(self, asks):
        for ask in asks:
            if ask.item_ids == [14, 1] or (ask.record and ask.item_ids == [13, 1]):
                raise ArithmeticError
        scored = super().answer_now(asks)
        for ask, one in zip(asks, scored, strict=True):
            if ask.record and ask.item_ids == [15, 1]:
                one.logits[0] = np.nan
        return scored


def test_a_user_whose_scoring_fails_is_answered_without_memory_and_leaves_the_others_theirs():
    line = engine(Breaks())

    async def at_once():
        users = [line.rank(user, [item, 1]) for user, item in enumerate((12, 13, 14, 15))]
        return await asyncio.gather(*users)

    good, failed, always, not_a_number = asyncio.run(at_once())
    assert (good.scored.logits.tolist(), good.reasons, good.record) == ([12.0, 1.0], (), b"mine")
    assert failed.scored.logits.tolist() == [13.0, 1.0]
    assert (failed.reasons, failed.record) == (("internal_error",), None)
    assert always.scored.logits.tolist() == [0.0, 0.0]
    assert (always.reasons, always.record) == (("internal_error",), None)
    assert not_a_number.scored.logits.tolist() == [15.0, 1.0]
    assert (not_a_number.reasons, not_a_number.record) == (("not_finite",), None)


def test_a_record_that_cannot_be_looked_at_costs_its_user_alone():
    line = engine(Doubles())
    line.scorers.facts = lambda _: int("no number")
    answer = asyncio.run(line.rank(1, [7]))
    assert (answer.reasons, answer.record) == (("internal_error",), None)
    assert answer.scored.logits.tolist() == [7.0]


def test_a_reader_that_meets_what_nobody_expects_answers_user_by_user():
    class Damaged:
        async def get_online_features_async(self, _, entities):
            if 13 in entities["user_id"]:
                raise IndexError
            raise ForeignValueError

    reader = MemoryReader(Damaged(), "memory:packed", CircuitBreaker(3, 1.0), 5.0)
    fetched = asyncio.run(reader.fetch([1, 13]))
    assert fetched.values == [None, None]
    assert fetched.reasons == ["foreign_value", "internal_error"]
    assert not reader.breaker.is_open


def test_an_error_that_gets_out_of_the_application_is_counted_and_answered():
    async def application(scope, receive, send):
        raise ZeroDivisionError

    sent = []

    async def send(message):
        sent.append(message)

    limits = Limits(
        application,
        METRICS,
        max_body_bytes=10,
        max_in_flight=1,
        token=None,
        is_draining=lambda: False,
    )
    counted = METRICS.requests.labels("/v1/rank", 500)
    before = counted._value.get()
    scope = {"type": "http", "path": "/v1/rank", "headers": []}
    asyncio.run(limits(scope, None, send))
    assert sent[0]["status"] == 500
    assert counted._value.get() == before + 1


@pytest.mark.parametrize("damage", [slice(0, 2), slice(2, 4), slice(4, 8), slice(8, 16)], ids=str)
def test_a_ring_with_a_damaged_header_is_no_ring(damage):
    ring = bytearray(RING.empty(1).tobytes())
    assert RING.holds(bytes(ring))
    ring[damage] = b"\xff" * (damage.stop - damage.start)
    assert not RING.holds(bytes(ring))
    assert not RING.holds(bytes(RING.empty(1).tobytes()[:-1]))
