"""Samples to batches: groups straight from Parquet's list columns to ragged arrays.

A list column is two Arrow buffers, offsets and values, which numpy views without a copy; a batch
is gathered from them by index. No Python runs per row. Order is a pure function of (files, seed,
epoch), so a run that was killed resumes at batch *n* of an epoch and sees what it would have seen:

1. Row groups are shuffled by (seed, epoch), and dealt out to workers.
2. Row groups fill a buffer of `buffer_groups` groups; those outside the days are left out.
3. Within the buffer groups are sorted by history length (ties at random), cut into batches, and
   the batches shuffled: a recurrent fold then runs few steps for few long histories.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from uic.models.errors import BadInputError
from uic.models.features.definition import FeatureSet
from uic.models.features.event_columns import event_columns
from uic.models.features.raw import raw_type
from uic.models.published import MANIFEST_NAME, read_manifest, sha256_of
from uic.models.samples.groups import GroupBatch, concatenate, longest, offsets_of
from uic.models.samples.ragged import parallel, ragged, shown_features, shown_labels
from uic.models.samples.schema import (
    HISTORY_EVENT,
    SAMPLES_KIND,
    SAMPLES_SCHEMA_VERSION,
    samples_schema,
)

_HISTORY: Final = (
    "history_item_ids",
    "history_category_ids",
    "history_behaviors",
    "history_times",
)
_IMPRESSIONS: Final = ("item_ids", "category_ids", "event_times", "labels", "history_lengths")


@dataclass(frozen=True)
class BatchPlan:
    """How groups become batches.

    Attributes:
        batch_impressions: a batch closes at this many impressions; count.
        batch_events: or at this many history events, whichever comes first; count.
        seed: of the shuffle.
        shuffle: False keeps the order of files (evaluation); batches then still are bucketed.
        first: first day of impressions, inclusive; None for all.
        last: last day, inclusive.
        worker: which share of the row groups this process reads.
        workers: number of shares.
        buffer_groups: groups held in memory to shuffle and to bucket; count.
    """

    batch_impressions: int = 1024
    batch_events: int = 200_000
    seed: int = 0
    shuffle: bool = True
    first: date | None = None
    last: date | None = None
    worker: int = 0
    workers: int = 1
    buffer_groups: int = 16_384

    def includes(self, days: NDArray[np.datetime64]) -> NDArray[np.bool_]:
        """(rows,) bool: the day is within first and last."""
        included = np.ones(days.size, dtype=np.bool_)
        if self.first is not None:
            included &= days >= np.datetime64(self.first)
        if self.last is not None:
            included &= days <= np.datetime64(self.last)
        return included


@dataclass(frozen=True)
class Totals:
    """What a range of days holds."""

    groups: int
    impressions: int
    clicks: int
    events: int


class SamplesReader:
    """Reads a published samples directory (`uic.models.samples.schema`).

    Raises:
        ManifestError: no manifest, another kind, or another schema version.
        BadInputError: a file is not Parquet, or a column is missing or of another type.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.manifest = read_manifest(root, SAMPLES_KIND, SAMPLES_SCHEMA_VERSION)
        self.features = FeatureSet.from_json(self.manifest.get("features", []))
        # Parts of a record whose features are among them, as `state.yaml` declared them.
        self.state_document = self.manifest.get("state")
        # Names of the labels beside the click.
        self.labels: tuple[str, ...] = tuple(self.manifest.get("labels", ()))
        self.event_features = FeatureSet.from_json(self.manifest.get("event_features", []))
        self._columns = event_columns(self.event_features)
        self._schema = samples_schema(self.features, self.labels, self._columns)
        # Other files (a report, a schema) may lie beside the data.
        self.files = tuple(
            root / entry["path"]
            for entry in self.manifest["files"]
            if entry["path"].endswith(".parquet")
        )
        self._row_groups: list[tuple[Path, int]] = []
        for path in self.files:
            count = _checked_row_groups(path, self._schema)
            self._row_groups += [(path, index) for index in range(count)]

    def require(self, features: FeatureSet, whose: str) -> None:
        """Refuse samples that do not have some features as they are defined elsewhere.

        Raises:
            BadInputError: names the first that is missing, or has other values.
        """
        own = {named.key: named.feature for named in (*self.features, *self.event_features)}
        for named in features:
            found = own.get(named.key)
            wanted = raw_type(named.feature)
            if found is None or raw_type(found) != wanted:
                has = "is not there" if found is None else f"is {found.type.value}"
                msg = (
                    f"{self.root}: {named.key} {has}, {whose} wants {named.feature.type.value} "
                    f"({wanted}); make the samples with its features.yaml"
                )
                raise BadInputError(msg)

    @property
    def name(self) -> str:
        """The directory's name."""
        return self.root.name

    def manifest_sha256(self) -> str:
        """Sum of the manifest: with it a bundle names the data that it was trained on."""
        return sha256_of(self.root / MANIFEST_NAME)

    def days(self) -> list[date]:
        """The days that have groups, ascending."""
        parts = [np.unique(_day_numbers(_read_columns(path, ["dt"]))) for path in self.files]
        days = np.unique(np.concatenate(parts)) if parts else np.zeros(0, "datetime64[D]")
        return list(days.astype("datetime64[D]").tolist())

    def totals(self, plan: BatchPlan) -> Totals:
        """Count what `plan`'s days hold, over all workers; reads three columns."""
        groups = impressions = clicks = events = 0
        for path in self.files:
            table = _read_columns(path, ["dt", "labels", "history_lengths"])
            included = plan.includes(_day_numbers(table))
            offsets, labels = ragged(table, "labels")
            counts = np.diff(offsets)
            seen = longest(ragged(table, "history_lengths")[1].astype(np.int64), offsets)
            groups += int(np.count_nonzero(included & (counts > 0)))
            impressions += int(counts[included].sum())
            clicks += int(np.count_nonzero(labels & np.repeat(included, counts)))
            events += int(seen[included].sum())
        return Totals(groups, impressions, clicks, events)

    def shown_items(self, plan: BatchPlan) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Items and labels of the impressions of `plan`'s days, both (impressions,)."""
        items, labels = [np.zeros(0, np.int64)], [np.zeros(0, np.bool_)]
        for path in self.files:
            table = _read_columns(path, ["dt", "item_ids", "labels"])
            offsets, shown = ragged(table, "item_ids")
            included = np.repeat(plan.includes(_day_numbers(table)), np.diff(offsets))
            items.append(shown[included])
            labels.append(ragged(table, "labels")[1][included])
        return np.concatenate(items), np.concatenate(labels)

    def batches(self, plan: BatchPlan, epoch: int = 0, start: int = 0) -> Iterator[GroupBatch]:
        """The batches of one epoch from number `start` on.

        Args:
            plan: sizes, days, seed, worker.
            epoch: another epoch is another order.
            start: batches to skip; the rest is what an uninterrupted run would have seen.

        Raises:
            BadInputError: parallel lists differ in length, or a history length exceeds its history.
        """
        number = 0
        for index, buffer in enumerate(self._buffers(plan, epoch)):
            generator = np.random.default_rng((plan.seed, epoch, plan.worker, index))
            for groups in _cut(buffer, plan, generator):
                if number >= start:
                    yield buffer.select(groups)
                number += 1

    def _buffers(self, plan: BatchPlan, epoch: int) -> Iterator[GroupBatch]:
        """Step 1 and 2: shuffled row groups, read until a buffer is full."""
        order = np.arange(len(self._row_groups))
        if plan.shuffle:
            np.random.default_rng((plan.seed, epoch)).shuffle(order)
        held: list[GroupBatch] = []
        count = 0
        for index in order[plan.worker :: plan.workers]:
            path, row_group = self._row_groups[index]
            batch = self._read_groups(path, row_group, plan)
            if not batch.groups:
                continue
            held.append(batch)
            count += batch.groups
            if count >= plan.buffer_groups:
                yield concatenate(held)
                held, count = [], 0
        if held:
            yield concatenate(held)

    def _read_groups(self, path: Path, row_group: int, plan: BatchPlan) -> GroupBatch:
        """One row group as arrays, checked, without groups of other days or without impressions."""
        with pq.ParquetFile(path) as file:
            table = file.read_row_group(row_group, columns=self._schema.names)
        of_events = {f"{HISTORY_EVENT}{column.logged}": column.name for column in self._columns}
        history_offsets, history = parallel(table, (*_HISTORY, *of_events), path)
        impression_offsets, shown = parallel(table, _IMPRESSIONS, path)
        lengths = shown["history_lengths"].astype(np.int64)
        available = np.repeat(np.diff(history_offsets), np.diff(impression_offsets))
        wrong = np.flatnonzero((lengths < 0) | (lengths > available))
        if wrong.size:
            msg = (
                f"{path}: history_lengths: {lengths[wrong[0]]} where the history has "
                f"{available[wrong[0]]} events; make the samples again"
            )
            raise BadInputError(msg)
        days = _day_numbers(table)
        batch = GroupBatch(
            user_ids=table.column("user_id").to_numpy(),
            days=days,
            history_offsets=history_offsets,
            history_item_ids=history["history_item_ids"],
            history_category_ids=history["history_category_ids"],
            history_behaviors=history["history_behaviors"],
            history_times_ms=history["history_times"],
            impression_offsets=impression_offsets,
            item_ids=shown["item_ids"],
            category_ids=shown["category_ids"],
            event_times_ms=shown["event_times"],
            labels=shown["labels"],
            history_lengths=lengths,
            files=(path.relative_to(self.root).as_posix(),),
            features=shown_features(table, self.features, impression_offsets, path),
            extra_labels=shown_labels(table, self.labels, impression_offsets, path),
            history_columns={name: history[key] for key, name in of_events.items()},
        )
        included = plan.includes(days) & (np.diff(impression_offsets) > 0)
        return batch if included.all() else batch.select(np.flatnonzero(included))


