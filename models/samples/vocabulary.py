"""From raw ids to rows of an embedding table; an id never seen in training gets a spare row.

Spare rows are hashed, so that an unseen item has the same row in training, stream and request.
They are trained too: ids that occur fewer than `min_count` times share them, so that a spare row
is what a rare item looks like, and not noise.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from uic.models.errors import BadInputError
from uic.models.features.definition import FeatureSet
from uic.models.features.fitted import FeatureFitter, FittedFeatures
from uic.models.hashing import stable_hash
from uic.models.samples.groups import GroupBatch

VOCABULARY: Final = pa.schema(
    [
        pa.field("table", pa.string(), nullable=False),  # item, category, or a feature
        pa.field("id", pa.int64(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
    ]
)
# Independent of the hash that places users in partitions.
_SPARE_SEED: Final = 1
# A direct table of at most this many entries an id costs less than a binary search.
_DENSE_SPAN_PER_ID: Final = 16


class VocabularyError(BadInputError):
    """A vocabulary file is not one, or not of the size that its bundle states."""


class IdTable:
    """One table's ids.

    Args:
        ids: (ids,) int64, ascending, distinct; the row of an id is its rank.
        spare_rows: rows after the known ones, shared by all other ids; at least 1.
    """

    def __init__(self, ids: NDArray[np.int64], spare_rows: int) -> None:
        self.ids = np.asarray(ids, dtype=np.int64)
        self.spare_rows = spare_rows
        self._low = int(self.ids[0]) if self.ids.size else 0
        span = int(self.ids[-1]) - self._low + 1 if self.ids.size else 0
        self._dense: NDArray[np.int64] | None = None
        if 0 < span <= max(_DENSE_SPAN_PER_ID * self.ids.size, 65_536):
            self._dense = np.full(span, -1, dtype=np.int64)
            self._dense[self.ids - self._low] = np.arange(self.ids.size)

    @property
    def rows(self) -> int:
        """Rows of the embedding table: known and spare."""
        return self.ids.size + self.spare_rows

    def lookup(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The row of each id: (n,) int64 to (n,) int64."""
        rows = self._known_rows(ids)
        unseen = np.flatnonzero(rows < 0)
        if unseen.size:
            spare = stable_hash(ids[unseen], seed=_SPARE_SEED) % np.uint64(self.spare_rows)
            rows[unseen] = self.ids.size + spare.astype(np.int64)
        return rows

    def _known_rows(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rank of each id, or -1."""
        if not self.ids.size:
            return np.full(ids.size, -1, dtype=np.int64)
        if self._dense is not None:
            # The bounds are compared before the subtraction, which could overflow.
            inside = (ids >= self._low) & (ids <= self.ids[-1])
            return np.where(inside, self._dense[np.where(inside, ids - self._low, 0)], -1)
        places = np.minimum(np.searchsorted(self.ids, ids), self.ids.size - 1)
        return np.where(self.ids[places] == ids, places, -1)


@dataclass(frozen=True)
class Vocabulary:
    """The ids of the item and category tables, and what training days say of features."""

    item: IdTable
    category: IdTable
    features: FittedFeatures = field(default_factory=FittedFeatures)
    events: FittedFeatures = field(default_factory=FittedFeatures)  # of the model's fold

    def save(self, path: Path) -> None:
        """Write `vocabulary.parquet` (schema `VOCABULARY`)."""
        tables = {"item": self.item.ids, "category": self.category.ids}
        tables |= self.features.tables() | self.events.tables()
        parts = [
            pa.table(
                {
                    "table": pa.repeat(pa.scalar(name), ids.size),
                    "id": ids,
                    "row": np.arange(ids.size),
                },
                schema=VOCABULARY,
            )
            for name, ids in tables.items()
        ]
        pq.write_table(pa.concat_tables(parts), path, compression="zstd")


def load_vocabulary(
    path: Path,
    spare_item_rows: int,
    spare_category_rows: int,
    features: list[dict[str, Any]] | None = None,
    events: list[dict[str, Any]] | None = None,
) -> Vocabulary:
    """Read `vocabulary.parquet`.

    Args:
        path: of the file.
        spare_item_rows: after the known ones.
        spare_category_rows: likewise.
        features: what a bundle's config says of them.
        events: what it says of features of events.

    Raises:
        VocabularyError: not Parquet, another schema, rows that are not the ranks of the ids, or
            not the categories of the features.
    """
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        msg = f"{path}: not readable as Parquet ({error}); copy the bundle again"
        raise VocabularyError(msg) from error
    if not table.schema.equals(VOCABULARY):
        msg = f"{path}: columns are {table.schema.names}, expected {VOCABULARY.names} as written"
        raise VocabularyError(msg)
    ids = {}
    for name in {"item", "category", *pc.unique(table.column("table")).to_pylist()}:
        rows = table.filter(pc.equal(table.column("table"), name))
        ids[name] = rows.column("id").to_numpy()
        ranks = np.array_equal(rows.column("row").to_numpy(), np.arange(rows.num_rows))
        # Not by a difference, which overflows: texts are hashes over all of int64.
        if not ranks or np.any(ids[name][1:] <= ids[name][:-1]):
            msg = f"{path}: rows of the {name} table are not the ranks of its ids"
            raise VocabularyError(msg)
    vocabulary = Vocabulary(
        IdTable(ids["item"], spare_item_rows), IdTable(ids["category"], spare_category_rows)
    )
    try:
        return replace(
            vocabulary,
            features=FittedFeatures.from_json(features or [], ids),
            events=FittedFeatures.from_json(events or [], ids),
        )
    except (KeyError, TypeError, ValueError, BadInputError) as error:
        msg = f"{path}: not the features of config.json ({error}); copy the bundle again"
        raise VocabularyError(msg) from error


def build_vocabulary(
    batches: Iterable[GroupBatch],
    min_count: int,
    spare_item_rows: int,
    spare_category_rows: int,
    features: FeatureSet | None = None,
    *,
    events: FeatureSet | None = None,
) -> Vocabulary:
    """Ids of histories and impressions that occur at least `min_count` times, and features.

    Args:
        batches: of the days to train on, and no others.
        min_count: rarer ids share the spare rows.
        spare_item_rows: at least 1.
        spare_category_rows: at least 1.
        features: to fit; the batches have them.
        events: features of histories' events to fit, as the fold takes them.
    """
    fitter = FeatureFitter(features or FeatureSet())
    of_events = FeatureFitter(events or FeatureSet())
    item_ids, item_counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
    category_ids, category_counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for batch in batches:
        fitter.add(batch.features)
        of_events.add({f"event.{name}": own for name, own in batch.history_columns.items()})
        item_ids, item_counts = _merge(
            item_ids, item_counts, batch.history_item_ids, batch.item_ids
        )
        category_ids, category_counts = _merge(
            category_ids, category_counts, batch.history_category_ids, batch.category_ids
        )
    return Vocabulary(
        IdTable(item_ids[item_counts >= min_count], spare_item_rows),
        IdTable(category_ids[category_counts >= min_count], spare_category_rows),
        fitter.fitted(),
        of_events.fitted(),
    )


def _merge(
    ids: NDArray[np.int64], counts: NDArray[np.int64], *parts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Add the ids of `parts` to sorted ids and their counts."""
    values = np.concatenate(parts)
    low = int(values.min(initial=0))
    span = int(values.max(initial=0)) - low + 1
    if span <= max(_DENSE_SPAN_PER_ID * values.size, 65_536):
        occurrences = np.bincount(values - low)  # ten times as fast as sorting
        new = np.flatnonzero(occurrences)
        new_counts = occurrences[new]
        new = new + low
    else:
        new, new_counts = np.unique(values, return_counts=True)
    merged, inverse = np.unique(np.concatenate([ids, new]), return_inverse=True)
    total = np.bincount(inverse, weights=np.concatenate([counts, new_counts]))
    return merged, total.astype(np.int64)
