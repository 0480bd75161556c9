"""What a row of the race scores: AUC, AUC within a request, and the paired interval."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uic.models.training.metrics import auc, gauc

Floats = NDArray[np.float64]
_DRAWS = 400


@dataclass(frozen=True)
class Judge:
    """Judges scores of the test rows.

    Attributes:
        labels: (rows,) bool.
        users: (rows,) int64.
        requests: (rows,) int64.
    """

    labels: NDArray[np.bool_]
    users: NDArray[np.int64]
    requests: NDArray[np.int64]

    @classmethod
    def of(cls, rows: pd.DataFrame) -> "Judge":
        """Of rows of a `RaceLog`."""
        return cls(
            rows.label.to_numpy() > 0,
            np.unique(rows.user.to_numpy(), return_inverse=True)[1],
            rows.request.to_numpy(),
        )

    def auc(self, scores: Floats) -> float:
        """Over all rows."""
        return auc(scores, self.labels)

    def within(self, scores: Floats) -> float:
        """Mean of the requests' AUCs, weighted by their rows."""
        return gauc(scores, self.labels, self.requests)[0]

    def resampled(self, scores: Floats) -> tuple[Floats, Floats]:
        """AUC, and AUC within requests, of `_DRAWS` draws of users; the same draws at each call."""
        users = int(self.users.max()) + 1
        generator = np.random.default_rng(0)
        ranked, listed = _Ranked.of(scores, self.labels), _Listed.of(scores, self)
        areas, within = np.empty(_DRAWS), np.empty(_DRAWS)
        for draw in range(_DRAWS):
            weight = np.bincount(generator.integers(0, users, users), minlength=users)
            areas[draw] = ranked.auc(weight[self.users].astype(np.float64))
            within[draw] = listed.mean(weight)
        return areas, within


@dataclass(frozen=True)
class _Ranked:
    """Rows in the order of their scores, for AUCs under many weights."""

    order: NDArray[np.int64]
    positive: NDArray[np.bool_]
    starts: NDArray[np.int64]  # of each run of equal scores

    @classmethod
    def of(cls, scores: Floats, labels: NDArray[np.bool_]) -> "_Ranked":
        order = np.argsort(scores, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) != 0])
        return cls(order, labels[order], starts)

    def auc(self, weight: Floats) -> float:
        weight = weight[self.order]
        good = np.add.reduceat(np.where(self.positive, weight, 0.0), self.starts)
        bad = np.add.reduceat(np.where(self.positive, 0.0, weight), self.starts)
        below = np.cumsum(bad) - bad / 2  # ties count half
        return float(good @ below / (good.sum() * bad.sum()))


@dataclass(frozen=True)
class _Listed:
    """The AUC of each request that has both classes."""

    areas: Floats
    rows: NDArray[np.int64]
    users: NDArray[np.int64]

    @classmethod
    def of(cls, scores: Floats, judge: Judge) -> "_Listed":
        order = np.argsort(judge.requests, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(judge.requests[order]) != 0])
        ends = np.r_[starts[1:], order.size]
        kept = []
        for start, end in zip(starts, ends, strict=True):
            rows = order[start:end]
            if 0 < np.count_nonzero(judge.labels[rows]) < rows.size:
                kept.append(
                    (auc(scores[rows], judge.labels[rows]), rows.size, judge.users[rows[0]])
                )
        areas, rows, users = (np.array(column) for column in zip(*kept, strict=True))
        return cls(areas, rows, users)

    def mean(self, user_weight: NDArray[np.int64]) -> float:
        weight = user_weight[self.users] * self.rows
        return float(self.areas @ weight / weight.sum())


@dataclass
class Result:
    """Scores of one row of the race, one array a seed."""

    scores: list[Floats]
    settings: dict[str, float]

    def row(self, judge: Judge, base: "Result") -> dict[str, float]:
        """Means over seeds, and the interval of the difference to `base` by test users."""
        aucs = [judge.auc(values) for values in self.scores]
        seeds = len(self.scores)
        ours, theirs = (
            np.mean([judge.resampled(values) for values in of.scores], axis=0)
            for of in (self, base)
        )
        low, high = np.percentile(ours[0] - theirs[0], [2.5, 97.5])
        within_low, within_high = np.percentile(ours[1] - theirs[1], [2.5, 97.5])
        figures = {
            "auc": np.mean(aucs),
            "auc_within": np.mean([judge.within(values) for values in self.scores]),
            "se": np.std(aucs, ddof=1) / seeds**0.5 if seeds > 1 else 0.0,
            "low": low,
            "high": high,
            "within_low": within_low,
            "within_high": within_high,
        }
        return {name: round(float(value), 4) for name, value in figures.items()}
