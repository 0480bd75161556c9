"""Parts of the service by themselves: breaker, item cache, passes, load generator, report."""

import asyncio
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.jobs.serving.counting import METRICS
from uic.jobs.serving.load.generator import LoadPlan, run_load
from uic.jobs.serving.load.report import draw, report_of
from uic.jobs.serving.load.targets import bodies_of
from uic.jobs.serving.rank.engine import OverloadedError, RankingEngine
from uic.jobs.serving.read.breaker import CircuitBreaker
from uic.jobs.serving.read.store import Fetched
from uic.jobs.serving.score.items import UNKNOWN_CATEGORY, ItemCache, ItemTable
from uic.jobs.serving.score.readouts import Ask, RecordFacts, Scored
from uic.models.errors import BadInputError


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
        vectors, known = cache.lookup(items)
        ids = np.array(items)
        categories, expected = TABLE.categories(ids)
        np.testing.assert_array_equal(vectors.numpy(), embed(ids, categories).numpy())
        np.testing.assert_array_equal(known, expected)
        assert len(cache) <= capacity


def test_a_cache_keeps_what_is_used():
    cache = ItemCache(TABLE, embed, 10)
    cache.warm(range(10))
    for new in range(10, 60):
        cache.lookup([1, 2])
        cache.lookup([new])
    misses = cache.misses
    cache.lookup([1, 2])
    assert cache.misses == misses


def test_an_item_that_the_table_lacks_has_no_category():
    categories, known = TABLE.categories(np.array([4, 5, 10**12]))
    assert categories.tolist() == [0, UNKNOWN_CATEGORY, UNKNOWN_CATEGORY]
    assert known.tolist() == [True, False, False]


class Doubles:
    """A scorer whose logit is the item, and whose passes a test can look at."""

    label = "doubles/1"
    items = ItemCache(TABLE, embed, 4)

    def __init__(self, slow: float = 0.0) -> None:
        self.passes: list[list[int]] = []
        self.slow = slow

    def score(self, asks: list[Ask]) -> list[Scored]:
        time.sleep(self.slow)
        self.passes.append([len(ask.item_ids) for ask in asks])
        return [
            Scored(np.float32(ask.item_ids), np.ones(len(ask.item_ids), np.bool_), self.label)
            for ask in asks
        ]

    async def answer(self, asks: list[Ask]) -> list[Scored]:
        return self.score(asks)


class Only:
    """A chooser with one scorer."""

    def __init__(self, current: Doubles) -> None:
        self.current = current

    def choose(self, record: bytes) -> Doubles | None:
        return self.current if record == b"mine" else None

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
        return Fetched([self.value] * len(user_ids), [None] * len(user_ids))


def engine(scorer: Doubles, value: bytes = b"mine", **options) -> RankingEngine:
    arguments = {"pass_rows": 10, "timeout_seconds": 60.0, **options}
    return RankingEngine(Stored(value), Only(scorer), METRICS, **arguments)


def test_requests_that_wait_share_one_read_and_passes_up_to_the_bound():
    scorer = Doubles()
    line = engine(scorer)

    async def many():
        first = asyncio.create_task(line.rank(0, [1]))
        await asyncio.sleep(0.001)  # it is being read; the others wait for the next round
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
        await asyncio.sleep(0.001)
        return await asyncio.gather(first, line.rank(2, [1]), return_exceptions=True)

    first, second = asyncio.run(two())
    assert first.scored.logits.tolist() == [1.0]
    assert isinstance(second, OverloadedError)


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


def test_an_error_in_a_pass_reaches_those_who_wait_and_nobody_else():
    class Broken(Doubles):
        def score(self, asks):
            if asks[0].item_ids == [13]:
                raise ArithmeticError
            return super().score(asks)

    line = engine(Broken())

    async def one_after_the_other():
        with pytest.raises(ArithmeticError):
            await line.rank(1, [13])
        return await line.rank(1, [1])

    assert asyncio.run(one_after_the_other()).scored.logits.tolist() == [1.0]


# The load generator


class Slow(BaseHTTPRequestHandler):
    """Answers after a while; the first request takes half a second."""

    protocol_version = "HTTP/1.1"
    count = 0

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        Slow.count += 1
        if Slow.count == 1:
            time.sleep(0.5)
        body = b'{"degraded":true,"memory_events":70}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def slow_server():
    Slow.count = 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_one_slow_answer_is_paid_for_by_all_that_were_due_meanwhile(slow_server):
    """A closed loop would report one slow request of 41; 40 users a second waited for it."""
    plan = LoadPlan(slow_server, [b"{}"], rate=40, seconds=1.0, connections=1)
    result = run_load(plan)
    assert result.failed == 0
    assert result.latency_ms[0] >= 500
    waited = result.latency_ms > 100
    assert waited.sum() >= 12  # those due in the first 0.4 s
    assert result.latency_ms[:15].min() > 50
    summary = result.summary()
    assert summary["statuses"] == {"200": 40}
    assert summary["degraded"] == 40
    assert summary["p99_ms"] >= 400


def test_a_server_that_is_not_there_is_a_lost_request_and_no_hang():
    result = run_load(LoadPlan("http://127.0.0.1:9", [b"{}"], rate=50, seconds=0.2))
    assert result.failed == len(result.status) == 10


def test_a_report_has_rates_and_history_lengths_and_a_picture(slow_server, tmp_path):
    results = [run_load(LoadPlan(slow_server, [b"{}"], rate, 0.5)) for rate in (50.0, 100.0)]
    report = report_of(results)
    assert [row["rate_per_second"] for row in report["by_rate"]] == [50.0, 100.0]
    assert [row["memory_events_from"] for row in report["by_history"]] == [30]
    json.dumps(report)
    draw(report, tmp_path / "plots" / "load.png", "a test")
    assert (tmp_path / "plots" / "load.png").read_bytes()[:4] == b"\x89PNG"


def test_candidates_are_distinct_and_as_popular_as_they_were_shown():
    random = np.random.default_rng(0)
    shown = np.array([7] * 900 + list(range(100)))
    bodies = [json.loads(body) for body in bodies_of([1, 2, 3], shown, 50, random)]
    assert [body["user_id"] for body in bodies] == [1, 2, 3]
    for body in bodies:
        assert len(set(body["item_ids"])) == 50
        assert 7 in body["item_ids"]
    with pytest.raises(BadInputError, match="100 items only"):
        bodies_of([1], shown, 101, random)
