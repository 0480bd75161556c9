"""How the rows ask a service, and a service that has the faults which they look for.

`faulty_service` is the control of every row that asks: it holds its connections up, dies within,
and answers noise with status 200, as the service once did.
"""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Final
from urllib.parse import urlsplit

from uic.jobs.drills.hostile.row import require

# A service that is well answers in milliseconds; this machine may be busy.
PATIENCE_SECONDS: Final = 30.0


def ask(
    url: str, path: str, document: Any = None, seconds: float = PATIENCE_SECONDS
) -> tuple[int, Any]:
    """Status and document of a GET, or of a POST of `document`.

    Raises:
        NotHeldError: no answer in time.
    """
    parts = urlsplit(url)
    method, body = ("GET", None) if document is None else ("POST", json.dumps(document))
    headers = {"Content-Type": "application/json", "Connection": "close"}
    with closing(
        http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=seconds)
    ) as connection:
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            require(
                held=False, seen=f"{method} {path}: no answer ({error or type(error).__name__})"
            )
            raise
    try:
        return answer.status, json.loads(text)
    except ValueError:
        return answer.status, text.decode(errors="replace")


def metric(url: str, line: str) -> float:
    """The value of one line of /metrics, 0 if it is not there."""
    _, text = ask(url, "/metrics")
    for found in str(text).splitlines():
        if found.startswith(line + " "):
            return float(found.split()[-1])
    return 0.0


def wait_until(held: Callable[[], bool], seconds: float, what: str) -> float:
    """Wait for it; how many seconds it took.

    Raises:
        NotHeldError: it did not come in time.
    """
    began = time.monotonic()
    while not held():
        require(time.monotonic() < began + seconds, f"{what}: not in {seconds:.0f} s")
        time.sleep(0.05)
    return time.monotonic() - began


class _Faulty(BaseHTTPRequestHandler):
    """Answers what it should not: 500, or no number and no reason."""

    status = http.HTTPStatus.OK

    def do_GET(self) -> None:
        """Say that all is well."""
        self._answer({"ready": True, "bundle": "mimn/0001"}, http.HTTPStatus.OK)

    def do_POST(self) -> None:
        """Wait for the body, however long it takes, and answer noise."""
        wanted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answers = [
            {
                "items": [{"item_id": item, "probability": None} for item in one["item_ids"]],
                "reasons": [],
            }
            for one in wanted.get("requests", [wanted])
        ]
        self._answer({"answers": answers} if "requests" in wanted else answers[0], self.status)

    def log_message(self, format: str, *values: object) -> None:  # noqa: A002 - the library's name
        """Say nothing."""

    def _answer(self, document: Any, status: int) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _FaultyServer(HTTPServer):
    """One request after the other; a client that goes away is no matter."""

    request_queue_size = 256

    def handle_error(self, request: object, client_address: object) -> None:
        """Go on."""


@contextmanager
def faulty_service(status: int = http.HTTPStatus.OK) -> Iterator[str]:
    """The URL of a service that has the faults; `status` is that of its rankings."""
    handler = type("_FaultyNow", (_Faulty,), {"status": status, "timeout": PATIENCE_SECONDS})
    server = _FaultyServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, name="faulty-service", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
