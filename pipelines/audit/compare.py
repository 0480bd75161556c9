"""One memory beside another: the verdict on each user, from arrays alone.

A served memory is held against the fold of the log up to the memory's *own* position, so a store
that is being written to can be audited. What the markers said before the memories were read must
be in them: a memory whose user has later events at or before a marker is behind.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from uic.models.records.record import HEADER_BYTES, Records, has_events, header_view, state_view

NOT_A_NUMBER: Final = float("inf")


class Verdict(IntEnum):
    """What became of one user."""

    MATCHED = 0
    WITHIN_TOLERANCE = 1
    DIFFERING = 2
    BEHIND = 3
    MISSING = 4
    EXTRA = 5
    AHEAD = 6


# What was not judged is none of "all is well".
MISMATCHES: Final = (
    Verdict.DIFFERING,
    Verdict.BEHIND,
    Verdict.MISSING,
    Verdict.EXTRA,
    Verdict.AHEAD,
)


@dataclass(frozen=True)
class Compared:
    """Verdicts of some users.

    Attributes:
        verdicts: (users,), int8, `Verdict`.
        differences: (users,), float64: largest absolute difference of a number of the state; 0
            where there was nothing to compare, infinite where one of the two is not a number.
    """

    verdicts: NDArray[np.int8]
    differences: NDArray[np.float64]


def compare_memories(
    expected: Records,
    served: Records,
    found: NDArray[np.bool_],
    *,
    ahead: NDArray[np.bool_],
    behind: NDArray[np.bool_],
    forgotten: NDArray[np.bool_],
    tolerance: float,
) -> Compared:
    """Hold served memories against expected ones.

    Args:
        expected: (users, record_bytes), the log's fold up to each served memory's position, or up
            to the markers where nothing is served.
        served: (users, record_bytes), as the store has them.
        found: (users,): whether the store has one.
        ahead: (users,): the memory's position is not in the log yet, so nothing can be said.
        behind: (users,): later events of the user lie at or before a marker.
        forgotten: (users,): deleted on request; nothing may be served.
        tolerance: of a number of the state; 0 asks for the same bytes.

    Returns:
        A verdict for each user; those whom neither log nor store knows are matched.
    """
    known = has_events(header_view(expected))
    equal = (expected == served).all(axis=1)
    differences = np.zeros(len(expected))
    unequal = np.flatnonzero(~equal & found & known)
    if unequal.size:
        differences[unequal] = _largest(expected[unequal], served[unequal])
    same_header = (expected[:, :HEADER_BYTES] == served[:, :HEADER_BYTES]).all(axis=1)
    near = ~equal & same_header & (differences <= tolerance) & (tolerance > 0)
    # Later lines win over earlier ones.
    verdicts = np.full(len(expected), Verdict.DIFFERING, dtype=np.int8)
    verdicts[near] = Verdict.WITHIN_TOLERANCE
    verdicts[equal] = Verdict.MATCHED
    verdicts[(equal | near) & behind] = Verdict.BEHIND
    verdicts[found & (~known | forgotten)] = Verdict.EXTRA
    verdicts[found & ahead & ~forgotten] = Verdict.AHEAD
    verdicts[~found] = np.where(known[~found] & ~forgotten[~found], Verdict.MISSING, 0)
    compared = np.isin(verdicts, (Verdict.WITHIN_TOLERANCE, Verdict.DIFFERING))
    return Compared(verdicts, np.where(compared, differences, 0.0))


def _largest(expected: Records, served: Records) -> NDArray[np.float64]:
    """(n,) largest absolute difference of the states; equal bytes differ by nothing."""
    one, other = (state_view(np.ascontiguousarray(records)) for records in (expected, served))
    with np.errstate(invalid="ignore"):
        apart = np.abs(one.astype(np.float64) - other.astype(np.float64))
        apart[one.view(np.uint16) == other.view(np.uint16)] = 0.0
        largest: NDArray[np.float64] = apart.max(axis=1, initial=0.0)
    return np.where(np.isnan(largest), NOT_A_NUMBER, largest)
