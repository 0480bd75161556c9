"""Limits around the application: body size, token, requests in flight.

One ASGI layer, so that a body that is too large is refused before it is in memory, and a request
over the bound costs nothing but its refusal.
"""

import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from uic.jobs.serving.read.metrics import ServiceMetrics
from uic.jobs.serving.read.unexpected import log_unexpected

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

# Answered without a token and however many are in flight: what a load balancer asks.
_ALWAYS: Final = frozenset({"/healthz", "/readyz"})
RETRY_AFTER_SECONDS: Final = b"1"
# Of a body that is too large, so many times the limit are read to their end.
_THROWN_AWAY: Final = 8


class _TooMuchAtOnceError(Exception):
    """Bodies that are not complete take more memory than all requests in flight may."""


class Limits:
    """The layer.

    Args:
        application: inside.
        metrics: counts answers by path and status.
        max_body_bytes: of a request.
        max_in_flight: requests of this worker.
        token: that requests must bear; None for none.
        is_draining: whether connections are to be closed after their answer.
    """

    def __init__(
        self,
        application: Application,
        metrics: ServiceMetrics,
        *,
        max_body_bytes: int,
        max_in_flight: int,
        token: str | None,
        is_draining: Callable[[], bool],
    ) -> None:
        self._application = application
        self._metrics = metrics
        self._max_body_bytes = max_body_bytes
        self._max_in_flight = max_in_flight
        self._expected = None if token is None else f"Bearer {token}".encode()
        self._is_draining = is_draining
        self._in_flight = 0
        self._reading = 0  # bytes of bodies that are not complete

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Refuse, or pass on."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        started = False

        async def noting(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        counting = self._counting(scope["path"], noting)
        try:
            await self._limited(scope, receive, counting)
        except Exception as error:  # here, so that it is counted: Starlette's handler is outside
            log_unexpected("a request", error)
            if started:
                raise
            await refuse(counting, 500, None, "an error of the service; its log says which")

    async def _limited(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["path"] in _ALWAYS:
            await self._application(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if self._expected is not None and not hmac.compare_digest(
            headers.get(b"authorization", b""), self._expected
        ):
            await refuse(send, 401, "authorization", "a bearer token is needed")
            return
        if self._in_flight >= self._max_in_flight:
            await refuse(send, 429, None, f"{self._in_flight} requests are in flight; come again")
            return
        # A request counts when its body is there: one that comes slowly keeps no other out.
        try:
            replay = await self._read(receive, headers.get(b"content-length", b""))
        except _TooMuchAtOnceError:
            await refuse(send, 429, None, "too many bodies are on their way; come again")
            return
        if replay is None:
            await self._too_large(send)
            return
        if self._in_flight >= self._max_in_flight:
            await refuse(send, 429, None, f"{self._in_flight} requests are in flight; come again")
            return
        self._in_flight += 1
        self._metrics.in_flight.inc()
        try:
            await self._application(scope, replay, send)
        finally:
            self._in_flight -= 1
            self._metrics.in_flight.dec()

    async def _read(self, receive: Receive, length: bytes) -> Receive | None:
        """Read a body up to the limit, to be received again; None if it is larger.

        Bodies on their way together take at most what those of all requests in flight may.

        A body that is somewhat too large is read and thrown away: a client that is still sending
        when its connection is closed never sees the answer.
        """
        known = int(length) if length.isdigit() else 0
        if known > _THROWN_AWAY * self._max_body_bytes:
            return None
        messages: list[Message] = []
        read = held = 0
        try:
            while not messages or messages[-1].get("more_body", False):
                messages.append(await receive())
                size = len(messages[-1].get("body", b""))
                read += size
                held += size
                self._reading += size
                if max(read, known) > self._max_body_bytes:
                    messages = messages[-1:]
                    self._reading -= held
                    held = 0
                if read > _THROWN_AWAY * self._max_body_bytes:
                    return None
                if self._reading > self._max_in_flight * self._max_body_bytes:
                    raise _TooMuchAtOnceError
        finally:
            self._reading -= held
        if max(read, known) > self._max_body_bytes:
            return None
        waiting = iter(messages)

        async def replay() -> Message:
            message = next(waiting, None)
            return await receive() if message is None else message

        return replay

    def _counting(self, path: str, send: Send) -> Send:
        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                known = path if path in KNOWN_PATHS else "other"
                self._metrics.requests.labels(known, message["status"]).inc()
                if self._is_draining():
                    message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        return counting

    async def _too_large(self, send: Send) -> None:
        detail = f"body: larger than {self._max_body_bytes} bytes"
        await refuse(send, 413, "body", detail)


KNOWN_PATHS: Final = frozenset({"/v1/rank", "/v1/rank:batch", "/metrics", *_ALWAYS})


async def refuse(send: Send, status: int, field: str | None, detail: str) -> None:
    """Answer with a `Problem`."""
    body = json.dumps({"field": field, "detail": detail}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status == 429:
        headers.append((b"retry-after", RETRY_AFTER_SECONDS))
    if status == 413:
        headers.append((b"connection", b"close"))  # the rest of the body is not read
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
