"""How much common-feature grouping saves: a group's bytes against one row per impression.

Writing every impression with its own history would cost as much again as the whole run, many
times over, so it is done for evenly spaced groups of each bucket: those are encoded both ways, with
the same encoder, and the ratio is applied to the bytes of all groups. The size of the columns in
memory is exact for all.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from uic.models.samples.groups import offsets_of, ranges
from uic.models.samples.schema import SAMPLES
from uic.pipelines.samples.build import HISTORY_COLUMNS
from uic.pipelines.samples.encoding import encoded_bytes

# History events of the single rows that are encoded of a table: milliseconds of work.
SAMPLED_EVENTS: Final = 10_000

METHOD: Final = (
    "one_row_per_impression_bytes = bytes x (sampled_single_bytes / sampled_grouped_bytes): every "
    "n-th group encoded both ways with the same encoder; a single row holds the "
    "newest history_cap events that its impression sees; raw bytes are exact, columns without "
    "offsets"
)

_EVENT_BYTES: Final = 8 + 8 + 1 + 8  # item, category, behaviour, time
_IMPRESSION_BYTES: Final = 8 + 8 + 8 + 1  # item, category, time, label
_GROUP_BYTES: Final = 8 + 4  # user, day
_LENGTH_BYTES: Final = 4  # history_lengths, which a single row does not need


@dataclass(frozen=True)
class SampleSizes:
    """Bytes of some groups, both ways; sums over buckets are sums of these."""

    groups: int = 0
    impressions: int = 0
    history_events: int = 0
    single_history_events: int = 0
    sampled_groups: int = 0
    sampled_grouped_bytes: int = 0
    sampled_single_bytes: int = 0

    def __add__(self, other: "SampleSizes") -> "SampleSizes":
        """The sizes of both together."""
        return SampleSizes(*(getattr(self, name) + getattr(other, name) for name in vars(self)))

    def summary(self, file_bytes: int) -> dict[str, Any]:
        """The manifest's `grouping`, for groups whose files have `file_bytes` bytes."""
        ratio = self.sampled_single_bytes / max(self.sampled_grouped_bytes, 1)
        raw = self.groups * _GROUP_BYTES + self.history_events * _EVENT_BYTES
        raw += self.impressions * (_IMPRESSION_BYTES + _LENGTH_BYTES)
        raw_single = self.impressions * (_GROUP_BYTES + _IMPRESSION_BYTES)
        raw_single += self.single_history_events * _EVENT_BYTES
        return {
            "bytes": file_bytes,
            "one_row_per_impression_bytes": round(file_bytes * ratio),
            "ratio": round(ratio, 3),
            "raw_bytes": raw,
            "one_row_per_impression_raw_bytes": raw_single,
            "raw_ratio": round(raw_single / max(raw, 1), 3),
            "sampled_groups": self.sampled_groups,
            "method": METHOD,
        }


def sizes_of(
    table: pa.Table, history_cap: int, sampled_events: int = SAMPLED_EVENTS
) -> SampleSizes:
    """Measure the groups of a table of samples; features are left out on both sides."""
    table = table.select(SAMPLES.names)
    if not table.num_rows:
        return SampleSizes()
    seen = table.column("history_lengths").combine_chunks()
    single_events = int(np.minimum(seen.flatten().to_numpy(), history_cap).sum())
    step = max(1, -(-single_events // sampled_events))
    sample = table.take(pa.array(np.arange(0, table.num_rows, step))).combine_chunks()
    history = table.column("history_item_ids").combine_chunks()
    return SampleSizes(
        groups=table.num_rows,
        impressions=len(seen.flatten()),
        history_events=len(history.flatten()),
        single_history_events=single_events,
        sampled_groups=sample.num_rows,
        sampled_grouped_bytes=encoded_bytes(sample),
        sampled_single_bytes=encoded_bytes(one_row_per_impression(sample, history_cap)),
    )


def one_row_per_impression(table: pa.Table, history_cap: int) -> pa.Table:
    """The impressions of a table of `SAMPLES`, each with the newest events that it sees."""
    shown = table.column("history_lengths").combine_chunks()
    sees = shown.flatten().to_numpy().astype(np.int64)
    groups = np.repeat(np.arange(table.num_rows), shown.value_lengths().to_numpy())
    history = table.column("history_item_ids").combine_chunks()
    starts = history.offsets.to_numpy().astype(np.int64)[groups]
    lengths = np.minimum(sees, history_cap)
    events = pa.array(ranges(starts + sees - lengths, lengths))
    offsets = pa.array(offsets_of(lengths).astype(np.int32))
    columns: dict[str, pa.Array] = {
        name: table.column(name).take(pa.array(groups)) for name in ("user_id", "dt")
    }
    for name in HISTORY_COLUMNS:
        values = table.column(name).combine_chunks().values
        columns[name] = pa.ListArray.from_arrays(offsets, values.take(events))
    for name in ("item_ids", "category_ids", "event_times", "labels"):
        columns[name.removesuffix("s")] = table.column(name).combine_chunks().flatten()
    return pa.table(columns)
