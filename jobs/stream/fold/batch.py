"""One batch of the stream's function: its rows, and whether they follow those before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from uic.pipelines.log.epochs import NotedColumn
from uic.pipelines.log.events import ParsedEvents
from uic.pipelines.log.positions import LogGapError


@dataclass(frozen=True)
class StreamBatch:
    """The rows of one call: where each stands in the log, and what the parser made of it."""

    partitions: NDArray[np.int64]
    offsets: NDArray[np.int64]
    stamps_ms: NDArray[np.int64]  # as the log has them
    log_times_ms: NDArray[np.int64]  # the largest stamp of the partition so far
    events: ParsedEvents
    first: dict[int, int]  # smallest offset by partition
    last: dict[int, int]  # largest offset by partition


def offset_ranges(
    partitions: NDArray[np.int64], offsets: NDArray[np.int64]
) -> tuple[dict[int, int], dict[int, int]]:
    """First and last offset of some rows, by partition; both arguments are (rows,)."""
    first, last = {}, {}
    for partition in np.unique(partitions).tolist():
        own = offsets[partitions == partition]
        first[partition], last[partition] = int(own.min()), int(own.max())
    return first, last


def refuse_gaps(
    epoch: int,
    partitions: NDArray[np.int64],
    offsets: NDArray[np.int64],
    seen: Mapping[int, int],
) -> None:
    """Refuse rows that leave out offsets.

    A broker whose retention has overtaken the job would go on at its earliest offset.

    Args:
        epoch: for the message.
        partitions: (rows,).
        offsets: (rows,), each partition's ascending.
        seen: by partition, the largest offset of the rows before.

    Raises:
        LogGapError: names the partition and both offsets.
    """
    for partition in np.unique(partitions).tolist():
        own = offsets[partitions == partition]
        before = np.concatenate([[seen.get(partition, own[0] - 1)], own[:-1]])
        jumps = np.flatnonzero(own > before + 1)
        if jumps.size:
            at = int(jumps[0])
            msg = (
                f"epoch {epoch}, partition {partition}: offset {own[at]} follows {before[at]}: "
                "events are missing; retention may have overtaken the job (--accept-loss goes "
                "on), or producers are transactional (set stream.offset_gaps)"
            )
            raise LogGapError(msg)


def readable_columns(
    events: ParsedEvents,
    columns: Sequence[NotedColumn],
    partitions: NDArray[np.int64],
    offsets: NDArray[np.int64],
) -> ParsedEvents:
    """Events as a fold takes them: with no value from before a column begins, and none wrong.

    Args:
        events: parsed with these columns.
        columns: that the bundle reads.
        partitions: (rows,), of all payloads.
        offsets: (rows,).
    """
    if not columns:
        return events
    partitions, offsets = partitions[events.index], offsets[events.index]
    values, wrong = dict(events.columns), dict(events.wrong)
    for noted in columns:
        name, begins = noted.column.name, np.zeros(len(offsets), np.int64)
        for partition, first in noted.first_offsets.items():
            begins[partitions == partition] = first
        before = offsets < begins
        values[name] = np.where(before, noted.column.missing, values[name])
        if name in wrong:
            wrong[name] = wrong[name] & ~before
    return replace(events, columns=values, wrong=wrong).refusing_wrong()
