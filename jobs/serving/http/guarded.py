"""uvicorn's protocol with deadlines and bounds: what a slow or hostile client may hold of a worker.

uvicorn has a deadline between requests alone. A client that sends a head or a body byte by byte, or
never anything, would hold its connection for ever, and httptools joins a head of any size.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


@dataclass(frozen=True)
class Bounds:
    """What a client may hold.

    Args:
        head_seconds: from the connection, or the first byte of a further request, to the end of
            its head.
        body_seconds: from there to the end of the body.
        head_bytes: of a head, and of the framing and trailers of a body in chunks.
        connections: of one worker.
    """

    head_seconds: float
    body_seconds: float
    head_bytes: int
    connections: int


class GuardedProtocol(HttpToolsProtocol):
    """One connection.

    Args:
        bounds: of each; the other arguments are uvicorn's.
        refused: told the status of each refusal, which no application sees.
    """

    def __init__(
        self, *arguments: Any, bounds: Bounds, refused: Callable[[int], None], **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self._bounds = bounds
        self._refused = refused
        self._deadline: asyncio.TimerHandle | None = None
        self._head_read = 0  # bytes of this request that are none of its body
        self._in_body = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
        """A connection over the bound is closed at once; others must send a head in time."""
        super().connection_made(transport)
        if len(self.connections) > self._bounds.connections:
            transport.abort()
            return
        self._expect(self._bounds.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """The deadline goes with the connection."""
        self._expect(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of a head or a body."""
        if not self._in_body and self._deadline is None:  # the next request of a kept connection
            self._expect(self._bounds.head_seconds)
        self._head_read += len(data)
        super().data_received(data)
        if self._head_read > self._bounds.head_bytes:
            self._refuse(431)

    def on_headers_complete(self) -> None:
        """From here on it is the body that must come in time."""
        self._in_body = True
        self._expect(self._bounds.body_seconds)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """What is left is the head, and of a body in chunks their framing and trailers."""
        self._head_read -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is there; its answer has a deadline elsewhere."""
        self._in_body, self._head_read = False, 0
        self._expect(None)
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP."""
        self._refused(400)
        super().send_400_response(msg)

    def _expect(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.loop.call_later(seconds, self._late)

    def _late(self) -> None:
        self._deadline = None
        if self._in_body or self._head_read:
            self._refuse(408)
        elif not self.transport.is_closing():
            self.transport.close()

    def _refuse(self, status: int) -> None:
        """A last line for a client that reads, and the end of the connection."""
        if self.transport.is_closing():
            return
        if self.cycle is not None and self.cycle.response_started and self._in_body:
            self.transport.close()  # it has its answer already, or is amid one
            return
        self._refused(status)
        phrase = {408: "Request Timeout", 431: "Request Header Fields Too Large"}[status]
        self.transport.write(
            f"HTTP/1.1 {status} {phrase}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode()
        )
        self.transport.close()
