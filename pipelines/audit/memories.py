"""`audit_generation`: what is served of one generation beside a fold of the log.

The order matters, for the store may be written to meanwhile:

1. Read the markers. Whatever they name must be in memories that are read later.
2. List who is in the store (by one scan of its keys), and read the sampled part of the log.
3. Bucket after bucket: read the served memories, fold log and tail (what has streamed since) up
   to each one's own position, compare. A memory beyond the tail waits, if a marker has passed it.
4. When the tail has reached those that wait, fold and compare them. What is still beyond it is
   not judged, which is a mismatch.
5. Read the markers again: what log and tail have of a topic, they must have passed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from uic.feature_repo.snapshots.snapshots import Snapshot, list_snapshots
from uic.feature_repo.store.generation import Generation
from uic.feature_repo.store.opened import OpenedStore
from uic.models.bundles.bundle import load_bundle
from uic.models.bundles.shelf import BundleShelf
from uic.models.errors import BadInputError
from uic.models.memory.fold import MemoryFolder
from uic.models.records.record import Records, header_view
from uic.pipelines.audit.compare import compare_memories
from uic.pipelines.audit.expected import Marks, fold_to_positions
from uic.pipelines.audit.log_tail import LogTail, NoTail, TailReader
from uic.pipelines.audit.report import AuditTally, GenerationAudit
from uic.pipelines.audit.sampled import SampledLog, UserSample, buckets_for, by_bucket
from uic.pipelines.audit.settings import AuditSettings
from uic.pipelines.audit.stored import FeastReader, StoredMemories, stored_users
from uic.pipelines.log.epochs import Epoch
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.positions import at_or_before
from uic.pipelines.log.shown import event_files
from uic.pipelines.memories.exclude import Exclusion

_SCAN_KEYS: Final = 5000


class AuditError(BadInputError):
    """There is nothing to audit, or what the comparison needs is gone."""


@dataclass(frozen=True)
class AuditRequest:
    """What is compared.

    Args:
        log: folder of the event log.
        memories: folder of all snapshots.
        bundles: folder of all bundles.
        scratch: a folder that may be made and removed again.
        settings: the section `audit`.
        tail: what streamed after the end of the log.
        forgotten: users who were deleted on request, (users,), beside those that the store knows.
    """

    log: Path
    memories: Path
    bundles: Path
    scratch: Path
    settings: AuditSettings
    tail: TailReader = field(default_factory=NoTail)
    forgotten: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


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
    audit = _Auditor(request, store, generation, feast, progress)
    audit.judge_all()
    audit.judge_late()
    return audit.result()


@dataclass(frozen=True)
class _Late:
    """Memories of a bucket that are beyond the tail, and what log and tail have of their users."""

    users: NDArray[np.int64]
    served: Records
    events: pa.Table


class _Auditor:
    """The steps of one audit, and what they know of each other."""

    def __init__(
        self,
        request: AuditRequest,
        store: OpenedStore,
        generation: Generation,
        feast: FeastReader | None,
        progress: Callable[[int, int], None],
    ) -> None:
        self._request, self._store, self._generation = request, store, generation
        self._progress = progress
        # Step 1
        self._marks = store.generations.markers(generation.number)
        self._log = EventLog(request.log)
        self._epochs = self._log.epochs()
        self._tail = request.tail.read()
        self._snapshot = snapshot_of(request.memories, generation.number, generation.bundle)
        bundle = load_bundle(BundleShelf(request.bundles).find(generation.bundle_name))
        self._columns = bundle.read_columns
        self._reads_shown = bundle.reads_shown
        self._folder = MemoryFolder(bundle, generation.number, self._snapshot.learns_from_ms)
        self._exclusion = Exclusion.from_json(generation.exclude)
        self._tolerance = _tolerance(self._snapshot, request.settings)
        self._forgotten = np.union1d(store.generations.forgotten(), request.forgotten)
        self._reader = StoredMemories(
            store,
            generation.number,
            self._folder.record_bytes,
            feast,
            request.settings.feast_users,
        )
        self._tally = AuditTally(request.settings.examples)
        self._late: list[_Late] = []

    def judge_all(self) -> None:
        """Steps 2 and 3."""
        sample = UserSample(self._request.settings.sample_rate)
        stored, sample = stored_users(self._store, self._generation.number, sample)
        first_day = date.fromisoformat(self._snapshot.manifest["first_day"])
        lists = self._reads_shown
        files = [
            *event_files(self._log, first_day, shown=lists),
            *self._tail.read_with(shown=lists),
        ]
        total = sum(file.rows for file in files)
        buckets = buckets_for(total * sample.rate, len(stored))
        sampled = SampledLog(self._request.scratch, buckets, self._columns)
        done = 0

        def advance(rows: int) -> None:
            nonlocal done
            done += rows
            self._progress(done, total)

        try:
            sampled.read(files, self._exclusion, sample.takes, advance)
            for bucket, here in enumerate(by_bucket(stored, buckets)):
                events = sampled.events(bucket)
                users = np.union1d(here, events.column("user_id").to_numpy())
                if len(users):
                    served, found = self._reader.read(users)
                    self._judge(users, events, served, found)
        finally:
            sampled.close()

    def judge_late(self) -> None:
        """Step 4."""
        late, self._late = self._late, []
        if not late:
            return
        header = header_view(np.concatenate([part.served for part in late]))
        wanted: dict[int, dict[int, int]] = {}
        for epoch, partition, offset in header[["epoch", "partition", "offset"]].tolist():
            of_epoch = wanted.setdefault(epoch, {})
            of_epoch[partition] = max(offset, of_epoch.get(partition, offset))
        before, self._tail = self._tail, self._request.tail.wait_for(wanted)
        compacted = self._log.epochs() != self._epochs  # then the tail has a hole before it
        sampled = SampledLog(self._request.scratch, len(late), self._columns)
        users = np.concatenate([part.users for part in late])
        try:
            if not compacted:
                takes = partial(np.isin, test_elements=users)
                sampled.read(
                    self._tail.read_with(shown=self._reads_shown),
                    self._exclusion,
                    takes,
                    lambda _rows: None,
                )
            grown = pa.concat_tables([sampled.events(bucket) for bucket in range(len(late))])
        finally:
            sampled.close()
        epochs, partitions, offsets = (
            grown.column(name).to_numpy() for name in ("epoch", "partition", "offset")
        )
        known = at_or_before(epochs, partitions, offsets, before.last_offsets)
        grown = grown.filter(pa.array(~known))
        for part in late:
            new = grown.filter(pa.array(np.isin(grown.column("user_id").to_numpy(), part.users)))
            events = pa.concat_tables([part.events, new])
            found = np.ones(len(part.users), dtype=np.bool_)
            self._judge(part.users, events, part.served, found, last=True)

    def _judge(
        self,
        users: NDArray[np.int64],
        events: pa.Table,
        served: Records,
        found: NDArray[np.bool_],
        *,
        last: bool = False,
    ) -> None:
        """Compare some users; those beyond the tail wait, unless this is their `last` time."""
        passed = self._store.generations.markers(self._generation.number)
        beyond = _beyond(served, found, self._epochs, self._tail, passed)
        if beyond.any() and not last:
            waiting = users[beyond]
            theirs = pa.array(np.isin(events.column("user_id").to_numpy(), waiting))
            self._late.append(_Late(waiting, served[beyond], events.filter(theirs)))
            events = events.filter(pc.invert(theirs))
            users, served, found = users[~beyond], served[~beyond], found[~beyond]
            beyond = beyond[~beyond]
        expected = fold_to_positions(
            self._folder, users, events, served=served, found=found, marks=self._marks
        )
        compared = compare_memories(
            expected.records,
            served,
            found,
            ahead=beyond,
            behind=expected.behind,
            forgotten=np.isin(users, self._forgotten),
            tolerance=self._tolerance,
        )
        self._tally.events += expected.events
        self._tally.repeated += expected.repeated
        self._tally.add(users, compared.verdicts, compared.differences, header_view(served))

    def result(self) -> GenerationAudit:
        """Step 5, and everything that was counted."""
        tally, generation = self._tally, self._generation
        marks = self._store.generations.markers(generation.number)
        unpassed = sum(
            max(
                0,
                last
                - marks.get(epoch.number, {}).get(partition, epoch.first_offsets[partition] - 1),
            )
            for epoch in self._epochs
            if epoch.kind == "topic"
            for partition, last in self._tail.end(epoch).items()
        )
        return GenerationAudit(
            number=generation.number,
            state=str(generation.state),
            bundle=generation.bundle_name,
            first_day=str(self._snapshot.manifest["first_day"]),
            users=tally.users,
            events=tally.events,
            unpassed=unpassed,
            repeated=tally.repeated,
            losses=tuple((epoch.number, *loss) for epoch in self._epochs for loss in epoch.losses),
            counts=tally.counts,
            largest_difference=tally.largest,
            tolerance=self._tolerance,
            through_feast=self._reader.through_feast,
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


def _beyond(
    served: Records,
    found: NDArray[np.bool_],
    epochs: Sequence[Epoch],
    tail: LogTail,
    marks: Marks,
) -> NDArray[np.bool_]:
    """Memories whose position log and tail do not have yet, but the stream has passed."""
    header = header_view(served)
    position = (header["epoch"], header["partition"], header["offset"])
    passed = {epoch.number: marks.get(epoch.number, {}) for epoch in epochs}
    there = {epoch.number: tail.end(epoch) for epoch in epochs}
    return found & at_or_before(*position, passed) & ~at_or_before(*position, there)
