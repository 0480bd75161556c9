"""Is one model above another? Differences of AUC on the same impressions, by a bootstrap of users.

Users are drawn with replacement (Efron, Annals of Statistics 1979), all impressions of a user
together: those of one person are not independent, and an interval that takes them as if they were
is too narrow. Both models see the same draws, so what they have in common cancels.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
DRAWS: Final = 400


def user_draws(users: int, draws: int = DRAWS) -> Iterator[Floats]:
    """How often each user is in a draw, (users,) each; the same draws at each call."""
    generator = np.random.default_rng(0)
    for _ in range(draws):
        drawn = generator.integers(0, users, users)
        yield np.bincount(drawn, minlength=users).astype(np.float64)


@dataclass(frozen=True)
class RankedScores:
    """Scores in their order, for AUCs under many weights.

    Attributes:
        order: (n,) int64, by score.
        positive: (n,) bool in this order.
        starts: of each run of equal scores.
    """

    order: NDArray[np.int64]
    positive: NDArray[np.bool_]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, scores: Floats, labels: NDArray[np.bool_]) -> "RankedScores":
        """Of (n,) scores and (n,) labels."""
        order = np.argsort(scores, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) != 0])
        return cls(order, labels[order], starts)

    def auc(self, weight: Floats) -> float:
        """Under (n,) weights; NaN where only one class has any. Ties count half."""
        weight = weight[self.order]
        good = np.add.reduceat(np.where(self.positive, weight, 0.0), self.starts)
        bad = np.add.reduceat(np.where(self.positive, 0.0, weight), self.starts)
        pairs = good.sum() * bad.sum()
        below = np.cumsum(bad) - bad / 2
        return float(good @ below / pairs) if pairs else math.nan


def resampled_auc(
    scores: Sequence[Floats], labels: NDArray[np.bool_], user_ids: NDArray[np.int64]
) -> Floats:
    """Mean AUC over seeds in `DRAWS` draws of users; the same draws at each call.

    Args:
        scores: (n,) of each seed.
        labels: (n,), clicked.
        user_ids: (n,).

    Returns:
        (draws,).
    """
    known, owner = np.unique(user_ids, return_inverse=True)
    ranked = [RankedScores.of(one, labels) for one in scores]
    areas = [
        np.mean([one.auc(weight[owner]) for one in ranked]) for weight in user_draws(known.size)
    ]
    return np.array(areas)


@dataclass(frozen=True)
class Difference:
    """AUC of one model less that of another, and bounds at 95 %; NaN where there is no AUC.

    Attributes:
        mean: of the impressions as they are.
        low: 2.5th percentile over draws of users.
        high: 97.5th percentile.
    """

    mean: float
    low: float
    high: float

    @property
    def word(self) -> str:
        """What may be said of it: above, below, or neither."""
        if self.low > 0:
            return "above"
        return "below" if self.high < 0 else "not told apart"

    def describe(self) -> str:
        """`+0.0123 [0.0050, 0.0200] above`."""
        return f"{self.mean:+.4f} [{self.low:+.4f}, {self.high:+.4f}] {self.word}"


def difference(
    ours: Sequence[Floats],
    theirs: Sequence[Floats],
    labels: NDArray[np.bool_],
    user_ids: NDArray[np.int64],
) -> Difference:
    """Mean over seeds of ours less that of theirs, paired by user.

    Args:
        ours: (n,) scores of each seed.
        theirs: (n,) scores of each seed, of the same impressions in the same order.
        labels: (n,), clicked.
        user_ids: (n,).
    """
    whole = np.ones(labels.size)
    mean = np.mean([RankedScores.of(one, labels).auc(whole) for one in ours]) - np.mean(
        [RankedScores.of(one, labels).auc(whole) for one in theirs]
    )
    draws = resampled_auc(ours, labels, user_ids) - resampled_auc(theirs, labels, user_ids)
    draws = draws[~np.isnan(draws)]  # a draw of few users may have one class only
    if not draws.size:
        return Difference(float(mean), math.nan, math.nan)
    low, high = np.percentile(draws, [2.5, 97.5])
    return Difference(float(mean), float(low), float(high))


def standard_error(values: Sequence[float]) -> float | None:
    """Of a mean over seeds; None for fewer than two."""
    if len(values) < 2:
        return None
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))
