"""What training days say of features: rows of categories, edges of buckets, scales of numbers.

Fitted once before the first step, from the training days alone, and kept in the bundle: a value
becomes the same numbers in training, evaluation and request.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from uic.models.features.definition import Feature, FeatureSet, Kind, NamedFeature, Scale
from uic.models.features.raw import MISSING, RawValues, category_of, is_missing, missing_values
from uic.models.hashing import stable_hash

# Independent of the hash of unseen items.
_SEED: Final = 3
_SPARE_ROWS: Final = 4
_LEAST_SPREAD: Final = 1e-6
# Of a feature's numbers between so many and twice as many are kept, spread over all training days;
# quantiles and scales are of these.
SAMPLED_VALUES: Final = 200_000

# Raw values of impressions by `NamedFeature.key`: (impressions,) or (impressions, width).
RawFeatures = Mapping[str, RawValues]


@dataclass(frozen=True)
class FittedFeature:
    """One feature, ready to be embedded.

    Attributes:
        named: its definition.
        categories: (n,) int64, ascending: those with rows of their own; empty where hashed.
        edges: (buckets - 1,) float32, ascending; empty without buckets.
        mean: of all scaled numbers.
        spread: their standard deviation.
    """

    named: NamedFeature
    categories: NDArray[np.int64]
    edges: NDArray[np.float32]
    mean: float = 0.0
    spread: float = 1.0

    @property
    def feature(self) -> Feature:
        """The definition."""
        return self.named.feature

    @property
    def rows(self) -> int:
        """Rows of its table; 0 for a feature of numbers. The first is of a missing value."""
        feature = self.feature
        if feature.scale is Scale.BUCKETS:
            return 1 + self.edges.size + 1
        if not feature.categorical:
            return 0
        if feature.rows is not None:
            return 1 + feature.rows
        return 1 + self.categories.size + _SPARE_ROWS

    @property
    def numbers(self) -> int:
        """Numbers a value, where it is not looked up; one more says whether it is missing."""
        if self.rows:
            return 0
        return 2 if self.feature.type is Kind.NUMBER else 1 + self.feature.width

    def encode(self, values: RawValues) -> NDArray[np.int64] | NDArray[np.float32]:
        """Rows of the table, (n,) or (n, most) int64, or numbers, (n, numbers) float32."""
        feature = self.feature
        if feature.categorical:
            return self._rows_of(values.astype(np.int64, copy=False))
        absent = is_missing(feature, values)
        if feature.scale is Scale.BUCKETS:
            bucket = np.searchsorted(self.edges, values, side="right") + 1
            return np.asarray(np.where(absent, 0, bucket), np.int64)
        numbers = values[:, None] if values.ndim == 1 else values
        scaled = (scaled_numbers(feature, numbers) - self.mean) / self.spread
        known = np.where(absent[:, None], 0.0, scaled)
        return np.asarray(np.concatenate([known, absent[:, None]], axis=1), np.float32)

    def unseen(self, values: RawValues) -> NDArray[np.bool_]:
        """(n,) bool: whether a value has a category without a row of its own.

        The training days had it too rarely or never, or `values` does not name it. A missing value
        and the default are none of these; of hashed categories nothing tells.
        """
        feature = self.feature
        if not feature.categorical or feature.rows is not None:
            return np.zeros(len(values), np.bool_)
        plain = (values == MISSING) | (values == missing_values(feature, 1).flat[0])
        if self.categories.size:
            places = np.searchsorted(self.categories, values)
            plain |= self.categories[np.minimum(places, self.categories.size - 1)] == values
        return np.asarray((~plain).reshape(len(values), -1).any(axis=1))

    def _rows_of(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        flat = values.ravel()
        if self.feature.rows is not None:
            rows = 1 + _hashed(flat, self.feature.rows)
        elif self.categories.size:
            places = np.searchsorted(self.categories, flat)
            places = np.minimum(places, self.categories.size - 1)
            rows = 1 + places
            others = np.flatnonzero(self.categories[places] != flat)
            if others.size:
                rows[others] = 1 + self.categories.size + _hashed(flat[others], _SPARE_ROWS)
        else:
            rows = 1 + _hashed(flat, _SPARE_ROWS)
        rows[flat == MISSING] = 0
        return rows.reshape(values.shape)

    def to_json(self) -> dict[str, Any]:
        """For a bundle; categories are in its vocabulary."""
        return {
            "edges": [float(edge) for edge in self.edges],
            "mean": self.mean,
            "spread": self.spread,
            "categories": int(self.categories.size),
        }


def _hashed(categories: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
    """One of so many rows for each category."""
    return (stable_hash(categories, seed=_SEED) % np.uint64(rows)).astype(np.int64)


def scaled_numbers(feature: Feature, numbers: NDArray[Any]) -> NDArray[np.float32]:
    """Numbers on the feature's scale."""
    if feature.scale is Scale.LOG:
        return np.asarray(np.sign(numbers) * np.log1p(np.abs(numbers)), np.float32)
    return np.asarray(numbers, np.float32)


