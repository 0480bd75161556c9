"""A circuit breaker: a store that failed several times is left alone for a moment.

Without it every request would wait for the store's timeout while the store is away. After the
moment one read is let through; it closes the circuit, or opens it for another moment.
"""

import time
from collections.abc import Callable


class CircuitBreaker:
    """Counts failures in a row; one event loop, no locks.

    Args:
        failures: in a row that open the circuit.
        open_seconds: until the next try.
        monotonic: seconds.
    """

    def __init__(
        self,
        failures: int,
        open_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = failures
        self._open_seconds = open_seconds
        self._monotonic = monotonic
        self._failures = 0
        self._try_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether failures have opened it; it may be due for a try."""
        return self._failures >= self._limit

    def allow(self) -> bool:
        """Whether to ask the store now; of an open circuit's tries one at a time is allowed."""
        if not self.is_open:
            return True
        now = self._monotonic()
        if now < self._try_at:
            return False
        self._try_at = now + self._open_seconds
        return True

    def succeeded(self) -> None:
        """The store answered."""
        self._failures = 0

    def failed(self) -> None:
        """The store did not answer."""
        self._failures += 1
        if self.is_open:
            self._try_at = self._monotonic() + self._open_seconds
