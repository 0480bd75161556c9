"""What a replay asks of the ranking service."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pyarrow as pa
import pytest

from uic.jobs.replay.client import RankingClient
from uic.jobs.replay.day import DayImpressions

SHOWN = DayImpressions(
    np.array([3, 4]),
    np.array([70, 71]),
    np.array([1_735_700_000_000, 1_735_700_060_000]),
    np.array([True, False]),
    pa.table({"tab": pa.array([1, None], pa.int16()), "is_rand": [True, False]}),
)
SCORED = {"probability": 0.25, "explanation": {"probability_without_memory": 0.5}}


@pytest.fixture
def service():
    """A service's address, and the bodies that it was sent."""
    sent = []

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked = body.get("requests", [body])
            sent.extend(asked)
            answers = [{"items": [SCORED], "reasons": []} for _ in asked]
            answer = {"answers": answers} if "requests" in body else answers[0]
            payload = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", sent
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("way", ["rank_each", "rank_all"])
def test_each_impression_is_ranked_as_of_its_own_moment_and_in_its_context(service, way):
    url, sent = service
    client = RankingClient(url)
    try:
        ranked = getattr(client, way)(SHOWN)
    finally:
        client.close()
    assert ranked.scores.tolist() == [0.25, 0.25]
    sent.sort(key=lambda body: body["user_id"])
    assert [body["moment_ms"] for body in sent] == SHOWN.times_ms.tolist()
    assert [body["item_ids"] for body in sent] == [[70], [71]]
    assert [body["context"] for body in sent] == [{"tab": 1, "is_rand": True}, {"is_rand": False}]
