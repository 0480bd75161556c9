"""The best reachable AUC: what ranking by the true click probabilities would give."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

# Probabilities in one of so many equal bins count as a tie. The error of the AUC is at most the
# share of pairs that fall into one bin, and nothing has to be kept in memory or sorted.
_BINS: Final = 1 << 16


class BestAuc:
    """AUC of known probabilities, summed up chunk by chunk in bounded memory."""

    def __init__(self) -> None:
        self._clicked = np.zeros(_BINS, dtype=np.int64)
        self._skipped = np.zeros(_BINS, dtype=np.int64)

    def add(self, probabilities: NDArray[np.float32], clicked: NDArray[np.bool_]) -> None:
        """Count impressions; both (impressions,), probabilities from 0 to 1."""
        bins = np.minimum((probabilities * _BINS).astype(np.int64), _BINS - 1)
        self._clicked += np.bincount(bins[clicked], minlength=_BINS)
        self._skipped += np.bincount(bins[~clicked], minlength=_BINS)

    @property
    def impressions(self) -> int:
        """Impressions counted."""
        return int(self._clicked.sum() + self._skipped.sum())

    @property
    def clicks(self) -> int:
        """Clicked impressions counted."""
        return int(self._clicked.sum())

    def auc(self) -> float | None:
        """P(a clicked one has the larger probability), ties half; None without both kinds."""
        pairs = int(self._clicked.sum()) * int(self._skipped.sum())
        if pairs == 0:
            return None
        below = np.cumsum(self._skipped) - self._skipped
        # Python's integers: the sums of a billion impressions exceed 2^53.
        won = 2 * int((self._clicked.astype(object) * below).sum())
        tied = int((self._clicked.astype(object) * self._skipped).sum())
        return (won + tied) / (2 * pairs)