@dataclass(frozen=True)
class NumberBlock:
    """Features of numbers that are encoded at once: to the bit what each is by itself.

    Attributes:
        logs: (features,) bool: on a logarithmic scale.
        means: (features,) float32.
        spreads: (features,) float32.
    """

    logs: NDArray[np.bool_]
    means: NDArray[np.float32]
    spreads: NDArray[np.float32]

    @classmethod
    def of(cls, features: Sequence[FittedFeature]) -> Self | None:
        """The block of features; None if one is no number, or is looked up."""
        if any(one.rows or one.feature.type is not Kind.NUMBER for one in features):
            return None
        return cls(
            np.array([one.feature.scale is Scale.LOG for one in features], np.bool_),
            np.array([one.mean for one in features], np.float32),
            np.array([one.spread for one in features], np.float32),
        )

    def encode(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, features) raw to (n, 2 x features): of each the number, and whether it is missing."""
        absent = np.isnan(values)
        logs = np.sign(values) * np.log1p(np.abs(values))
        scaled = (np.where(self.logs, logs, values) - self.means) / self.spreads
        encoded = np.empty((*values.shape, 2), np.float32)
        encoded[:, :, 0] = np.where(absent, np.float32(0), scaled)
        encoded[:, :, 1] = absent
        return encoded.reshape(len(values), 2 * len(self.means))


@dataclass(frozen=True)
class FittedFeatures:
    """All features of a bundle, in order."""

    fitted: tuple[FittedFeature, ...] = ()

    @property
    def definitions(self) -> FeatureSet:
        """What they are."""
        return FeatureSet(tuple(one.named for one in self.fitted))

    def tables(self) -> dict[str, NDArray[np.int64]]:
        """Categories with rows of their own by key, for the vocabulary file."""
        return {one.named.key: one.categories for one in self.fitted if one.categories.size}

    def to_json(self) -> list[dict[str, Any]]:
        """For a bundle's config."""
        definitions = self.definitions.to_json()
        return [
            {"definition": definition, **one.to_json()}
            for definition, one in zip(definitions, self.fitted, strict=True)
        ]

    @classmethod
    def from_json(
        cls, entries: list[dict[str, Any]], tables: Mapping[str, NDArray[np.int64]]
    ) -> Self:
        """The reverse of `to_json` and `tables`.

        Raises:
            FeatureFileError: a definition is not one.
            ValueError: categories are not as many as were written.
        """
        definitions = FeatureSet.from_json([entry["definition"] for entry in entries])
        fitted = []
        for named, entry in zip(definitions, entries, strict=True):
            categories = tables.get(named.key, np.zeros(0, np.int64))
            if categories.size != entry["categories"]:
                msg = f"{named.key}: {categories.size} categories, expected {entry['categories']}"
                raise ValueError(msg)
            edges = np.array(entry["edges"], np.float32)
            fitted.append(
                FittedFeature(named, categories, edges, float(entry["mean"]), entry["spread"])
            )
        return cls(tuple(fitted))


