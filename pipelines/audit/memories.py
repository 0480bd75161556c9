"""`audit_generation`: what is served of one generation beside a fold of the log.

The order matters, for the store may be written to meanwhile:

1. Read the markers. Whatever they name must be in memories that are read later.
2. List who is in the store (by one scan of its keys), and read the sampled part of the log.
3. Bucket after bucket: read the served memories, fold the log up to each one's own position,
   compare.
4. Read the markers again: a memory beyond the log is excused only if the stream has been there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from uic.feature_repo.snapshots.snapshots import Snapshot, list_snapshots
from uic.feature_repo.store.errors import typed_errors
from uic.feature_repo.store.generation import Generation
from uic.feature_repo.store.layout import ids_of_keys
from uic.feature_repo.store.opened import OpenedStore
from uic.models.bundles.bundle import load_bundle
from uic.models.bundles.shelf import BundleShelf
from uic.models.errors import BadInputError
from uic.models.memory.fold import MemoryFolder
from uic.models.records.record import Records, header_view
from uic.pipelines.audit.compare import MISMATCHES, Verdict, compare_memories
from uic.pipelines.audit.expected import Marks, fold_to_positions
from uic.pipelines.audit.report import Example, GenerationAudit
from uic.pipelines.audit.sampled import SampledLog, UserSample, buckets_for, by_bucket
from uic.pipelines.audit.settings import AuditSettings
from uic.pipelines.log.epochs import Epoch
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.positions import at_or_before
from uic.pipelines.memories.exclude import Exclusion

_SCAN_KEYS: Final = 5000


class AuditError(BadInputError):
    """There is nothing to audit, or what the comparison needs is gone."""


class FeastReader(Protocol):
    """Reads memories through Feast's API."""

    def read(
        self, user_ids: NDArray[np.int64], record_bytes: int
    ) -> tuple[Records, NDArray[np.bool_]]:
        """As `PackedStore.read`, of the live generation."""
        ...


@dataclass(frozen=True)
class AuditRequest:
    """What is compared.

    Args:
        log: folder of the event log.
        memories: folder of all snapshots.
        bundles: folder of all bundles.
        scratch: a folder that may be made and removed again.
        settings: the section `audit`.
    """

    log: Path
    memories: Path
    bundles: Path
    scratch: Path
    settings: AuditSettings


@dataclass
class _Tally:
    """Counts while buckets pass."""

    examples_of_each: int
    users: int = 0
    events: int = 0
    largest: float = 0.0
    counts: dict[Verdict, int] = field(default_factory=lambda: dict.fromkeys(Verdict, 0))
    examples: list[Example] = field(default_factory=list)

    def add(
        self,
        users: NDArray[np.int64],
        verdicts: NDArray[np.int8],
        differences: NDArray[np.float64],
        positions: NDArray[np.void],
    ) -> None:
        self.users += len(users)
        self.largest = max(self.largest, float(differences.max(initial=0.0)))
        for verdict in Verdict:
            rows = np.flatnonzero(verdicts == verdict)
            room = max(0, self.examples_of_each - self.counts[verdict])
            self.counts[verdict] += len(rows)
            if verdict in MISMATCHES:
                self.examples += [
                    Example(
                        int(users[row]),
                        verdict,
                        float(differences[row]),
                        int(positions["epoch"][row]),
                        int(positions["offset"][row]),
                    )
                    for row in rows[:room].tolist()
                ]


