"""How far the records are behind the log, and what `state.yaml` wants of answers then."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from uic.models.errors import UicError
from uic.models.state.freshness import Freshness, WhenBehind
from uic.models.state.times import written

# What was last seen of the store says nothing of records that are read much later.
_KNOWN_SECONDS: Final = 30.0


class RecordsBehindError(UicError):
    """The records are behind, and `state.yaml` says to refuse."""


@dataclass
class RecordsFreshness:
    """What a probe has found; read by the engine in each round.

    Attributes:
        policy: of the workspace's file; None for none: then nothing is said or done.
        folded_until_ms: everything before it is in the records; None while it is not known.
        monotonic: seconds.
    """

    policy: Freshness | None = None
    folded_until_ms: int | None = None
    monotonic: Callable[[], float] = time.monotonic
    _found_at: float = float("-inf")

    def found(self, policy: Freshness | None, folded_until_ms: int | None) -> None:
        """Take what a look has found."""
        self.policy, self.folded_until_ms = policy, folded_until_ms
        self._found_at = self.monotonic()

    def behind_seconds(self, now: float) -> float | None:
        """How far the records are behind; None without a policy, and while it is not known.

        Args:
            now: seconds since 1970 UTC.
        """
        if self.policy is None or self.folded_until_ms is None:
            return None
        if self.monotonic() - self._found_at > _KNOWN_SECONDS:
            return None
        return max(0.0, now - self.folded_until_ms / 1000)

    def wanted(self, behind_seconds: float | None) -> WhenBehind | None:
        """What is to be done; None while the records are fresh enough."""
        if self.policy is None or behind_seconds is None:
            return None
        return self.policy.then if behind_seconds * 1000 > self.policy.at_most else None

    def refusal(self, behind_seconds: float | None) -> RecordsBehindError:
        """The error of a refused request."""
        limit = "" if self.policy is None else written(self.policy.at_most)
        msg = (
            f"records are {behind_seconds or 0:.0f} s behind the log, freshness in state.yaml "
            f"allows {limit} and says refuse; see `uic stream status`"
        )
        return RecordsBehindError(msg)