@dataclass
class _SpreadSample:
    """Every so-many-th value of a sequence of unknown length: the same however it is cut.

    Attributes:
        values: (kept,) or (kept, width).
    """

    values: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    _seen: int = 0
    _stride: int = 1

    def add(self, values: NDArray[np.float32]) -> None:
        """Take the next values."""
        kept = values[-self._seen % self._stride :: self._stride]
        self.values = np.concatenate([self.values, kept]) if self.values.size else kept
        self._seen += len(values)
        while len(self.values) > 2 * SAMPLED_VALUES:
            self.values = self.values[::2]
            self._stride *= 2


@dataclass
class FeatureFitter:
    """Looks at the training days, batch after batch.

    Attributes:
        definitions: features to fit.
    """

    definitions: FeatureSet
    _counts: dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]] = field(default_factory=dict)
    _numbers: dict[str, "_SpreadSample"] = field(default_factory=dict)

    def add(self, features: RawFeatures) -> None:
        """Count the categories of some impressions, and keep some of their numbers."""
        for named in self.definitions:
            values = features[named.key]
            if named.feature.categorical:
                if named.feature.rows is None and named.feature.values is None:
                    self._count(named.key, values.ravel().astype(np.int64, copy=False))
            else:
                there = values[~is_missing(named.feature, values)]
                kept = self._numbers.setdefault(named.key, _SpreadSample())
                kept.add(np.asarray(there, np.float32))

    def _count(self, key: str, values: NDArray[np.int64]) -> None:
        new, counts = np.unique(values[values != MISSING], return_counts=True)
        known = self._counts.get(key)
        if known is not None:
            merged, inverse = np.unique(np.concatenate([known[0], new]), return_inverse=True)
            weights = np.concatenate([known[1], counts])
            new, counts = merged, np.bincount(inverse, weights=weights).astype(np.int64)
        self._counts[key] = (new, counts.astype(np.int64))

    def fitted(self) -> FittedFeatures:
        """What was seen."""
        return FittedFeatures(tuple(self._fit(named) for named in self.definitions))

    def _fit(self, named: NamedFeature) -> FittedFeature:
        feature = named.feature
        no_ids, no_edges = np.zeros(0, np.int64), np.zeros(0, np.float32)
        if feature.values is not None:
            declared = np.array([category_of(value) for value in feature.values], np.int64)
            return FittedFeature(named, np.unique(declared), no_edges)
        if feature.categorical:
            ids, counts = self._counts.get(named.key, (no_ids, no_ids))
            ids, counts = ids[counts >= feature.min_count], counts[counts >= feature.min_count]
            if ids.size > feature.max_categories:
                # The most frequent; of equally frequent ones those of the smaller number.
                order = np.argsort(-counts, kind="stable")[: feature.max_categories]
                ids = np.sort(ids[order])
            return FittedFeature(named, ids, no_edges)
        sample = self._numbers.get(named.key)
        numbers = sample.values if sample is not None and sample.values.size else no_edges
        if feature.scale is Scale.BUCKETS:
            inner = np.linspace(0, 1, feature.buckets + 1)[1:-1]
            edges = np.quantile(numbers, inner) if numbers.size else no_edges
            return FittedFeature(named, no_ids, np.unique(edges.astype(np.float32)))
        if not numbers.size:
            return FittedFeature(named, no_ids, no_edges)
        scaled = scaled_numbers(feature, numbers)
        mean, spread = float(scaled.mean()), float(scaled.std())
        # A constant's deviation is rounding: divided by it, a first other value would be huge.
        spread = spread if spread > _LEAST_SPREAD * max(abs(mean), 1.0) else 1.0
        return FittedFeature(named, no_ids, no_edges, mean, spread)


def fit_features(definitions: FeatureSet, batches: Iterable[RawFeatures]) -> FittedFeatures:
    """Fit features to raw values of the training days."""
    fitter = FeatureFitter(definitions)
    for features in batches:
        fitter.add(features)
    return fitter.fitted()
