"""The live pointer: which generation readers read, and when they turn to the next one.

A switch writes the pointer with the moment at which it holds (`switch_at_ms`, by Redis' clock).
Readers ask more often than switches are announced ahead, so all of them know before that moment
and turn together.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from uic.feature_repo.store.errors import EmptyStoreError, typed_errors
from uic.feature_repo.store.layout import ViewKeys

EMPTY: Final = (
    "{address}: no generation is live: the store is empty or was wiped; load a snapshot with "
    "`uic memories load`, then `uic memories switch`"
)


class LivePointer:
    """The live generation as a reader sees it: asked for now and then, turned on time.

    Time is Redis' clock, carried on by the local monotonic one, so that readers on machines whose
    clocks differ turn together.

    Args:
        client: Redis, or None when a caller reads the fields itself (`accept`).
        keys: of the view.
        address: for messages.
        refresh_seconds: how long an answer is trusted; less than the delay of a switch.
        monotonic: seconds.
    """

    def __init__(
        self,
        client: Any,
        keys: ViewKeys,
        address: str,
        refresh_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._keys = keys
        self._address = address
        self._refresh_seconds = refresh_seconds
        self._monotonic = monotonic
        self._fields: Mapping[bytes, bytes] = {}
        self._asked_at = float("-inf")
        self._offset_ms = 0.0

    @property
    def due(self) -> bool:
        """Whether Redis must be asked again before `number`."""
        return not self._fields or self._monotonic() - self._asked_at >= self._refresh_seconds

    def resolve(self) -> int:
        """The live generation; a request calls this once.

        Raises:
            EmptyStoreError: there is none.
        """
        if self.due:
            with typed_errors(self._address):
                self.accept(*self.question(self._client).execute())
        return self.number()

    def question(self, client: Any) -> Any:
        """The pipeline of a client, synchronous or not, whose answers `accept` takes."""
        pipe = client.pipeline(transaction=False)
        pipe.hgetall(self._keys.live)
        pipe.time()
        return pipe

    def accept(self, fields: Mapping[bytes, bytes], redis_time: tuple[int, int]) -> None:
        """Take a fresh answer: the pointer's hash, and TIME of the same moment."""
        self._asked_at = self._monotonic()
        self._offset_ms = milliseconds(redis_time) - self._asked_at * 1000
        self._fields = fields

    def number(self) -> int:
        """The live generation by what was last accepted."""
        if not self._fields:
            raise EmptyStoreError(EMPTY.format(address=self._address))
        return resolved(self._fields, self._monotonic() * 1000 + self._offset_ms)


def milliseconds(redis_time: tuple[int, int]) -> int:
    """Redis' answer to TIME, in milliseconds since 1970 UTC."""
    return int(redis_time[0]) * 1000 + int(redis_time[1]) // 1000


def resolved(pointer: Mapping[bytes, bytes], now_ms: float) -> int:
    """The generation that a pointer's hash means at `now_ms`."""
    turned = now_ms >= int(pointer[b"switch_at_ms"])
    return int(pointer[b"number"] if turned else pointer[b"previous"])
