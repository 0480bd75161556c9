"""Requests at a fixed rate, however slow the answers are, and every latency kept.

A closed loop (send, wait, send) slows down with the server and so hides what its users would have
waited (coordinated omission). Here request *i* is due at `start + i / rate`; its latency counts
from that moment, be it sent late because all connections were busy, or because this process was.

A thread waits for the due times (`time.sleep` is exact to 0.1 ms, an event loop's timer to 1 ms)
and hands each request to the event loop, which has a pool of keep-alive connections.
"""

import asyncio
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

# What an answer says of itself, without parsing 12 KB of JSON in the load generator.
_DEGRADED: Final = b'"degraded":true'
_EVENTS: Final = re.compile(rb'"memory_events":(\d+)')
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_LOST: Final = 0  # status of a request whose connection broke
OnAnswer = Callable[[int, int, bytes], None]


@dataclass(frozen=True)
class LoadPlan:
    """What to send.

    Args:
        url: of the service, `http://host:port`.
        bodies: JSON documents, sent in turn.
        rate: requests a second.
        seconds: for how long.
        path: of each request.
        token: bearer token, None for none.
        connections: open at once, at most.
        timeout_seconds: after which a request counts as lost.
        warm_up_seconds: sent before, at the same rate, and not counted.
    """

    url: str
    bodies: Sequence[bytes]
    rate: float
    seconds: float
    path: str = "/v1/rank"
    token: str | None = None
    connections: int = 128
    timeout_seconds: float = 10.0
    warm_up_seconds: float = 0.0

    @property
    def requests(self) -> int:
        """Requests that count."""
        return max(1, round(self.rate * self.seconds))

    @property
    def warm_up_requests(self) -> int:
        """Requests that do not."""
        return round(self.rate * self.warm_up_seconds)

    def encoded(self) -> list[bytes]:
        """Whole HTTP requests."""
        parts = urlsplit(self.url)
        token = "" if self.token is None else f"Authorization: Bearer {self.token}\r\n"
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Content-Type: application/json\r\n{token}"
        )
        return [
            f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body for body in self.bodies
        ]


@dataclass
class LoadResult:
    """Every request of a run, in the order of their due times.

    Args:
        rate: that was asked for.
        latency_ms: (requests,), from the due time to the last byte.
        due_seconds: (requests,), since the start.
        late_ms: (requests,), how late this process sent it: its own share of the latency.
        status: (requests,), HTTP status; 0 where the connection broke or the answer never came.
        degraded: (requests,), bool.
        memory_events: (requests,), of the answer's memory; -1 for none.
        seconds: from the first due time to the last answer.
    """

    rate: float
    latency_ms: NDArray[np.float64]
    due_seconds: NDArray[np.float64]
    late_ms: NDArray[np.float64]
    status: NDArray[np.int64]
    degraded: NDArray[np.bool_]
    memory_events: NDArray[np.int64]
    seconds: float

    @property
    def failed(self) -> int:
        """Requests without an answer, or with a status of 500 and above."""
        return int(((self.status == _LOST) | (self.status >= 500)).sum())

    def summary(self) -> dict[str, Any]:
        """Figures with their units in their names."""
        p50, p90, p99, p999 = np.percentile(self.latency_ms, [50, 90, 99, 99.9]).tolist()
        found, counts = np.unique(self.status, return_counts=True)
        return {
            "rate_per_second": self.rate,
            "answered_per_second": round(float((self.status == 200).sum() / self.seconds), 1),
            "requests": len(self.status),
            "p50_ms": round(p50, 3),
            "p90_ms": round(p90, 3),
            "p99_ms": round(p99, 3),
            "p99_9_ms": round(p999, 3),
            "max_ms": round(float(self.latency_ms.max()), 3),
            "mean_ms": round(float(self.latency_ms.mean()), 3),
            "generator_late_p99_ms": round(float(np.percentile(self.late_ms, 99)), 3),
            "statuses": dict(zip(map(str, found.tolist()), counts.tolist(), strict=True)),
            "failed": self.failed,
            "degraded": int(self.degraded.sum()),
        }


def run_load(plan: LoadPlan, on_answer: OnAnswer | None = None) -> LoadResult:
    """Send the plan's requests; returns when each has its answer or its timeout.

    Args:
        plan: what to send.
        on_answer: called with (number, status, body) as answers come.
    """
    return asyncio.run(_LoadRun(plan, on_answer).run())


