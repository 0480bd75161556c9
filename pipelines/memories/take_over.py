"""Exact parts of a record outlive a bundle: which ones a build takes over from which snapshot.

Counts, rates, recent events and windows do not depend on weights. A build with another bundle takes
the bytes of the parts that both bundles declare alike, as of the snapshot's positions; what is
learned, or declared otherwise, is folded from the log up to there, and then everything together.
The result is that of a build from nothing, byte for byte. Where that cannot be promised, nothing is
taken over, and the manifest says why.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from uic.feature_repo.snapshots.snapshots import Snapshot
from uic.models.bundles.bundle import Bundle
from uic.models.errors import UicError
from uic.models.kernels.compiled import folded_by
from uic.models.state.definition import StateDefinition
from uic.pipelines.log.event_log import EventLog, LogFile
from uic.pipelines.log.shown import event_files
from uic.pipelines.memories.exclude import Exclusion
from uic.pipelines.memories.nightly import beyond

_POSITION: Final = ("epoch", "partition", "offset")


@dataclass(frozen=True)
class TakenParts:
    """What is taken over, as every bucket needs to know it.

    Attributes:
        snapshot: its folder.
        record_bytes: of its records.
        positions: that they hold, epoch -> partition -> offset.
        names: of the parts that are taken over.
        columns: (first byte there, first byte here, bytes) of each.
        folds: whether anything else of a record is folded up to the positions.
    """

    snapshot: Path
    record_bytes: int
    positions: Mapping[int, Mapping[int, int]]
    names: tuple[str, ...]
    columns: tuple[tuple[int, int, int], ...]
    folds: bool


@dataclass(frozen=True)
class PartsWanted:
    """A build from nothing that looks for a snapshot to take parts over from.

    Attributes:
        bundle: that folds; has exact parts.
        record_bytes: of its records.
        first: day of the log that it begins with.
        until: last day that is folded.
        exclusion: what it leaves out.
    """

    bundle: Bundle
    record_bytes: int
    first: date
    until: date
    exclusion: Exclusion


def find_taken(
    memories: Path, log: EventLog, wanted: PartsWanted
) -> tuple[TakenParts | None, str | None]:
    """The snapshot that has most bytes to take over, the newest of several.

    Snapshots of the same bundle are none: such a build is made in order to fold everything anew.

    Args:
        memories: folder of all snapshots.
        log: that is folded.
        wanted: the build.

    Returns:
        What is taken over; else why not, None where no other bundle has a snapshot with parts.
    """
    chosen: list[tuple[int, str, int, TakenParts]] = []
    reasons = []
    for snapshot in _of_other_bundles(memories, wanted.bundle.hash8):
        try:
            reason = _misfit(snapshot, log, wanted)
            taken = _shared(snapshot, wanted)
        except UicError as error:
            reasons.append(str(error))
            continue
        if reason is None and taken.folds and not taken.names:
            reason = "has no part with the same settings"
        elif reason is None and not taken.folds and _counts_less(snapshot, wanted.bundle):
            reason = "counts the events of a memory, which begins later than its parts"
        if reason is None:
            size = sum(column[2] for column in taken.columns)
            chosen.append((size, snapshot.manifest["until"], snapshot.generation, taken))
        else:
            reasons.append(f"{snapshot.name} {reason}")
    if chosen:
        return max(chosen, key=lambda one: one[:3])[3], None
    return None, reasons[-1] if reasons else None


def files_to_read(
    files: Sequence[LogFile], taken: TakenParts, read_from: date | None
) -> list[LogFile]:
    """The files that a build over parts that were taken needs.

    Args:
        files: of a build from nothing.
        taken: the parts.
        read_from: first day whose events are folded up to the positions; None for none.
    """
    return [
        file
        for file in files
        if (read_from is not None and file.dt >= read_from) or _may_reach(file, taken.positions)
    ]


def without(bundle: Bundle, names: Sequence[str]) -> Bundle:
    """The bundle whose records lack some exact parts."""
    document = bundle.config.state or {}
    parts = {name: part for name, part in document["parts"].items() if name not in names}
    state = {**document, "parts": parts} if parts else None
    return replace(bundle, config=bundle.config.model_copy(update={"state": state}))


def _of_other_bundles(memories: Path, hash8: bytes) -> list[Snapshot]:
    """By generation and day; what cannot be opened is none of them."""
    found = []
    for path in sorted(memories.glob("generation=*/dt=*/manifest.json")):
        try:
            snapshot = Snapshot.open(path.parent)
        except UicError:  # said by `uic memories list`; a build from nothing does without it
            continue
        if snapshot.bundle != hash8 and snapshot.manifest.get("parts"):
            found.append(snapshot)
    return found


def _misfit(snapshot: Snapshot, log: EventLog, wanted: PartsWanted) -> str | None:
    """Why a build over the snapshot might differ from one from nothing; None if it cannot."""
    manifest = snapshot.manifest
    if "columns" not in manifest or "out_of_order" not in manifest:
        return "was built by an older version"
    cut_ms, until = int(manifest["cut_ms"]), manifest["until"]
    left_out = Exclusion.from_json(manifest["exclude"]).before(cut_ms)
    reads, refused = manifest["columns"], manifest["out_of_order"]
    reasons = {
        f"holds the log until {until}, beyond --until {wanted.until}": until
        > wanted.until.isoformat(),
        "was folded with other columns of events": sorted(reads, key=itemgetter("name"))
        != sorted(columns_of(wanted.bundle), key=itemgetter("name")),
        "leaves out other events (rules or sale days)": left_out != wanted.exclusion.before(cut_ms),
        "was folded by other kernels": snapshot.folded_by.get("kernels") != folded_by()["kernels"],
        f"has refused {refused} events that were out of order": refused > 0,
    }
    found = next((reason for reason, holds in reasons.items() if holds), None)
    return found or _other_days(snapshot, log, wanted) or _other_log(snapshot, log, wanted)


def _other_days(snapshot: Snapshot, log: EventLog, wanted: PartsWanted) -> str | None:
    """Why the snapshot begins with other events."""
    begins = date.fromisoformat(snapshot.manifest["first_day"])
    early, late = sorted((begins, wanted.first))
    before = late - timedelta(days=1)
    if early < late and event_files(log, early, before, shown=wanted.bundle.reads_shown):
        return f"begins with {begins}, this build with {wanted.first}"
    return None


def _other_log(snapshot: Snapshot, log: EventLog, wanted: PartsWanted) -> str | None:
    """Why the log is not the snapshot's with events behind it."""
    if log.held_back() is not None:
        return "is of a log whose days are held back by a replay"
    names = {str(epoch.number): epoch.name for epoch in log.epochs()}
    if any(names.get(number) != name for number, name in snapshot.epochs.items()):
        return "is of another log"
    newest = max(snapshot.positions, default=0)
    lists = wanted.bundle.reads_shown
    for file in event_files(log, wanted.first, wanted.until, shown=lists):
        older = file.epoch is not None and file.epoch < newest
        if older and _may_reach(file, snapshot.positions) and beyond(file, snapshot.positions):
            return f"has folded epoch {newest}, and the log goes on in epoch {file.epoch}"
    return None


