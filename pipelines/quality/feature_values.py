"""What impressions see of one feature, day after day: coverage, categories, quantiles, drift."""

from dataclasses import dataclass, field
from datetime import date
from typing import Final

import numpy as np
from numpy.typing import NDArray

from uic.models.features.definition import Feature, Kind
from uic.models.features.raw import MISSING, RawValues, is_missing
from uic.models.hashing import stable_hash

# Categories are put into so many bins for the drift, numbers into tenths of the first day.
_BINS: Final = 32
_SEED: Final = 7
_TENTHS: Final = np.linspace(0, 1, 11)[1:-1]
# Numbers that quantiles are taken of, a day.
_SAMPLED: Final = 50_000
QUANTILES: Final = (0.0, 0.01, 0.25, 0.5, 0.75, 0.99, 1.0)


@dataclass(frozen=True)
class DriftOfDay:
    """A day held against all days before it.

    Attributes:
        day: of the impressions.
        psi: population stability index; below 0.1 is calm, above 0.25 another population.
        new_categories: share of impressions whose category no day before had; None for numbers.
    """

    day: date
    psi: float
    new_categories: float | None


@dataclass
class SeenValues:
    """One feature as impressions see it.

    Attributes:
        feature: its definition, without a default.
    """

    feature: Feature
    impressions: int = 0
    with_value: int = 0
    drift: list[DriftOfDay] = field(default_factory=list)
    _known: tuple[NDArray[np.int64], NDArray[np.int64]] = field(
        default_factory=lambda: (np.zeros(0, np.int64), np.zeros(0, np.int64))
    )
    _numbers: list[NDArray[np.float32]] = field(default_factory=list)
    _edges: NDArray[np.float32] | None = None
    _before: NDArray[np.int64] | None = None

    def add_day(self, day: date, values: RawValues) -> None:
        """Take a day's impressions, (n,) or (n, width); days in order."""
        absent = is_missing(self.feature, values)
        self.impressions += len(values)
        self.with_value += int(np.count_nonzero(~absent))
        if not len(values):
            return
        new = self._count(values) if self.feature.categorical else None
        if not self.feature.categorical:
            self._numbers.append(values[~absent][:_SAMPLED].astype(np.float32))
        counts = self._binned(values, absent)
        if counts is None:
            return
        if self._before is not None:
            self.drift.append(DriftOfDay(day, psi(self._before, counts), new))
        self._before = counts if self._before is None else self._before + counts

    @property
    def coverage(self) -> float:
        """Share of impressions with a value."""
        return self.with_value / max(self.impressions, 1)

    @property
    def cardinality(self) -> int | None:
        """Categories; None for numbers."""
        return int(self._known[0].size) if self.feature.categorical else None

    def top(self, most: int = 5) -> list[tuple[int, float]]:
        """The most frequent categories with their shares of impressions."""
        ids, counts = self._known
        order = np.argsort(-counts, kind="stable")[:most]
        shares = counts[order] / max(self.impressions, 1)
        return list(zip(ids[order].tolist(), shares.tolist(), strict=True))

    def quantiles(self) -> list[float] | None:
        """At `QUANTILES`, of numbers; None for others, and without any."""
        if self.feature.type is not Kind.NUMBER or not self.with_value:
            return None
        numbers = np.concatenate(self._numbers)
        return [float(value) for value in np.quantile(numbers, QUANTILES)]

    def _count(self, values: RawValues) -> float:
        """Count categories; the share of impressions with one that is new."""
        given = values.astype(np.int64, copy=False)
        ids, counts = np.unique(given[given != MISSING], return_counts=True)
        known, before = self._known
        fresh = ids[~np.isin(ids, known)]
        is_fresh = np.isin(given, fresh)
        share = float((is_fresh if is_fresh.ndim == 1 else is_fresh.any(axis=1)).mean())
        merged, inverse = np.unique(np.concatenate([known, ids]), return_inverse=True)
        weights = np.concatenate([before, counts])
        self._known = merged, np.bincount(inverse, weights=weights).astype(np.int64)
        return share

    def _binned(self, values: RawValues, absent: NDArray[np.bool_]) -> NDArray[np.int64] | None:
        """Impressions in each bin, those without a value in the last."""
        if self.feature.type is Kind.EMBEDDING:
            return None
        flat, missing = values, absent
        if values.ndim > 1:
            flat = values.ravel()
            missing = flat == MISSING
        if self.feature.categorical:
            numbers = flat.astype(np.int64, copy=False)
            bins = (stable_hash(numbers, seed=_SEED) % np.uint64(_BINS)).astype(np.int64)
            return np.bincount(np.where(missing, _BINS, bins), minlength=_BINS + 1)
        if self._edges is None:
            if missing.all():
                return None
            self._edges = np.unique(np.quantile(flat[~missing], _TENTHS).astype(np.float32))
        last = self._edges.size + 1
        places = np.searchsorted(self._edges, np.where(missing, 0, flat), side="right")
        return np.bincount(np.where(missing, last, places), minlength=last + 1)


def psi(before: NDArray[np.int64], now: NDArray[np.int64]) -> float:
    """Population stability index of two counts of the same bins: sum of (p - q) ln(p / q).

    Half an impression is added to each bin, so that an empty one is no infinity.
    """
    used = (before + now) > 0
    p, q = before[used] + 0.5, now[used] + 0.5
    p, q = p / p.sum(), q / q.sum()
    return float(((q - p) * np.log(q / p)).sum())
