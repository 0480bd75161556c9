"""Features of impressions, joined as of the moment when each was shown.

A user's features are stored once a version that held within a group, which is nearly always one
(common features; DICM, section 4.1); those of items and of the context once an impression.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from uic.models.features.dated import DatedTable
from uic.models.features.definition import (
    LOGGED_LABEL,
    FeatureSet,
    FeatureSource,
    NamedFeature,
    Owner,
)
from uic.models.features.event_columns import EventColumn, event_columns
from uic.models.features.feature_file import load_features
from uic.models.features.raw import RawValues, is_missing, missing_values, raw_column, raw_type
from uic.models.published import sha256_of, stamp_of
from uic.models.samples.schema import USER_VERSIONS, label_column, samples_schema
from uic.models.state.definition import StateDefinition
from uic.models.state.named import named_features
from uic.pipelines.samples.labels import LabelCounts, with_labels
from uic.pipelines.samples.order import SortedImpressions, column

NO_FEATURES: Final = "none"
# Items' features by name to the columns of the record's parts.
StateColumns = Callable[[dict[str, pa.Array]], dict[str, pa.Array]]


@dataclass(frozen=True)
class FeatureJoin:
    """What is joined; travels to the workers, which read the tables once a process.

    Attributes:
        features: of impressions: of their users, items and context.
        labels: names of the labels beside the click.
        events: features of the events of histories.
        state: parts of a record, whose features are among `features`; None for none.
    """

    features: FeatureSet = field(default_factory=FeatureSet)
    labels: tuple[str, ...] = ()
    events: FeatureSet = field(default_factory=FeatureSet)
    state: StateDefinition | None = None

    def with_state(self, state: StateDefinition | None) -> Self:
        """With what a record's parts say of each impression."""
        joined = replace(self.features, features=(*self.features, *named_features(state)))
        return replace(self, features=joined, state=state)

    @property
    def event_columns(self) -> tuple[EventColumn, ...]:
        """What histories have beside ids."""
        return event_columns(self.events)

    @classmethod
    def of_file(cls, file: Path | str | None, own: Path) -> Self:
        """The features of a file.

        Args:
            file: "none" joins nothing; None takes `own`.
            own: the workspace's, which need not be there.

        Raises:
            FeatureFileError: the file is none.
        """
        if file is None:
            file = own if own.is_file() else NO_FEATURES
        if file == NO_FEATURES:
            return cls()
        found = load_features(Path(file))
        return cls(found.of_impressions(), events=found.of_events())

    def context_schema(self, schema: pa.Schema) -> pa.Schema:
        """`schema` of impressions with a column for each feature of the context and each label."""
        for named in self.features.of(Owner.CONTEXT):
            schema = schema.append(pa.field(named.key, raw_type(named.feature)))
        for name in self.labels:
            schema = schema.append(pa.field(label_column(name), pa.bool_()))
        return schema

    def with_context(self, table: pa.Table, path: Path) -> pa.Table:
        """A file's impressions with their context's raw values and labels beside them.

        A label that the file does not have is not known of any of its impressions.

        Raises:
            FeatureValueError: a column is of another type.
        """
        for named in self.features.of(Owner.CONTEXT):
            if named.column in table.column_names:
                where = f"{path}: column {named.column}"
                values = raw_column(named.feature, table.column(named.column), where)
            else:
                values = missing_values(named.feature, table.num_rows)
            table = table.append_column(named.key, arrow_values(named, values))
        return with_labels(table, self.labels, path)

    def context_columns(self) -> list[str]:
        """Columns of the impression log that the context's features and labels are read from."""
        columns = [named.column for named in self.features.of(Owner.CONTEXT)]
        return list(dict.fromkeys([*columns, *(LOGGED_LABEL + name for name in self.labels)]))

    def join(
        self, impressions: pa.Table, seen: SortedImpressions, state: StateColumns | None = None
    ) -> "JoinedFeatures":
        """The features of sorted impressions.

        Args:
            impressions: with the columns of `context_schema`.
            seen: the impressions in group order.
            state: gives the columns of the record's parts; told items' features by name.
        """
        shown: dict[str, pa.Array] = {}
        rows = pa.array(seen.rows)
        for named in self.features.of(Owner.CONTEXT):
            taken = impressions.column(named.key).take(rows)
            shown[named.key] = taken.combine_chunks()
        for column_name in map(label_column, self.labels):
            shown[column_name] = impressions.column(column_name).take(rows).combine_chunks()
        items = self._table(Owner.ITEM)
        if items is not None:
            at = items.as_of(column(impressions, "item_id")[seen.rows], seen.times)
            for named in items.features:
                shown[named.key] = arrow_values(named, items.take(named, at))
        if state is not None:
            own = {named.name: shown[named.key] for named in self.features.of(Owner.ITEM)}
            shown |= state(own)
        users = self._table(Owner.USER)
        if users is None:
            return JoinedFeatures(
                self.features, shown, labels=self.labels, columns=self.event_columns
            )
        at = users.as_of(seen.user_ids[seen.users], seen.times)
        # A version begins with each group, and where another row holds than for the one before.
        begins = np.diff(at, prepend=-2) != 0
        begins[seen.group_starts[:-1]] = True
        number = np.cumsum(begins) - 1
        starts = np.concatenate((number[seen.group_starts[:-1]], [int(begins.sum())]))
        versions = {
            named.key: arrow_values(named, users.take(named, at[begins]))
            for named in users.features
        }
        return JoinedFeatures(
            self.features, shown, versions, starts, number, self.labels, self.event_columns
        )

    def sources(self) -> dict[str, Any]:
        """What the tables are, for a manifest: equal sources give equal samples."""
        found = {}
        for owner in (Owner.USER, Owner.ITEM):
            source = self._source(owner)
            if source is not None:
                found[owner.value] = {
                    "file": source.file.name,
                    "sha256": sha256_of(self.features.folder / source.file),
                }
        return found

    def check(self) -> None:
        """Read the tables, so that a wrong one is found before anything runs.

        Raises:
            FeatureTableError: a table or a column is not what it has to be.
        """
        for owner in (Owner.USER, Owner.ITEM):
            self._table(owner)

    def _source(self, owner: Owner) -> FeatureSource | None:
        if not self.features.of(owner):
            return None
        return self.features.sources.user if owner is Owner.USER else self.features.sources.item

    def _table(self, owner: Owner) -> DatedTable | None:
        source = self._source(owner)
        if source is None:
            return None
        path = self.features.folder / source.file
        return _read_once(path, source, self.features.of(owner), stamp_of(path))


