"""What a replay asks of the ranking service."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from uic.jobs.replay.client import RankingClient

USERS, ITEMS = np.array([3, 4]), np.array([70, 71])
TIMES_MS = np.array([1_735_700_000_000, 1_735_700_060_000])
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
def test_each_impression_is_ranked_as_of_its_own_moment(service, way):
    url, sent = service
    client = RankingClient(url)
    try:
        ranked = getattr(client, way)(USERS, ITEMS, TIMES_MS)
    finally:
        client.close()
    assert ranked.scores.tolist() == [0.25, 0.25]
    sent.sort(key=lambda body: body["user_id"])
    assert [body["moment_ms"] for body in sent] == TIMES_MS.tolist()
    assert [body["item_ids"] for body in sent] == [[70], [71]]
