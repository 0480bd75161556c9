"""Where a run starts to read, and why.

The fold of a partition goes on after the store's marker. A generation that was loaded from a
snapshot has its markers at the snapshot's positions from the start; one that has none in this
epoch reads the epoch from its first event, if it has folded all of the epochs before.

The archive may be behind the marker, since it is committed with checkpoints and the marker with
every batch. Then reading starts where the archive ends: the fold skips what it knows, and the
archive (and the dead letters beside it) has no hole.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from uic.feature_repo.store.generation import Generation
from uic.feature_repo.store.markers import NO_OFFSET
from uic.models.errors import BadInputError
from uic.pipelines.log.epochs import Epoch

Marks = Mapping[int, Mapping[int, int]]  # epoch -> partition -> offset of the last folded event


class StartPositionError(BadInputError):
    """There is no position from which nothing would be skipped."""


class ForeignEpochError(StartPositionError):
    """The epochs of a generation's markers are not those of this workspace's log."""


@dataclass(frozen=True)
class Start:
    """Where one partition starts.

    Args:
        partition: of the epoch.
        offset: first one to read.
        marker: the store's, NO_OFFSET for none.
        why: for people.
        lost: first and last offset of events that are gone, which was accepted; None if none are.
    """

    partition: int
    offset: int
    marker: int
    why: str
    lost: tuple[int, int] | None = None


@dataclass(frozen=True)
class Available:
    """What the source still has: by partition, the first offset, and one past the last."""

    first: Mapping[int, int]
    end: Mapping[int, int]
    name: str


def check_epochs_known(
    generation: Generation, marks: Marks, names: Mapping[int, str], log: Path
) -> None:
    """Refuse a generation that has folded another log than this one.

    An epoch is a number that each log counts by itself, so a marker of another log's epoch says
    nothing of this one's, and the fold would skip events as known that it never saw.

    Args:
        generation: that is to be folded.
        marks: its markers.
        names: by number, what the epochs of the log are called, the source's included.
        log: where its epochs stand.

    Raises:
        ForeignEpochError: names the epoch, and both names.
    """
    for number in sorted({number for number, at in marks.items() if at}):
        folded, here = generation.epochs.get(number, ""), names.get(number)
        if here is None or folded not in ("", here):
            msg = (
                f"generation {generation.number} in the store has folded epoch {number}"
                f"{folded and f' ({folded})'}, in {log} epoch {number} is "
                f"{here or 'not there'}: it is the generation of another log; bring that log here "
                "(from a backup, with its epochs.json), or build and load a generation of this one"
            )
            raise ForeignEpochError(msg)


def check_epochs_before(
    generation: Generation, marks: Marks, epochs: Sequence[Epoch], epoch: Epoch
) -> None:
    """Refuse to fold `epoch` while events of an epoch before it are not folded.

    Raises:
        StartPositionError: names the epoch, the partition and both offsets.
    """
    for before in epochs:
        if before.number >= epoch.number:
            continue
        folded = marks.get(before.number, {})
        for partition, last in sorted(before.last_offsets.items()):
            reached = folded.get(partition, before.first_offsets[partition] - 1)
            if reached < last:
                msg = (
                    f"generation {generation.number}: epoch {before.number} ({before.name}), "
                    f"partition {partition} is folded up to offset {reached}, the log has up to "
                    f"{last}; build the generation until there: `uic memories build`"
                )
                raise StartPositionError(msg)


def check_epochs_after(
    generation: Generation, epochs: Sequence[Epoch], epoch: Epoch, memories: Mapping[int, int]
) -> None:
    """Refuse to fold `epoch` into memories that have folded a later one.

    The fold skips an event of an older epoch than its user's memory, so these users would never
    learn anything again, and nothing but a count of skipped events would say so.

    Args:
        generation: that is to be folded.
        epochs: of the log.
        epoch: of the source.
        memories: how many of the generation's lie in each epoch.

    Raises:
        StartPositionError: names the epochs and how many memories lie beyond.
    """
    beyond = {number: count for number, count in memories.items() if number > epoch.number}
    if not beyond:
        return
    names = {known.number: known.name for known in epochs}
    lie = ", ".join(
        f"{count:,} memories lie in epoch {number} ({names.get(number, 'not of this log')})"
        for number, count in sorted(beyond.items())
    )
    msg = (
        f"generation {generation.number}: {lie}, the source is epoch {epoch.number} "
        f"({epoch.name}): every event of their users would be skipped. Stream a generation that "
        "has not folded the later epoch (`uic memories list`, `uic memories switch`), or make "
        "the log anew in another --workspace, the older data first, then the topic"
    )
    raise StartPositionError(msg)


def choose_starts(
    generation: Generation,
    marks: Marks,
    epoch: Epoch,
    available: Available,
    archived: Mapping[int, int],
    *,
    accept_loss: bool,
    reached: Mapping[int, int] = MappingProxyType({}),
) -> list[Start]:
    """The first offset of each partition of `epoch`.

    Args:
        generation: that is folded.
        marks: its markers.
        epoch: of the source.
        available: what the source has.
        archived: by partition, offset from which the archive must be written again.
        accept_loss: start at what is left where retention has eaten the position. What was
            accepted before (`epoch.losses`) needs no second word.
        reached: by partition, a position beyond the marker up to which there is no event (a
            transactional topic's commits).

    Raises:
        StartPositionError: events are gone; names the partition and both offsets.
    """
    snapshot = generation.positions.get(epoch.number, {})
    starts = []
    for partition in range(epoch.partitions):
        marker = marks.get(epoch.number, {}).get(partition, NO_OFFSET)
        offset, why = _wanted(partition, marker, snapshot, epoch)
        after = max(marker + 1, reached.get(partition, 0))  # the next event lies here or later
        if archived.get(partition, offset) < offset:
            offset = archived[partition]
            why = "where the archive goes on; what the store has is skipped"
        first, end = available.first[partition], available.end[partition]
        lost = None
        if offset < first:
            if offset <= after and first <= after:
                why = "where the source begins; what the store has is skipped"
            elif not accept_loss and not epoch.is_lost(partition, max(offset, after), first - 1):
                msg = (
                    f"{available.name}, partition {partition}: the next event to fold is at offset "
                    f"{max(offset, after)}, retention has left {first} and later; rebuild "
                    "the generation from the archive, or give --accept-loss to go on without "
                    f"{first - max(offset, after)} events"
                )
                raise StartPositionError(msg)
            else:
                lost = max(offset, after), first - 1
                why = f"events {lost[0]} to {lost[1]} are lost, as accepted"
            offset = first
        if marker + 1 > end:
            msg = (
                f"{available.name}, partition {partition}: ends before offset {end}, but the "
                f"store has folded up to {marker}: it has lost events, or is another log; if "
                "the log was made anew, give it another name"
            )
            raise StartPositionError(msg)
        starts.append(Start(partition, offset, marker, why, lost))
    return starts


def _wanted(
    partition: int, marker: int, snapshot: Mapping[int, int], epoch: Epoch
) -> tuple[int, str]:
    if marker != NO_OFFSET and marker == snapshot.get(partition):
        return marker + 1, "after the snapshot's position"
    if marker != NO_OFFSET:
        return marker + 1, "after the store's marker"
    return epoch.first_offsets[partition], "earliest: the generation has nothing of this epoch"


def summary(starts: Sequence[Start]) -> list[str]:
    """One line per reason, for people."""
    groups: dict[str, list[Start]] = {}
    for start in starts:
        groups.setdefault(start.why, []).append(start)
    lines = []
    for why, group in groups.items():
        partitions = ", ".join(str(start.partition) for start in group)
        offsets = ", ".join(str(start.offset) for start in group)
        several = "s" if len(group) > 1 else ""
        lines.append(f"partition{several} {partitions}: from offset{several} {offsets} ({why})")
    return lines


def folder_name(generation: int) -> Path:
    """Name of a generation's folder below `stream/`."""
    return Path(f"generation={generation:03d}")