@lru_cache(maxsize=4)
def _read_once(
    path: Path,
    source: FeatureSource,
    features: tuple[NamedFeature, ...],
    stamp: tuple[int, ...],  # noqa: ARG001 - another file under one name is read again
) -> DatedTable:
    return DatedTable.read(path, source, features)


@dataclass(frozen=True)
class JoinedFeatures:
    """Features of a bucket's impressions, ready to be gathered into list columns.

    Attributes:
        features: what they are.
        shown: by key, one value an impression.
        versions: by key, one value a version of a user.
        starts: (groups + 1,) the first version of each group.
        numbers: (impressions,) int64, the version that each impression saw.
        labels: names of the labels beside the click, whose columns `shown` has, too.
        columns: what histories have beside ids.
    """

    features: FeatureSet
    shown: Mapping[str, pa.Array] = field(default_factory=dict)
    versions: Mapping[str, pa.Array] = field(default_factory=dict)
    starts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    numbers: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    labels: tuple[str, ...] = ()
    columns: tuple[EventColumn, ...] = ()

    def schema(self) -> pa.Schema:
        """`SAMPLES`, with features, labels and columns of events."""
        return samples_schema(self.features, self.labels, self.columns)

    def gather(
        self, first: int, last: int, shown: slice, shown_offsets: pa.Array
    ) -> dict[str, pa.Array]:
        """Columns of the groups `first` to before `last`.

        Args:
            first: group.
            last: group behind the last.
            shown: their impressions.
            shown_offsets: (groups + 1,) int32, of these impressions.
        """
        columns = {
            key: pa.ListArray.from_arrays(shown_offsets, values[shown])
            for key, values in self.shown.items()
        }
        if self.versions:
            low, high = int(self.starts[first]), int(self.starts[last])
            offsets = pa.array((self.starts[first : last + 1] - low).astype(np.int32))
            for key, values in self.versions.items():
                columns[key] = pa.ListArray.from_arrays(offsets, values[low:high])
            begins = np.repeat(self.starts[first:last], np.diff(shown_offsets.to_numpy()))
            within = (self.numbers[shown] - begins).astype(np.int32)
            columns[USER_VERSIONS] = pa.ListArray.from_arrays(shown_offsets, pa.array(within))
        return columns

    def missing(self) -> dict[str, int]:
        """By key, how many impressions have no value."""
        counts = {}
        for named in self.features:
            of_user = named.key in self.versions
            values = self.versions[named.key] if of_user else self.shown[named.key]
            absent = is_missing(named.feature, raw_array(values))
            counts[named.key] = int(np.count_nonzero(absent[self.numbers] if of_user else absent))
        return counts

    def label_counts(self) -> dict[str, LabelCounts]:
        """By label, of how many impressions it is known and true."""
        return {name: LabelCounts.of(self.shown[label_column(name)]) for name in self.labels}


def arrow_values(named: NamedFeature, values: RawValues) -> pa.Array:
    """Raw values as Arrow has them in samples."""
    flat = pa.array(values.ravel())
    if values.ndim == 1:
        return flat
    return pa.FixedSizeListArray.from_arrays(flat, type=raw_type(named.feature))


def raw_array(values: pa.Array) -> RawValues:
    """The reverse of `arrow_values`."""
    if not pa.types.is_fixed_size_list(values.type):
        return np.asarray(values.to_numpy())
    return np.asarray(values.flatten().to_numpy()).reshape(-1, values.type.list_size)
