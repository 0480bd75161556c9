"""Facts of grouped samples: one pass over the files, one row of counts a file.

A rule of groups gives the mask of the groups that break it. Lists are looked at flat: a faulty
entry is traced back to its group only when there is one.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from uic.models.samples.schema import SAMPLES
from uic.pipelines.log.schemas import BEHAVIORS
from uic.pipelines.quality.checks import FAULTY_ROWS, Check
from uic.pipelines.quality.facts import ALL, record_batches
from uic.pipelines.quality.rows import Mask
from uic.pipelines.settings import QualitySettings

# Groups of 1,000 events of history are about 25 KB each: 50 MB at a time.
BATCH_GROUPS: Final = 2048
_HISTORY: Final = ("history_item_ids", "history_category_ids", "history_behaviors", "history_times")
_IMPRESSIONS: Final = ("item_ids", "category_ids", "event_times", "labels", "history_lengths")


@dataclass
class Groups:
    """A batch of groups; every list column has `values` (flat) and `lengths` (one a group)."""

    batch: pa.RecordBatch
    _lists: dict[str, tuple[NDArray[np.int64], pa.Array]] = field(default_factory=dict)

    def lengths(self, column: str) -> NDArray[np.int64]:
        """(groups,): entries of each list; a null list has none."""
        return self._list(column)[0]

    def values(self, column: str) -> pa.Array:
        """All entries of a list column, one group after the other."""
        return self._list(column)[1]

    def numbers(self, column: str) -> NDArray[Any]:
        """The entries as numbers, nulls as 0."""
        array = self.values(column)
        if array.null_count:
            array = pc.fill_null(array, pa.scalar(0, pa.int64()).cast(array.type))
        numbers: NDArray[Any] = array.to_numpy(zero_copy_only=False)
        return numbers

    def groups_with(self, column: str, entries: Mask) -> Mask | None:
        """(groups,): whether a group has a marked entry; None if no entry is marked."""
        at = np.flatnonzero(entries)
        if not len(at):
            return None
        ends = np.cumsum(self.lengths(column))
        mask = np.zeros(self.batch.num_rows, dtype=bool)
        mask[np.searchsorted(ends, at, side="right")] = True
        return mask

    def _list(self, column: str) -> tuple[NDArray[np.int64], pa.Array]:
        entry = self._lists.get(column)
        if entry is None:
            array = self.batch.column(column)
            lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
            entry = self._lists[column] = lengths.astype(np.int64), array.flatten()
        return entry


@dataclass(frozen=True)
class GroupRule:
    """One rule of groups; as `rows.RowRule`, but over groups."""

    metric: str
    sentence: str
    broken: Callable[[Groups], Mask | None]


def _no_nulls(column: str) -> GroupRule:
    def broken(groups: Groups) -> Mask | None:
        array = groups.batch.column(column)
        mask = None
        if array.null_count:
            mask = pc.is_null(array).to_numpy(zero_copy_only=False)
        if pa.types.is_list(array.type) and groups.values(column).null_count:
            entries = pc.is_null(groups.values(column)).to_numpy(zero_copy_only=False)
            inside = groups.groups_with(column, entries)
            mask = inside if mask is None else mask | inside
        return mask

    return GroupRule(f"{column}.nulls", f"{column} is never null, nor an entry of it", broken)


def _in_range(column: str, high: int | None) -> GroupRule:
    def broken(groups: Groups) -> Mask | None:
        is_list = pa.types.is_list(groups.batch.column(column).type)
        if is_list:
            numbers = groups.numbers(column)
        else:
            numbers = pc.fill_null(groups.batch.column(column), 0).to_numpy(zero_copy_only=False)
        if not len(numbers) or (numbers.min() >= 0 and (high is None or numbers.max() <= high)):
            return None
        faulty: Mask = numbers < 0
        if high is not None:
            faulty |= numbers > high
        return groups.groups_with(column, faulty) if is_list else faulty

    sentence = f"{column} is at least 0" if high is None else f"{column} is 0 to {high}"
    return GroupRule(f"{column}.range", sentence, broken)


def _equal_lengths(columns: Sequence[str]) -> GroupRule:
    def broken(groups: Groups) -> Mask | None:
        first = groups.lengths(columns[0])
        mask = np.zeros(len(first), dtype=bool)
        for column in columns[1:]:
            mask |= groups.lengths(column) != first
        return mask

    return GroupRule(f"{columns[0]}.lengths", f"{', '.join(columns)} are equally long", broken)


def _prefix_too_long(groups: Groups) -> Mask | None:
    prefixes = groups.numbers("history_lengths")
    history = np.repeat(groups.lengths("history_item_ids"), groups.lengths("history_lengths"))
    return groups.groups_with("history_lengths", (prefixes < 0) | (prefixes > history))


def _no_impression(groups: Groups) -> Mask:
    mask: Mask = groups.lengths("item_ids") == 0
    return mask


GROUP_RULES: Final = (
    *(_no_nulls(column.name) for column in SAMPLES),
    *(_in_range(column, None) for column in ("user_id", *_HISTORY[:2], *_IMPRESSIONS[:2])),
    _in_range("history_behaviors", len(BEHAVIORS) - 1),
    _equal_lengths(_HISTORY),
    _equal_lengths(_IMPRESSIONS),
    GroupRule(
        "history_lengths.too_long",
        "history_lengths is 0 to the length of its history",
        _prefix_too_long,
    ),
    GroupRule("item_ids.empty", "a group has at least one impression", _no_impression),
)


def sample_facts(
    root: Path,
    files: Sequence[Mapping[str, Any]],
    quality: QualitySettings,
    advance: Callable[[int], None] = lambda _: None,
) -> pd.DataFrame:
    """The metrics frame of a directory of samples.

    Args:
        root: the directory, published or about to be.
        files: the manifest's lines (`path`, `rows`).
        quality: the thresholds.
        advance: called with the groups of each batch, for progress.

    Returns:
        One row a file, named by its path in `file`, and a last one `all`.
    """
    counts = {}
    labels = clicks = 0
    for entry in files:
        metrics = ("rows.count", *(rule.metric for rule in GROUP_RULES))
        of_file = counts[str(entry["path"])] = dict.fromkeys(metrics, 0)
        for batch in record_batches(root / entry["path"], SAMPLES, BATCH_GROUPS):
            groups = Groups(batch)
            of_file["rows.count"] += batch.num_rows
            for rule in GROUP_RULES:
                mask = rule.broken(groups)
                if mask is not None:
                    of_file[rule.metric] += int(np.count_nonzero(mask))
            labels += len(groups.values("labels"))
            clicks += groups.values("labels").true_count
            advance(batch.num_rows)
        of_file["rows.not_as_manifest"] = abs(of_file["rows.count"] - int(entry["rows"]))
    columns = ["rows.count", *(rule.metric for rule in GROUP_RULES), "rows.not_as_manifest"]
    frame = pd.DataFrame.from_dict(counts, orient="index", columns=columns).astype("float64")
    whole = dict.fromkeys(columns, math.nan) | {"rows.count": frame["rows.count"].sum()}
    whole["rows.impressions"] = labels
    whole["labels.rate"] = clicks / labels if labels >= quality.min_judged_rows else math.nan
    frame = frame.reindex(columns=list(whole))
    frame.loc[ALL] = whole
    return frame.rename_axis("file").reset_index()


def sample_checks(quality: QualitySettings) -> tuple[Check, ...]:
    """The checks of a directory of samples."""
    most = quality.max_faulty_rows
    return (
        Check("rows.impressions", "there is at least one impression", 1, None),
        Check("rows.not_as_manifest", "a file has as many rows as its manifest says", None, 0),
        *(
            Check(rule.metric, rule.sentence, None, most, "groups", settings=FAULTY_ROWS)
            for rule in GROUP_RULES
        ),
        Check(
            "labels.rate",
            "clicked labels over all",
            quality.min_click_rate,
            quality.max_click_rate,
            "ratio",
            settings=("min_click_rate", "max_click_rate"),
        ),
    )
