"""Positions of ordered events: given by rank to an import, checked for a topic."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from uic.models.errors import BadInputError
from uic.models.state.shown import PLACED
from uic.pipelines.log.epochs import Epoch, EpochHandOverError, refuse_moved_users


class LogOrderError(BadInputError):
    """Log time falls along a partition or along a user's events, or a position is there twice."""


class LogGapError(BadInputError):
    """Offsets of a partition do not follow each other: events between them are missing."""

    # The plan of the next attempt says exactly what is lost, and whether that was accepted.
    replanned = True


def at_or_before(
    epochs: NDArray[Any],
    partitions: NDArray[Any],
    offsets: NDArray[Any],
    marks: Mapping[int, Mapping[int, int]],
) -> NDArray[np.bool_]:
    """Which positions lie at or before the mark of their partition; without a mark none does.

    Args:
        epochs: (n,), integers.
        partitions: (n,), integers.
        offsets: (n,), integers.
        marks: epoch -> partition -> offset.
    """
    inside = np.zeros(len(epochs), dtype=np.bool_)
    for epoch, of_epoch in marks.items():
        for partition, last in of_epoch.items():
            here = (epochs == epoch) & (partitions == partition)
            inside |= here & (offsets.astype(np.int64, copy=False) <= last)
    return inside


def largest_so_far(
    stamps_ms: NDArray[np.int64], partitions: NDArray[Any], before: Mapping[int, int]
) -> NDArray[np.int64]:
    """The log time of events: the largest stamp of their partition so far.

    A stamp is the clock of the partition's leader, and steps back when another broker with a slower
    clock becomes the leader, or when the clock is set. The largest so far never falls.

    Args:
        stamps_ms: (n,), milliseconds since 1970 UTC; each partition's in order of offset.
        partitions: (n,), integers.
        before: by partition, the largest stamp of earlier events; no entry for none.

    Returns:
        (n,), milliseconds.
    """
    times = stamps_ms.copy()
    for partition in np.unique(partitions).tolist():
        own = partitions == partition
        so_far = np.maximum.accumulate(stamps_ms[own])
        times[own] = np.maximum(so_far, before.get(partition, so_far[0]))
    return times


def _repeated(
    partitions: NDArray[Any], offsets: NDArray[np.int64], table: pa.Table
) -> NDArray[np.bool_]:
    """Which rows repeat a position; the items of a list share one, in order of their places."""
    again = np.zeros(len(offsets), np.bool_)
    again[1:] = (offsets[1:] == offsets[:-1]) & (partitions[1:] == partitions[:-1])
    if again.any() and PLACED in table.column_names:
        within = np.arange(len(again))
        within -= np.maximum.accumulate(np.where(again, 0, within))
        # A behaviour has none.
        again = within != table[PLACED].fill_null(0).to_numpy().clip(0)
    return again


class Positions:
    """Gives offsets to one slice of the log after the other, in (day, partition, time) order.

    Args:
        number: of the epoch.
        partitions: of the epoch.
        topic: the registered epoch whose offsets the rows bring; None gives them by rank.
    """

    def __init__(self, number: int, partitions: int, topic: Epoch | None) -> None:
        self._number = number
        self._topic = topic
        last = topic.last_offsets if topic else dict.fromkeys(range(partitions), -1)
        self._next = np.array([last[p] + 1 for p in range(partitions)], np.int64)
        self._partitions = partitions
        self._users = np.empty(0, np.int64)
        self._homes = np.empty(0, np.int32)

    def give(
        self, table: pa.Table, partitions: NDArray[np.int32]
    ) -> tuple[pa.Table, NDArray[np.int64]]:
        """The rows that count, with their offsets.

        Args:
            table: rows in (partition, log time, source order).
            partitions: (rows,), ascending.

        Raises:
            EpochHandOverError: an offset of a topic is not in order.
            UserMovedError: a user of a topic is in two partitions.
        """
        if self._topic:
            return self._check(table, partitions, self._topic)
        counts = np.bincount(partitions, minlength=self._partitions)
        firsts = np.cumsum(counts) - counts
        offsets = np.arange(len(partitions)) + np.repeat(self._next - firsts, counts)
        self._next += counts
        return table, offsets

    def _check(
        self, table: pa.Table, partitions: NDArray[np.int32], topic: Epoch
    ) -> tuple[pa.Table, NDArray[np.int64]]:
        where = f"epoch {topic.number} ({topic.name})"
        if (
            partitions.size
            and not 0 <= int(partitions[0]) <= int(partitions[-1]) < self._partitions
        ):
            msg = (
                f"{where}: found partitions {partitions[0]} to {partitions[-1]}, "
                f"expected 0 to {self._partitions - 1}"
            )
            raise EpochHandOverError(msg)
        offsets = table["offset"].to_numpy()
        # An archive holds what was read twice (after a restart) twice.
        keep = ~_repeated(partitions, offsets, table)
        if not keep.all():
            table = pc.filter(table, pa.array(keep))
            offsets, partitions = offsets[keep], partitions[keep]
        falls = np.flatnonzero((offsets[1:] < offsets[:-1]) & (partitions[1:] == partitions[:-1]))
        if falls.size:
            at = int(falls[0])
            msg = (
                f"{where}: partition {partitions[at]} has offset {offsets[at + 1]} at a later log "
                f"time than {offsets[at]}; log time must never fall along a partition"
            )
            raise LogOrderError(msg)
        firsts = np.flatnonzero(np.r_[True, partitions[1:] != partitions[:-1]])
        for first, end in zip(firsts, np.r_[firsts[1:], len(partitions)], strict=True):
            partition = int(partitions[first])
            if offsets[first] < self._next[partition]:
                msg = (
                    f"{where}: partition {partition} continues at {offsets[first]}, the log "
                    f"already has {self._next[partition] - 1}; compact only what follows"
                )
                raise EpochHandOverError(msg)
            self._next[partition] = offsets[end - 1] + 1
        self._settle(table["user_id"].to_numpy(), partitions, where)
        return table, offsets

    def _settle(self, users: NDArray[np.int64], homes: NDArray[np.int32], where: str) -> None:
        """Remember each user's partition; 12 bytes a user of this part."""
        users, homes = np.r_[self._users, users], np.r_[self._homes, homes]
        refuse_moved_users(users, homes, where)
        self._users, at = np.unique(users, return_index=True)
        self._homes = homes[at]

    def epoch(self, name: str) -> Epoch:
        """The epoch with everything that was given."""
        last = {p: int(self._next[p]) - 1 for p in range(self._partitions)}
        if self._topic:
            return replace(self._topic, last_offsets=last)
        first = dict.fromkeys(range(self._partitions), 0)
        return Epoch(self._number, "import", name, self._partitions, first, last)
