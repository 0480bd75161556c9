"""Epochs: which numbering of the log a position belongs to, and how one follows another.

Positions of a user compare as (epoch, offset). A record of an older epoch accepts any partition
of a newer one; within one epoch another partition is refused. The hand-over from an import to a
topic, or from a topic to its successor, is a new entry of `epochs.json`, never silence.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from uic.models.errors import BadInputError, ManifestError, UicError
from uic.models.features.event_columns import EventColumn
from uic.models.settings import Section

EpochKind = Literal["import", "topic"]
Loss = tuple[int, int, int]  # partition, first offset, last offset


class EpochHandOverError(UicError):
    """A new epoch, or new offsets of one, do not follow from what the log has."""


class UserMovedError(UicError):
    """A user is in two partitions of one epoch, so their order is unknown."""


class EventColumnError(BadInputError):
    """A column of events is not what the log already has under its name."""


class NotedColumn(Section):
    """A column of the events of an epoch, and where it begins.

    The log keeps a column from the moment at which it is noted. What was logged before has no
    value of it, whatever was on the wire: so a fold of the log and one of the topic, which may
    begin anywhere, see the same.
    """

    column: EventColumn = Field(description="name, kind and field")
    first_offsets: dict[int, int] = Field(description="by partition, the first that may have it")


@dataclass(frozen=True)
class Epoch:
    """One numbering of the log: an import, or one incarnation of a topic.

    Offsets are per partition; `last_offsets[p] == first_offsets[p] - 1` means that none is known.
    `offset_gaps` says of a topic whether its offsets may leave out some (transactional producers),
    as it was when the topic streamed; None for imports, and for topics of older logs.
    `losses` are events that are gone for good and were accepted as lost: (partition, first offset,
    last offset), in order. `columns` are those of the events beside ids.
    """

    number: int
    kind: EpochKind
    name: str
    partitions: int
    first_offsets: dict[int, int]
    last_offsets: dict[int, int]
    offset_gaps: bool | None = None
    losses: tuple[Loss, ...] = ()
    columns: tuple[NotedColumn, ...] = ()

    def is_lost(self, partition: int, first: int, last: int) -> bool:
        """Whether all offsets from `first` to `last` were accepted as lost."""
        for of_partition, lost_first, lost_last in sorted(self.losses):
            if of_partition == partition and lost_first <= first <= lost_last:
                first = lost_last + 1
        return first > last


def check_new_epoch(epoch: Epoch, known: Sequence[Epoch], path: Path) -> None:
    """Refuse an epoch that cannot follow the `known` ones of `path`.

    Raises:
        EpochHandOverError: the number is not the next, the partitions are not 0 to n - 1, an
            offset is negative, or a topic of this name is registered.
    """
    where = f"{path}: epoch {epoch.number} ({epoch.name})"
    if epoch.number != len(known) + 1:
        msg = f"{where}: the log has {len(known)} epochs, expected number {len(known) + 1}"
        raise EpochHandOverError(msg)
    if sorted(epoch.first_offsets) != list(range(epoch.partitions)) or not epoch.partitions:
        msg = (
            f"{where}: first offsets for partitions {sorted(epoch.first_offsets)}, "
            f"expected one for each of 0 to {epoch.partitions - 1}"
        )
        raise EpochHandOverError(msg)
    if min(epoch.first_offsets.values()) < 0:
        msg = f"{where}: a first offset is negative: {epoch.first_offsets}; use 0 or more"
        raise EpochHandOverError(msg)
    if epoch.kind == "topic" and any(
        found.kind == "topic" and found.name == epoch.name for found in known
    ):
        msg = (
            f"{where}: a topic of this name is registered already; "
            "a topic made anew needs another name (for example with its topic id)"
        )
        raise EpochHandOverError(msg)


def check_grown_epoch(epoch: Epoch, known: Sequence[Epoch], path: Path) -> None:
    """Refuse an epoch that is not a registered one with the same or larger last offsets.

    Raises:
        EpochHandOverError: it is not registered, differs from its entry, or its offsets shrink.
    """
    where = f"{path}: epoch {epoch.number} ({epoch.name})"
    registered = {found.number: found for found in known}.get(epoch.number)
    if registered is None:
        msg = f"{where}: not registered; register it with `append_epoch` first"
        raise EpochHandOverError(msg)
    same = ("kind", "name", "partitions", "first_offsets")
    if any(getattr(registered, field) != getattr(epoch, field) for field in same):
        msg = f"{where}: found {epoch}, registered is {registered}; an epoch does not change"
        raise EpochHandOverError(msg)
    for partition, last in registered.last_offsets.items():
        if epoch.last_offsets[partition] < last:
            msg = (
                f"{where}: partition {partition} ends at {epoch.last_offsets[partition]}, "
                f"the log already has {last}; offsets only grow"
            )
            raise EpochHandOverError(msg)


def refuse_overtaken(topic: Epoch, known: Sequence[Epoch], root: Path) -> None:
    """Refuse to publish more of a topic than was looked at, if another writer has done so since.

    Raises:
        EpochHandOverError: the log under `root` has other last offsets or columns of it by now.
    """
    if known[topic.number - 1].columns != topic.columns:
        msg = (
            f"{root}: columns of epoch {topic.number} ({topic.name}) were noted by another process "
            "meanwhile; run this again"
        )
        raise EpochHandOverError(msg)
    reached = known[topic.number - 1].last_offsets
    if reached != topic.last_offsets:
        msg = (
            f"{root}: epoch {topic.number} ({topic.name}) was published up to {reached} by another "
            "process meanwhile; run this again"
        )
        raise EpochHandOverError(msg)


def refuse_moved_users(
    user_ids: NDArray[np.int64], partitions: NDArray[np.int32], where: str
) -> None:
    """Refuse a user in two partitions; all events are of one epoch.

    Args:
        user_ids: (events,).
        partitions: (events,).
        where: what the events come from, for the message.

    Raises:
        UserMovedError: names the user and both partitions.
    """
    order = np.argsort(user_ids, kind="stable")
    users, placed = user_ids[order], partitions[order]
    moved = np.flatnonzero((users[1:] == users[:-1]) & (placed[1:] != placed[:-1]))
    if moved.size:
        at = int(moved[0])
        msg = (
            f"{where}: user {users[at]} is in partitions {placed[at]} and {placed[at + 1]} of one "
            "epoch; producers must key events by user with one partitioner (stream.partitioner, "
            "declared, leaves the others out)"
        )
        raise UserMovedError(msg)


def with_columns(
    epoch: Epoch, columns: Sequence[EventColumn], known: Sequence[Epoch], path: Path
) -> Epoch:
    """An epoch with more columns, each from behind what the log has of it.

    Raises:
        EventColumnError: a column of this name is of another kind in the log `path` speaks of, or
            is read from another field of the epoch's events.
    """
    noted = {one.column.name: one for one in epoch.columns}
    for column in columns:
        for other in (*known, epoch):
            found = {one.column.name: one.column for one in other.columns}.get(column.name)
            if found is not None and found.kind is not column.kind:
                msg = (
                    f"{path}: event.{column.name} is {column.kind.value}, epoch {other.number} "
                    f"({other.name}) has it as {found.kind.value}; give the feature another name"
                )
                raise EventColumnError(msg)
        there = noted.get(column.name)
        if there is None:
            begins = {partition: last + 1 for partition, last in epoch.last_offsets.items()}
            noted[column.name] = NotedColumn(column=column, first_offsets=begins)
        elif there.column != column:
            msg = (
                f"{path}: event.{column.name} is field {column.field}, epoch {epoch.number} "
                f"({epoch.name}) reads it from {there.column.field}, and a topic does not change "
                "its fields; give the feature another name"
            )
            raise EventColumnError(msg)
    return replace(epoch, columns=tuple(noted.values()))


def epoch_to_json(epoch: Epoch) -> dict[str, Any]:
    """The entry of `epochs.json`."""
    entry = asdict(epoch)
    for field in ("first_offsets", "last_offsets"):
        entry[field] = {str(key): value for key, value in sorted(entry[field].items())}
    if epoch.offset_gaps is None:
        del entry["offset_gaps"]
    if not epoch.losses:
        del entry["losses"]
    entry["columns"] = [one.model_dump(mode="json") for one in epoch.columns]
    if not epoch.columns:
        del entry["columns"]
    return entry


def epoch_from_json(entry: Mapping[str, Any], path: Path) -> Epoch:
    """An entry of `epochs.json`.

    Raises:
        ManifestError: the entry of `path` is not complete.
    """
    try:
        return Epoch(
            number=entry["number"],
            kind=entry["kind"],
            name=entry["name"],
            partitions=entry["partitions"],
            first_offsets={int(key): value for key, value in entry["first_offsets"].items()},
            last_offsets={int(key): value for key, value in entry["last_offsets"].items()},
            offset_gaps=entry.get("offset_gaps"),
            losses=tuple(
                (int(p), int(first), int(last)) for p, first, last in entry.get("losses", ())
            ),
            columns=tuple(map(NotedColumn.model_validate, entry.get("columns", ()))),
        )
    except (KeyError, TypeError, ValueError, AttributeError, ValidationError) as error:
        msg = f"{path}: an epoch is not complete: {entry!r}; restore the file from a backup"
        raise ManifestError(msg) from error