def _cut(
    buffer: GroupBatch, plan: BatchPlan, generator: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Step 3: group indices of each batch; lengths are alike within a batch."""
    impressions = np.diff(buffer.impression_offsets)
    seen = longest(buffer.history_lengths, buffer.impression_offsets)
    shuffled = generator.permutation(buffer.groups) if plan.shuffle else np.arange(buffer.groups)
    order = shuffled[np.argsort(seen[shuffled], kind="stable")]
    impressions_before = offsets_of(impressions[order])
    events_before = offsets_of(seen[order])
    batches = []
    first = 0
    while first < order.size:
        # The last offset that is still within both limits, but at least one group.
        impressions_end = np.searchsorted(
            impressions_before, impressions_before[first] + plan.batch_impressions, side="right"
        )
        events_end = np.searchsorted(
            events_before, events_before[first] + plan.batch_events, side="right"
        )
        last = max(first + 1, min(int(impressions_end), int(events_end)) - 1)
        batches.append(order[first:last])
        first = last
    if plan.shuffle:
        return [batches[index] for index in generator.permutation(len(batches))]
    return batches


def _read_columns(path: Path, names: list[str]) -> pa.Table:
    # Not `pq.read_table`: under `dt=…/` it would take the column `dt` from the folder's name.
    with pq.ParquetFile(path) as file:
        return file.read(columns=names)


def _day_numbers(table: pa.Table) -> NDArray[np.datetime64]:
    days: NDArray[np.datetime64] = table.column("dt").to_numpy().astype("datetime64[D]")
    return days


def _checked_row_groups(path: Path, expected: pa.Schema) -> int:
    """Number of row groups of a file that has these columns."""
    try:
        with pq.ParquetFile(path) as file:
            schema, count = file.schema_arrow, int(file.num_row_groups)
    except (pa.ArrowInvalid, OSError) as error:
        msg = f"{path}: not readable as Parquet ({error}); make the samples again"
        raise BadInputError(msg) from error
    for field in expected:
        index = schema.get_field_index(field.name)
        if index < 0:
            msg = f"{path}: column {field.name} is missing; make the samples again"
            raise BadInputError(msg)
        if not schema.field(index).type.equals(field.type):
            actual = schema.field(index).type
            msg = f"{path}: column {field.name} is {actual}, expected {field.type}"
            raise BadInputError(msg)
    return count