def audit_generation(
    request: AuditRequest,
    store: OpenedStore,
    generation: Generation,
    feast: FeastReader | None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> GenerationAudit:
    """Compare one generation.

    Args:
        request: where everything is.
        store: opened.
        generation: ready, live or retired.
        feast: for the live generation; None reads in bulk only.
        progress: gets rows of the log that were read, of how many.

    Raises:
        AuditError: the log has nothing, or no snapshot of the generation is left.
        StoreError: Redis does not answer, or holds something else.
    """
    # Step 1
    marks = store.generations.markers(generation.number)
    log = EventLog(request.log)
    snapshot = snapshot_of(request.memories, generation.number, generation.bundle)
    folder = MemoryFolder(
        load_bundle(BundleShelf(request.bundles).find(generation.bundle_name)), generation.number
    )
    # Step 2
    sample = UserSample(request.settings.sample_rate)
    stored, sample = _stored_users(store, generation.number, sample)
    files = log.behavior_files(date.fromisoformat(snapshot.manifest["first_day"]))
    total = sum(file.rows for file in files)
    buckets = buckets_for(total * sample.rate, len(stored))
    sampled = SampledLog(request.scratch, buckets)
    done = 0

    def advance(rows: int) -> None:
        nonlocal done
        done += rows
        progress(done, total)

    tally = _Tally(request.settings.examples)
    reader = _Reader(
        store, generation.number, folder.record_bytes, feast, request.settings.feast_users
    )
    tolerance = _tolerance(snapshot, request.settings)
    try:
        sampled.read(files, Exclusion.from_json(generation.exclude), sample.takes, advance)
        forgotten = store.generations.forgotten()
        # Step 3
        for bucket, here in enumerate(by_bucket(stored, buckets)):
            events = sampled.events(bucket)
            users = np.union1d(here, events.column("user_id").to_numpy())
            if not len(users):
                continue
            served, found = reader.read(users)
            expected = fold_to_positions(
                folder, users, events, served=served, found=found, marks=marks
            )
            # Step 4
            passed = store.generations.markers(generation.number)
            ahead = _ahead(served, found, log.epochs(), passed)
            compared = compare_memories(
                expected.records,
                served,
                found,
                ahead=ahead,
                behind=expected.behind,
                forgotten=np.isin(users, forgotten),
                tolerance=tolerance,
            )
            tally.events += expected.events
            tally.add(users, compared.verdicts, compared.differences, header_view(served))
    finally:
        sampled.close()
    return GenerationAudit(
        number=generation.number,
        state=str(generation.state),
        bundle=generation.bundle_name,
        first_day=str(snapshot.manifest["first_day"]),
        users=tally.users,
        events=tally.events,
        counts=tally.counts,
        largest_difference=tally.largest,
        tolerance=tolerance,
        through_feast=reader.through_feast,
        examples=tuple(tally.examples),
    )


def snapshot_of(memories: Path, number: int, bundle: bytes | None = None) -> Snapshot:
    """A snapshot of a generation that is still there; all know where its memories begin.

    Raises:
        AuditError: none is left.
    """
    mine = [
        snapshot
        for snapshot in list_snapshots(memories)
        if snapshot.generation == number and bundle in {None, snapshot.bundle}
    ]
    if not mine:
        msg = (
            f"{memories}: no snapshot of generation {number} is left, so the first day of its "
            "memories is not known; put one back, or build the generation again"
        )
        raise AuditError(msg)
    return mine[-1]


def _tolerance(snapshot: Snapshot, settings: AuditSettings) -> float:
    """0 on the kind of machine and torch build that folded the snapshot."""
    here = (torch.__version__, torch.backends.cpu.get_cpu_capability())
    there = (snapshot.manifest["torch"], snapshot.manifest["cpu"])
    return 0.0 if here == there else settings.tolerance


def _stored_users(
    store: OpenedStore, generation: int, sample: UserSample
) -> tuple[NDArray[np.int64], UserSample]:
    """Sampled users who have a memory, by one scan; (users,), ascending.

    If the sample takes none of them, it is made to take one, and is returned so.
    """
    pattern = store.memories.keys.prefix(generation) + b"*"
    parts = [np.zeros(0, dtype=np.int64)]
    lowest = np.zeros(0, dtype=np.int64)
    with typed_errors(str(store.address)):
        cursor = 0
        while True:
            cursor, keys = store.memories.client.scan(cursor, match=pattern, count=_SCAN_KEYS)
            ids = ids_of_keys(keys)
            parts.append(ids[sample.takes(ids)])
            lowest = np.concatenate([lowest, ids])
            lowest = lowest if not len(lowest) else np.array([sample.lowest(lowest)])
            if cursor == 0:
                break
    stored = np.unique(np.concatenate(parts))
    if len(stored) or not len(lowest):
        return stored, sample
    return lowest, UserSample(sample.rate, int(lowest[0]))


@dataclass
class _Reader:
    """Reads served memories: the first ones through Feast, the others below it."""

    store: OpenedStore
    generation: int
    record_bytes: int
    feast: FeastReader | None
    through_feast_left: int
    through_feast: int = 0

    def read(self, users: NDArray[np.int64]) -> tuple[Records, NDArray[np.bool_]]:
        """(users, record_bytes) and (users,): found."""
        share = min(len(users), self.through_feast_left) if self.feast else 0
        below, found_below = self.store.memories.read(
            self.generation, users[share:], self.record_bytes
        )
        if self.feast is None or not share:
            return below, found_below
        through, found = self.feast.read(users[:share], self.record_bytes)
        self.through_feast_left -= share
        self.through_feast += share
        return np.concatenate([through, below]), np.concatenate([found, found_below])


def _ahead(
    served: Records,
    found: NDArray[np.bool_],
    epochs: Sequence[Epoch],
    marks: Marks,
) -> NDArray[np.bool_]:
    """Memories whose position the log does not have yet, but the stream has passed."""
    header = header_view(served)
    position = (header["epoch"], header["partition"], header["offset"])
    passed = {epoch.number: marks.get(epoch.number, {}) for epoch in epochs}
    logged = {epoch.number: epoch.last_offsets for epoch in epochs}
    return found & at_or_before(*position, passed) & ~at_or_before(*position, logged)
