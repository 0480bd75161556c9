"""AUC, GAUC and LogLoss, exact and vectorised; memory is one float and one bit per impression."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

_TENTHS: Final = 10


@dataclass(frozen=True)
class Metrics:
    """What a model scores on some days.

    Attributes:
        auc: area under the ROC curve; NaN where only one class occurs.
        gauc: AUC of each user, weighted by impressions (DICM, section 7.1); NaN where no user
            has both classes.
        logloss: mean cross-entropy in nats.
        impressions: number of impressions.
        clicks: of them clicked.
        gauc_impressions: impressions of the users that GAUC is a mean of.
        tasks: of each label beside the click, by its name: over the impressions whose label is
            known; `clicks` counts those where it is true.
        deciles: (probability said, share clicked, impressions) of each tenth of the impressions,
            from the least probable to the most: means, means and counts.
    """

    auc: float
    gauc: float
    logloss: float
    impressions: int
    clicks: int
    gauc_impressions: int
    tasks: "dict[str, Metrics]" = field(default_factory=dict)
    deciles: tuple[tuple[float, float, int], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As JSON; NaN, which JSON does not have, becomes null. Empty tasks and deciles go."""
        values = asdict(self)
        del values["tasks"], values["deciles"]
        document: dict[str, Any] = {
            key: None if math.isnan(value) else value for key, value in values.items()
        }
        if self.deciles:
            document["deciles"] = [list(tenth) for tenth in self.deciles]
        if self.tasks:
            document["tasks"] = {name: task.to_json() for name, task in self.tasks.items()}
        return document

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        values: dict[str, Any] = {
            key: math.nan if value is None else value for key, value in document.items()
        }
        values["deciles"] = tuple(tuple(tenth) for tenth in values.pop("deciles", ()))
        tasks = values.pop("tasks", {})
        values["tasks"] = {name: cls.from_json(task) for name, task in tasks.items()}
        return cls(**values)


def measure(
    scores: NDArray[np.float64], labels: NDArray[np.bool_], user_ids: NDArray[np.int64]
) -> Metrics:
    """All metrics of scored impressions.

    Args:
        scores: (n,) logits.
        labels: (n,) clicked.
        user_ids: (n,).
    """
    grouped, weight = gauc(scores, labels, user_ids)
    return Metrics(
        auc=auc(scores, labels),
        gauc=grouped,
        logloss=logloss(scores, labels),
        impressions=int(labels.size),
        clicks=int(np.count_nonzero(labels)),
        gauc_impressions=weight,
        deciles=calibration(scores, labels),
    )


def calibration(
    scores: NDArray[np.float64], labels: NDArray[np.bool_]
) -> tuple[tuple[float, float, int], ...]:
    """What was said and what came true, by tenths of the impressions (`Metrics.deciles`).

    Args:
        scores: (n,) logits.
        labels: (n,) clicked.

    Returns:
        Nothing for fewer than ten impressions, or where a score is NaN.
    """
    if len(scores) < _TENTHS or np.isnan(scores).any():
        return ()
    parts = np.array_split(np.argsort(scores, kind="stable"), _TENTHS)
    said = np.exp(-np.logaddexp(0.0, -scores))
    return tuple((float(said[at].mean()), float(labels[at].mean()), len(at)) for at in parts)


def auc(scores: NDArray[np.float64], labels: NDArray[np.bool_]) -> float:
    """Probability that a clicked impression scores above one that was not; ties count half.

    Args:
        scores: (n,), any monotone function of the probability.
        labels: (n,), clicked.

    Returns:
        NaN if only one class occurs, or a score is NaN.
    """
    if np.isnan(scores).any():
        return math.nan
    areas, _ = _areas(scores, labels, np.zeros(labels.size, dtype=np.int64), 1)
    return float(areas[0])


def gauc(
    scores: NDArray[np.float64], labels: NDArray[np.bool_], user_ids: NDArray[np.int64]
) -> tuple[float, int]:
    """Mean of the users' AUCs, weighted by their impressions (DICM, section 7.1).

    Users with one class only have no AUC and are left out of both sums.

    Returns:
        GAUC (NaN if no user has both classes, or a score is NaN), and the impressions that it is
        a mean over.
    """
    if np.isnan(scores).any():
        return math.nan, 0
    _, users = np.unique(user_ids, return_inverse=True)
    count = int(users.max(initial=-1)) + 1
    areas, sizes = _areas(scores, labels, users, count)
    both = ~np.isnan(areas)
    weight = int(sizes[both].sum())
    if not weight:
        return float("nan"), 0
    return float(np.sum(areas[both] * sizes[both]) / weight), weight


def _areas(
    scores: NDArray[np.float64],
    labels: NDArray[np.bool_],
    users: NDArray[np.int64],
    count: int,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """AUC of each user by the rank sum (Mann-Whitney), and the user's impressions."""
    order = np.lexsort((scores, users))
    users, scores, labels = users[order], scores[order], labels[order]
    sizes = np.bincount(users, minlength=count)
    firsts = np.cumsum(sizes) - sizes
    # A run is a stretch of equal scores of one user; all of it gets the mean of its ranks.
    starts = np.ones(scores.size, dtype=np.bool_)
    starts[1:] = (scores[1:] != scores[:-1]) | (users[1:] != users[:-1])
    runs = np.cumsum(starts) - 1
    run_first = np.flatnonzero(starts)
    run_size = np.diff(np.append(run_first, scores.size))
    ranks = (run_first + (run_size + 1) / 2)[runs] - firsts[users]
    clicks = np.bincount(users, weights=labels, minlength=count)
    rank_sums = np.bincount(users, weights=ranks * labels, minlength=count)
    pairs = clicks * (sizes - clicks)
    wins = rank_sums - clicks * (clicks + 1) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        areas = np.where(pairs > 0, wins / pairs, np.nan)
    return areas, sizes


def auc_interval(metrics: Metrics) -> tuple[float, float]:
    """Bounds of the AUC at 95 %, by its standard error (Hanley and McNeil, Radiology 1982, eq. 2).

    Returns:
        NaN twice where there is no AUC; else within 0 and 1.
    """
    area, positive = metrics.auc, metrics.clicks
    negative = metrics.impressions - positive
    if math.isnan(area) or not positive or not negative:
        return math.nan, math.nan
    both_above = area / (2 - area)
    both_below = 2 * area * area / (1 + area)
    variance = area * (1 - area)
    variance += (positive - 1) * (both_above - area * area)
    variance += (negative - 1) * (both_below - area * area)
    margin = 1.96 * math.sqrt(max(variance, 0.0) / (positive * negative))
    return max(area - margin, 0.0), min(area + margin, 1.0)


def relative_auc_gain(found: float, base: float) -> float:
    """`(AUC - 1/2) / (base AUC - 1/2) - 1` (LMN, section 3.1, after Yan et al., ICML 2014)."""
    return (found - 0.5) / (base - 0.5) - 1 if base != 0.5 else math.nan


def logloss(scores: NDArray[np.float64], labels: NDArray[np.bool_]) -> float:
    """Mean cross-entropy of logits, in nats, without overflow at any logit; NaN of nothing."""
    if not labels.size:
        return float("nan")
    return float(np.mean(np.logaddexp(0.0, scores) - scores * labels))
