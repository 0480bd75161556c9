"""The log of errors that no code expected: each kind once a minute, with its traceback."""

import logging
import time
from typing import Final

LOG: Final = logging.getLogger("uic.serve")
_QUIET_SECONDS: Final = 60.0
_last: dict[tuple[str, type[BaseException]], float] = {}


def log_unexpected(place: str, error: BaseException) -> None:
    """Log an error at a last catch, unless its kind was logged there a moment ago.

    Args:
        place: what failed.
        error: that was caught.
    """
    now, kind = time.monotonic(), (place, type(error))
    if now - _last.get(kind, -_QUIET_SECONDS) < _QUIET_SECONDS:
        return
    _last[kind] = now
    LOG.error("%s failed: %r", place, error, exc_info=error)
