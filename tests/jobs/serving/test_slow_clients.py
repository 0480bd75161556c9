"""Clients that send slowly, too much, or nothing: others are answered meanwhile."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection

import httpx
import pytest

from tests.jobs.serving.running import RunningService, running_service
from tests.jobs.serving.shop import Shop

pytestmark = pytest.mark.slow

REFUSED = 'uic_serve_requests_total{{path="other",status="{}"}}'
ITEMS = list(range(1000, 1020))
BODY = json.dumps({"user_id": 3, "item_ids": ITEMS}).encode()
HEAD = b"POST /v1/rank HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: "


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    shop = Shop.open(tmp_path_factory.mktemp("slow"))
    shop.generation(1, shop.bundle("0001"), [20] * 5)
    settings = {"head_seconds": "2", "body_seconds": "2", "max_in_flight": "8"}
    with running_service(shop.workspace, **settings) as running:
        yield running
    shop.stop()


@pytest.fixture
def connect(service: RunningService) -> Iterator[Callable[[], socket.socket]]:
    """Makes connections, which are closed at the end."""
    url = httpx.URL(service.url)
    with ExitStack() as stack:

        def made() -> socket.socket:
            connection = socket.create_connection((url.host, url.port), timeout=30)
            return stack.enter_context(connection)

        yield made


def end_of(connection: socket.socket) -> bytes:
    """Everything until the service closes the connection."""
    received = b""
    while part := connection.recv(65536):
        received += part
    return received


def test_what_is_no_http_is_refused_and_counted(service, connect):
    connection = connect()
    connection.sendall(b"\x16\x03\x01 no request\r\n\r\n")
    assert end_of(connection).startswith(b"HTTP/1.1 400 ")
    assert service.metric(REFUSED.format(400)) == 1


def test_trailers_of_a_body_in_chunks_count_as_head(service, connect):
    connection = connect()
    connection.sendall(
        b"POST /v1/rank HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n"
    )
    sent = 0
    with suppress(OSError):
        for _ in range(4000):
            connection.sendall(b"x: " + b"a" * 9_995 + b"\r\n")
            sent += 10_000
    assert sent < 20_000_000
    assert service.rank(3, ITEMS)["items"]


def test_bodies_on_their_way_together_have_a_bound(service, connect):
    """Eight requests of 1 MiB may be in flight, so 8 MiB of bodies may wait for their end."""
    slow = [connect() for _ in range(14)]
    for connection in slow:
        connection.sendall(HEAD + b"1000000\r\n\r\n" + b" " * 900_000)
    statuses = [end_of(connection).split(b" ")[1] for connection in slow]
    assert {b"408", b"429"} == set(statuses)
    assert service.rank(3, ITEMS)["items"]


def test_a_body_that_is_too_large_gets_an_answer_that_its_client_can_read(connect):
    large = b" " * 3_000_000
    connection = connect()
    connection.sendall(HEAD + str(len(large)).encode() + b"\r\n\r\n" + large)
    assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_a_connection_that_is_kept_serves_one_request_after_the_other(service):
    url = httpx.URL(service.url)
    with closing(HTTPConnection(url.host, url.port, timeout=30)) as connection:
        local = []
        for _ in range(3):
            connection.request("POST", "/v1/rank", BODY, {"content-type": "application/json"})
            answer = connection.getresponse()
            assert (answer.status, bool(answer.read())) == (200, True)
            local.append(connection.sock.getsockname())
            time.sleep(1.2)  # together longer than the deadline of a head
    assert len(set(local)) == 1
