"""The load generator: latency from due times, lost requests, its report, and what it asks for."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from benchmarks.load.generator import LoadPlan, run_load
from benchmarks.load.report import draw, report_of
from benchmarks.load.targets import bodies_of
from uic.models.errors import BadInputError


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
