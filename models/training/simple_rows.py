"""Rankings of a few lines that every table of models has: what a model must be above.

`popularity` knows no user; `repeat` knows when a user last took this very item; `counters` weighs
how often she took the item and its category, by logistic regression. None has an embedding.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date
from typing import Final

import numpy as np
from numpy.typing import NDArray

from uic.models.samples.groups import GroupBatch, ranges
from uic.models.samples.reader import BatchPlan, SamplesReader
from uic.models.training.popularity import click_share

Floats = NDArray[np.float64]
_NEVER: Final = 1e9
# Newton's method on four weights is done after a handful of steps.
_STEPS: Final = 12
_RIDGE: Final = 1e-3


@dataclass(frozen=True)
class Counted:
    """What a candidate is to the history before it; (impressions,) each.

    Attributes:
        items: int64, of the candidates.
        labels: bool, clicked.
        users: int64.
        of_item: times that the history has the item.
        of_category: times that it has the category.
        length: of the history.
        since: events since the item was last there, 0 for the newest; `_NEVER` for never.
    """

    items: NDArray[np.int64]
    labels: NDArray[np.bool_]
    users: NDArray[np.int64]
    of_item: Floats
    of_category: Floats
    length: Floats
    since: Floats

    @property
    def features(self) -> Floats:
        """(impressions, 4): logs of the counts, of the length, and 1."""
        counts = np.stack([self.of_item, self.of_category, self.length], axis=1)
        return np.concatenate([np.log1p(counts), np.ones((self.items.size, 1))], axis=1)


def counted(batches: Iterable[GroupBatch]) -> Counted:
    """Count a candidate in its history, without an event at or after the impression."""
    parts = [_counted(batch) for batch in batches]
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return Counted(*columns)


def _counted(batch: GroupBatch) -> tuple[NDArray[np.generic], ...]:
    owner, seen = batch.impression_groups, batch.history_lengths
    events = ranges(batch.history_offsets[owner], seen)
    shown = np.repeat(np.arange(batch.impressions), seen)
    same = batch.history_item_ids[events] == batch.item_ids[shown]
    alike = batch.history_category_ids[events] == batch.category_ids[shown]
    # From the end: 0 is the newest event that the impression may see.
    age = np.repeat(batch.history_offsets[owner] + seen - 1, seen) - events
    since = np.full(batch.impressions, _NEVER)
    np.minimum.at(since, shown[same], age[same].astype(np.float64))
    count = batch.impressions
    return (
        batch.item_ids,
        batch.labels,
        batch.user_ids[owner],
        np.bincount(shown[same], minlength=count).astype(np.float64),
        np.bincount(shown[alike], minlength=count).astype(np.float64),
        seen.astype(np.float64),
        since,
    )


def logistic(features: Floats, labels: NDArray[np.bool_]) -> Floats:
    """Weights of a logistic regression, by Newton's method with a small ridge.

    Args:
        features: (n, width).
        labels: (n,).

    Returns:
        (width,).
    """
    weights = np.zeros(features.shape[1])
    for _ in range(_STEPS):
        said = 1 / (1 + np.exp(-(features @ weights)))
        slope = features.T @ (said - labels) + _RIDGE * weights
        curve = (features * (said * (1 - said))[:, None]).T @ features
        weights -= np.linalg.solve(curve + _RIDGE * np.eye(weights.size), slope)
    return weights


def _popularity(trained: Counted, tested: Counted) -> Floats:
    """An item's share of clicked impressions, smoothed."""
    return click_share(trained.items, trained.labels, tested.items)[1]


def _repeat(trained: Counted, tested: Counted) -> Floats:  # noqa: ARG001 - learns nothing
    return -tested.since


def _counters(trained: Counted, tested: Counted) -> Floats:
    return tested.features @ logistic(trained.features, trained.labels)


SIMPLE: Final[dict[str, Callable[[Counted, Counted], Floats]]] = {
    "popularity": _popularity,
    "repeat": _repeat,
    "counters": _counters,
}


def simple_scores(
    reader: SamplesReader, train: tuple[date, date], test: tuple[date, date]
) -> tuple[dict[str, Floats], Counted]:
    """Scores of every simple ranking, and the impressions of the test that they are of.

    Args:
        reader: of the samples.
        train: first and last day of training.
        test: first and last day of the test.

    Returns:
        (impressions,) each, in the order of the days' batches.
    """
    trained, tested = (
        counted(reader.batches(BatchPlan(first=first, last=last, shuffle=False)))
        for first, last in (train, test)
    )
    return {name: score(trained, tested) for name, score in SIMPLE.items()}, tested