def _shared(snapshot: Snapshot, wanted: PartsWanted) -> TakenParts:
    """The parts that both declare alike, and where they lie."""
    there = StateDefinition.of_document(snapshot.manifest["parts"], str(snapshot.path))
    here = wanted.bundle.state or StateDefinition()
    theirs = _places(there, snapshot.value_bytes)
    columns = {
        name: (theirs[name][0], first, size)
        for name, (first, size, document) in _places(here, wanted.record_bytes).items()
        if name in theirs and theirs[name][1:] == (size, document)
    }
    return TakenParts(
        snapshot=snapshot.path,
        record_bytes=snapshot.value_bytes,
        positions=snapshot.positions,
        names=tuple(columns),
        columns=tuple(columns.values()),
        folds=wanted.bundle.has_memory or len(columns) < len(here.parts),
    )


def _places(state: StateDefinition, record_bytes: int) -> dict[str, tuple[int, int, Any]]:
    """Of each part by name: its first byte in a record, its bytes, its settings with their kind."""
    documents = state.document()["parts"]
    places, at = {}, record_bytes - state.bytes
    for part in state.parts:
        places[part.name] = (at, part.bytes, documents[part.name])
        at += part.bytes
    return places


def _counts_less(snapshot: Snapshot, bundle: Bundle) -> bool:
    """Whether the header's count of events cannot be taken over with the parts."""
    return not bundle.has_memory and snapshot.learns_from_ms > 0


def columns_of(bundle: Bundle) -> list[dict[str, Any]]:
    """The columns of events that a bundle reads, as a manifest has them."""
    return [column.model_dump(mode="json") for column in bundle.read_columns]


def _may_reach(file: LogFile, positions: Mapping[int, Mapping[int, int]]) -> bool:
    """Whether a file may have events beyond positions, by its footer alone."""
    with pq.ParquetFile(file.path) as opened:
        footer = opened.metadata
    names = list(footer.schema.names)
    for group in range(footer.num_row_groups):
        row_group = footer.row_group(group)
        bounds = [row_group.column(names.index(name)).statistics for name in _POSITION]
        if not all(bound is not None and bound.has_min_max for bound in bounds):
            return True
        epoch, partition, offset = bounds
        marks = positions.get(epoch.min, {})
        held = min(marks.get(number, -1) for number in range(partition.min, partition.max + 1))
        if epoch.min != epoch.max or offset.max > held:
            return True
    return False
