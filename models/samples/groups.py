"""A batch of groups as flat arrays: the form in which samples leave Parquet and enter a model.

Nothing is padded. The history of group `g` is `history_*[history_offsets[g]:history_offsets[g+1]]`
and its impressions are `item_ids[impression_offsets[g]:impression_offsets[g+1]]`; impression `i`
may see the first `history_lengths[i]` events of its group's history.
"""

from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from uic.models.features.event_columns import ColumnValues
from uic.models.features.fitted import RawFeatures

# Columns of a batch by their length: one entry an event, one entry an impression.
HISTORY: Final = (
    "history_item_ids",
    "history_category_ids",
    "history_behaviors",
    "history_times_ms",
)
IMPRESSIONS: Final = ("item_ids", "category_ids", "event_times_ms", "labels", "history_lengths")
# Parts that are no columns of one length.
_APART: Final = frozenset(
    {"history_offsets", "impression_offsets", "files"}
    | {"features", "extra_labels", "history_columns"}
)
# Of a label beside the click: whether it came true is not known, and counts for neither.
NOT_KNOWN: Final = -1


@dataclass(frozen=True)
class GroupBatch:
    """Groups with their histories and impressions; numpy, ragged.

    Attributes:
        user_ids: (groups,) int64.
        days: (groups,) datetime64[D], the day of the impressions.
        history_offsets: (groups + 1,) int64.
        history_item_ids: (events,) int64, oldest first within a group.
        history_category_ids: (events,) int64.
        history_behaviors: (events,) int8.
        history_times_ms: (events,) int64.
        impression_offsets: (groups + 1,) int64.
        item_ids: (impressions,) int64.
        category_ids: (impressions,) int64.
        event_times_ms: (impressions,) int64.
        labels: (impressions,) bool, clicked.
        history_lengths: (impressions,) int64, events that an impression may see.
        files: files that the groups came from, for messages.
        features: raw values by key, one an impression (`uic.models.features.raw`).
        history_columns: (events,) each: columns of events by name
            (`uic.models.features.event_columns`).
        extra_labels: labels beside the click by name, each (impressions,) int8: 1, 0, or
            `NOT_KNOWN`.
    """

    user_ids: NDArray[np.int64]
    days: NDArray[np.datetime64]
    history_offsets: NDArray[np.int64]
    history_item_ids: NDArray[np.int64]
    history_category_ids: NDArray[np.int64]
    history_behaviors: NDArray[np.int8]
    history_times_ms: NDArray[np.int64]
    impression_offsets: NDArray[np.int64]
    item_ids: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    event_times_ms: NDArray[np.int64]
    labels: NDArray[np.bool_]
    history_lengths: NDArray[np.int64]
    files: tuple[str, ...] = ()
    features: RawFeatures = field(default_factory=dict)
    extra_labels: dict[str, NDArray[np.int8]] = field(default_factory=dict)
    history_columns: dict[str, ColumnValues] = field(default_factory=dict)

    @property
    def groups(self) -> int:
        """Number of groups."""
        return self.user_ids.size

    @property
    def impressions(self) -> int:
        """Number of impressions."""
        return self.item_ids.size

    @property
    def events(self) -> int:
        """Number of history events."""
        return self.history_item_ids.size

    @property
    def impression_groups(self) -> NDArray[np.int64]:
        """(impressions,) int64: the group of each impression."""
        return np.repeat(np.arange(self.groups), np.diff(self.impression_offsets))

    def select(self, groups: NDArray[np.int64]) -> "GroupBatch":
        """These groups, in this order, each history cut after the last event that is seen.

        Args:
            groups: (selected,) int64 indices.
        """
        impressions, impression_offsets = gather_ranges(self.impression_offsets, groups)
        seen = longest(self.history_lengths[impressions], impression_offsets)
        events = ranges(self.history_offsets[groups], seen)
        return GroupBatch(
            user_ids=self.user_ids[groups],
            days=self.days[groups],
            history_offsets=offsets_of(seen),
            **{name: getattr(self, name)[events] for name in HISTORY},
            impression_offsets=impression_offsets,
            **{name: getattr(self, name)[impressions] for name in IMPRESSIONS},
            files=self.files,
            features={key: values[impressions] for key, values in self.features.items()},
            extra_labels={name: own[impressions] for name, own in self.extra_labels.items()},
            history_columns={name: own[events] for name, own in self.history_columns.items()},
        )

    def ungrouped(self) -> "GroupBatch":
        """One group per impression, each with its own copy of the history that it may see.

        This is the form that grouping saves (MIMN 5.1 counts one row per impression); it is here
        for the benchmark and for the test that both give the same loss and gradients.
        """
        owner = self.impression_groups
        events = ranges(self.history_offsets[owner], self.history_lengths)
        return replace(
            self,
            user_ids=self.user_ids[owner],
            days=self.days[owner],
            history_offsets=offsets_of(self.history_lengths),
            **{name: getattr(self, name)[events] for name in HISTORY},
            impression_offsets=np.arange(self.impressions + 1),
            history_columns={name: own[events] for name, own in self.history_columns.items()},
        )


def concatenate(batches: list[GroupBatch]) -> GroupBatch:
    """The groups of several batches, in order."""
    if len(batches) == 1:
        return batches[0]
    columns: dict[str, Any] = {
        column.name: np.concatenate([getattr(batch, column.name) for batch in batches])
        for column in fields(GroupBatch)
        if column.name not in _APART
    }
    offsets: dict[str, Any] = {
        name: offsets_of(np.concatenate([np.diff(getattr(batch, name)) for batch in batches]))
        for name in ("history_offsets", "impression_offsets")
    }
    files = tuple(dict.fromkeys(file for batch in batches for file in batch.files))
    features = {
        key: np.concatenate([batch.features[key] for batch in batches])
        for key in batches[0].features
    }
    labels = {
        name: np.concatenate([batch.extra_labels[name] for batch in batches])
        for name in batches[0].extra_labels
    }
    further = {
        name: np.concatenate([batch.history_columns[name] for batch in batches])
        for name in batches[0].history_columns
    }
    return GroupBatch(
        **columns,
        **offsets,
        files=files,
        features=features,
        extra_labels=labels,
        history_columns=further,
    )


def offsets_of(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) lengths to (n + 1,) offsets."""
    offsets = np.zeros(lengths.size + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def ranges(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The concatenation of `arange(start, start + length)`, without a loop: (sum(lengths),)."""
    offsets = offsets_of(lengths)
    elements: NDArray[np.int64] = np.repeat(starts - offsets[:-1], lengths)
    elements += np.arange(offsets[-1])
    return elements


def gather_ranges(
    offsets: NDArray[np.int64], groups: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Element indices and new offsets of some rows of a ragged array."""
    lengths = offsets[groups + 1] - offsets[groups]
    return ranges(offsets[groups], lengths), offsets_of(lengths)


def longest(lengths: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """The largest of each ragged row, 0 for an empty row: (rows,)."""
    result = np.zeros(offsets.size - 1, dtype=np.int64)
    filled = np.flatnonzero(np.diff(offsets))
    if filled.size:
        result[filled] = np.maximum.reduceat(lengths, offsets[filled])
    return result