@dataclass
class _LoadRun:
    plan: LoadPlan
    on_answer: OnAnswer | None
    idle: "deque[_Connection]" = field(default_factory=deque)
    backlog: deque[int] = field(default_factory=deque)
    open_connections: int = 0
    outstanding: int = 0
    all_sent: bool = False

    async def run(self) -> LoadResult:
        loop = asyncio.get_running_loop()
        plan = self.plan
        self.loop, self.finished = loop, asyncio.Event()
        self.requests = plan.encoded()
        parts = urlsplit(plan.url)
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 80
        count = plan.warm_up_requests + plan.requests
        self.due = np.arange(count) / plan.rate
        self.sent, self.done = np.full(count, np.nan), np.full(count, np.nan)
        self.status = np.zeros(count, dtype=np.int64)
        self.degraded = np.zeros(count, dtype=np.bool_)
        self.events = np.full(count, -1, dtype=np.int64)
        self.outstanding = count
        self.connecting: set[asyncio.Task[None]] = set()
        self.start = time.perf_counter() + 0.1
        thread = threading.Thread(target=self._wait_for_due_times, daemon=True)
        thread.start()
        try:
            async with asyncio.timeout(float(self.due[-1]) + plan.timeout_seconds + 1.0):
                await self.finished.wait()
        except TimeoutError:
            pass  # what has no answer by now is lost
        self.all_sent = True
        thread.join()
        for connection in list(self.idle):
            connection.transport.abort()
        return self._result()

    def _wait_for_due_times(self) -> None:
        for number, due in enumerate(self.due.tolist()):
            wait = self.start + due - time.perf_counter()
            if wait > 0:
                time.sleep(wait)
            if self.all_sent:
                return
            self.loop.call_soon_threadsafe(self._send, number)

    def _send(self, number: int) -> None:
        if self.idle:
            self.idle.pop().send(number)
        elif self.open_connections < self.plan.connections:
            self.open_connections += 1
            self.backlog.append(number)
            task = self.loop.create_task(self._connect())
            self.connecting.add(task)
            task.add_done_callback(self.connecting.discard)
        else:
            self.backlog.append(number)

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(self.plan.timeout_seconds):
                _, connection = await self.loop.create_connection(
                    lambda: _Connection(self), self.host, self.port
                )
        except (OSError, TimeoutError):
            self.open_connections -= 1
            if self.backlog:
                self.answered(self.backlog.popleft(), _LOST, b"")
            return
        self.free(connection)

    def free(self, connection: "_Connection") -> None:
        """A connection can take the next request."""
        if self.backlog:
            connection.send(self.backlog.popleft())
        else:
            self.idle.append(connection)

    def answered(self, number: int, status: int, body: bytes) -> None:
        """Note an answer."""
        self.done[number] = time.perf_counter()
        self.status[number] = status
        self.degraded[number] = _DEGRADED in body
        match = _EVENTS.search(body)
        if match:
            self.events[number] = int(match[1])
        if self.on_answer is not None:
            self.on_answer(number, status, body)
        self.outstanding -= 1
        if not self.outstanding:
            self.finished.set()

    def lost(self, connection: "_Connection", number: int | None) -> None:
        """A connection was closed, perhaps with a request on it."""
        self.open_connections -= 1
        if connection in self.idle:
            self.idle.remove(connection)
        if number is not None:
            self.answered(number, _LOST, b"")
        if self.backlog and not self.idle:
            self._send(self.backlog.popleft())

    def _result(self) -> LoadResult:
        first = self.plan.warm_up_requests
        due = self.start + self.due
        never = np.isnan(self.done)
        end = time.perf_counter()
        done = np.where(never, end, self.done)
        sent = np.where(np.isnan(self.sent), end, self.sent)
        return LoadResult(
            rate=self.plan.rate,
            latency_ms=(done - due)[first:] * 1000,
            due_seconds=self.due[first:] - self.due[first],
            late_ms=np.maximum((sent - due)[first:] * 1000, 0.0),
            status=self.status[first:],
            degraded=self.degraded[first:],
            memory_events=self.events[first:],
            seconds=float(done.max() - due[first]),
        )


class _Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request on it."""

    transport: asyncio.Transport

    def __init__(self, run: _LoadRun) -> None:
        self._run = run
        self._number: int | None = None
        self._buffer = bytearray()
        self._expected = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def send(self, number: int) -> None:
        """Send a request."""
        self._number = number
        self._run.sent[number] = time.perf_counter()
        self.transport.write(self._run.requests[number % len(self._run.requests)])

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._expected < 0:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            length = _LENGTH.search(self._buffer, 0, end + 2)
            self._body_at = end + 4
            self._expected = self._body_at + (int(length[1]) if length else 0)
        if len(self._buffer) < self._expected:
            return
        head = bytes(self._buffer[: self._body_at])
        body = bytes(self._buffer[self._body_at : self._expected])
        number, self._number = self._number, None
        self._buffer.clear()
        self._expected = -1
        closing = b"connection: close" in head.lower()
        if number is not None:
            self._run.answered(number, int(head[9:12]), body)
        if closing:
            self.transport.close()
        else:
            self._run.free(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        number, self._number = self._number, None
        self._run.lost(self, number)
