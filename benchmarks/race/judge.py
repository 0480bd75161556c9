"""What a row of the race scores: AUC, AUC within a request, and the paired interval."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uic.models.training.metrics import auc, gauc
from uic.models.training.paired import DRAWS, RankedScores, user_draws

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """What a row of the race says of the test.

    Attributes:
        rows: of the test rows.
        lists: of the rows whose order within a list is judged.
    """

    rows: Floats
    lists: Floats


@dataclass(frozen=True)
class Rows:
    """Rows that are judged.

    Attributes:
        labels: (rows,) bool.
        users: (rows,) int64.
        requests: (rows,) int64, their lists.
    """

    labels: NDArray[np.bool_]
    users: NDArray[np.int64]
    requests: NDArray[np.int64]

    @classmethod
    def of(cls, rows: pd.DataFrame) -> "Rows":
        """Of rows of a `RaceLog`."""
        labels = rows.label.to_numpy() > 0
        return cls(labels, rows.user.to_numpy(), rows.request.to_numpy())


@dataclass(frozen=True)
class Judge:
    """Judges scores.

    Attributes:
        rows: the test.
        lists: the rows whose order within a list is judged.
    """

    rows: Rows
    lists: Rows

    def auc(self, scores: Scores) -> float:
        """Over all rows."""
        return auc(scores.rows, self.rows.labels)

    def within(self, scores: Scores) -> float:
        """Mean of the lists' AUCs, weighted by their rows."""
        return gauc(scores.lists, self.lists.labels, self.lists.requests)[0]

    def resampled(self, scores: Scores) -> tuple[Floats, Floats]:
        """AUC, and AUC within lists, of `DRAWS` draws of users; the same draws at each call."""
        known = np.union1d(self.rows.users, self.lists.users)
        ranked, listed = RankedScores.of(scores.rows, self.rows.labels), _Listed.of(scores, self)
        of_row = np.searchsorted(known, self.rows.users)
        of_list = np.searchsorted(known, listed.users)
        areas, within = np.empty(DRAWS), np.empty(DRAWS)
        for draw, weight in enumerate(user_draws(known.size)):
            areas[draw] = ranked.auc(weight[of_row])
            within[draw] = listed.mean(weight[of_list])
        return areas, within


@dataclass(frozen=True)
class _Listed:
    """The AUC of each request that has both classes."""

    areas: Floats
    rows: NDArray[np.int64]
    users: NDArray[np.int64]

    @classmethod
    def of(cls, scores: Scores, judge: Judge) -> "_Listed":
        lists = judge.lists
        order = np.argsort(lists.requests, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(lists.requests[order]) != 0])
        kept = []
        for rows in np.split(order, starts[1:]):
            if 0 < np.count_nonzero(lists.labels[rows]) < rows.size:
                area = auc(scores.lists[rows], lists.labels[rows])
                kept.append((area, rows.size, lists.users[rows[0]]))
        areas, sizes, users = (np.array(column) for column in zip(*kept, strict=True))
        return cls(areas, sizes, users)

    def mean(self, weight: Floats) -> float:
        """The lists' mean, by their rows and by (lists,) weights of their users."""
        return float(self.areas @ (weight * self.rows) / (weight @ self.rows))


@dataclass
class Result:
    """Scores of one row of the race, one array a seed."""

    scores: list[Scores]
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
