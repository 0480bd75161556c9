"""From settings and the store to the plan of the next attempt.

Every attempt is planned afresh: the store's markers, the archive and the source may have moved
since the one before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from uic.feature_repo.snapshots.published_values import CURRENT
from uic.feature_repo.snapshots.snapshots import Snapshot
from uic.feature_repo.store.claim import StoreClaim
from uic.feature_repo.store.connection import connect, refuse_eviction, resolve_address
from uic.feature_repo.store.generation import Generation
from uic.feature_repo.store.generations import Generations
from uic.feature_repo.store.later_snapshot import notice_load
from uic.feature_repo.store.layout import ViewKeys
from uic.feature_repo.store.packed import PackedStore
from uic.feature_repo.store.tombstones import Tombstones
from uic.jobs.config.context import Context
from uic.jobs.config.stream import StreamSettings
from uic.jobs.stream.fold.fitness import check_fit, event_columns_of
from uic.jobs.stream.fold.noted import note_declared, noted_as_read
from uic.jobs.stream.fold.plan import JobPlan
from uic.jobs.stream.fold.status import clear_workers
from uic.jobs.stream.letters.archive import archived_up_to, note_first_starts
from uic.jobs.stream.run.checkpoints import JOB_NAME, check_checkpoint
from uic.jobs.stream.run.metrics_relay import metrics_port
from uic.jobs.stream.run.run_source import RunSource
from uic.jobs.stream.run.start_positions import (
    Start,
    check_epochs_after,
    check_epochs_before,
    choose_starts,
    folder_name,
)
from uic.jobs.stream.run.topic_watch import reached
from uic.jobs.stream.topics.brokers import brokers_of
from uic.jobs.stream.topics.event_files import EventFile, stage_file
from uic.jobs.stream.topics.java import jars_root
from uic.jobs.stream.topics.kafka_server import free_port
from uic.jobs.stream.topics.kafka_topic import (
    PRODUCER_BYTES,
    largest_message,
)
from uic.models.published import MANIFEST_NAME, write_json_atomically
from uic.pipelines.log.event_log import Epoch, EventLog

STAGED: Final = "staged"


@dataclass(frozen=True)
class RunOptions:
    """What the command line says about a run.

    Args:
        generation: to fold; None for the live one.
        bundle: directory; None for the generation's own, in the workspace.
        until_end: stop at the end that the source has when the run starts.
        accept_loss: go on where retention has eaten the start position.
        new_epoch: take a topic that was made anew as a new epoch.
        restore_from: checkpoint or savepoint to resume from.
        position_check: off only in the crash drill's negative control.
    """

    generation: int | None = None
    bundle: Path | None = None
    until_end: bool = False
    accept_loss: bool = False
    new_epoch: bool = False
    restore_from: Path | None = None
    position_check: bool = True


@dataclass
class Planner:
    """Plans the attempts of one run.

    Args:
        context: workspace and configuration; `stream` in it is what the run uses.
        options: of the command line.
    """

    context: Context
    options: RunOptions
    _ends: dict[int, int] | None = None

    def __post_init__(self) -> None:
        """Find the store; nothing is asked of it yet."""
        self.address = resolve_address(self.context.config.store, self.context.workspace)
        self.client = connect(self.address)
        self.keys = ViewKeys.of_memories(self.context.config.store.project)
        self.generations = Generations(self.client, self.keys, str(self.address))
        store, workspace = self.context.config.store, self.context.workspace
        self.claim = StoreClaim(self.client, store, workspace, str(self.address))
        self._source = RunSource(self.context, new_epoch=self.options.new_epoch)

    @property
    def stream(self) -> StreamSettings:
        """The section `stream`."""
        return self.context.config.stream

    @property
    def folder(self) -> Path:
        """Everything that streams leave behind."""
        return self.context.workspace / "stream"

    @property
    def event_folder(self) -> Path:
        """Where event files come from."""
        return self._source.event_folder

    def generation(self) -> Generation:
        """The generation of this run.

        Raises:
            StoreError: none is live, or there is no such generation.
        """
        number = self.options.generation
        return self.generations.get(self.generations.live() if number is None else number)

    def plan(self, generation: int, attempt: int) -> tuple[JobPlan, list[Start]]:
        """The plan of an attempt, and where it starts and why.

        Raises:
            UicError: whatever speaks against starting, in one line.
        """
        refuse_eviction(self.client, self.address)
        # A store without a claim gets this workspace's only if the epochs are those of its log.
        self.claim.refuse_other()
        found, marks = self.generations.get(generation), self.generations.markers(generation)
        epoch, available = self._source.find(found, marks)
        self.claim.hold()
        self.generations.note_epochs(generation, self._source.names())
        Tombstones(self.context.workspace).tell(self.generations)
        memories = PackedStore(self.client, self.keys, address=str(self.address))
        current = self.context.memories / CURRENT
        if (current / MANIFEST_NAME).exists():
            snapshot = Snapshot.open(current.resolve())
            if snapshot.generation == generation:
                described = snapshot.as_generation()
                notice_load(described, snapshot.batches(), memories, self.generations)
        found = self.generations.get(generation)
        path = self.options.bundle or self.context.bundles / found.bundle_name
        check_fit(found, path)
        read = event_columns_of(path)
        epoch = note_declared(self.context, epoch, read)
        marks = self.generations.markers(generation)
        epochs = EventLog(self.context.log).epochs()
        check_epochs_before(found, marks, epochs, epoch)
        # Only a later epoch makes it worth to read the header of every memory.
        if max([*marks, *(known.number for known in epochs)], default=0) > epoch.number:
            check_epochs_after(found, epochs, epoch, memories.count_by_epoch(generation))
        archive = self.folder / "archive"
        archived = (
            archived_up_to(archive, epoch.number, epoch.partitions) if self.stream.archive else {}
        )
        starts = choose_starts(
            found,
            marks,
            epoch,
            available,
            archived,
            accept_loss=self.options.accept_loss,
            reached=reached(
                self.folder / folder_name(generation), epoch, marks.get(epoch.number, {})
            ),
        )
        losses = [(start.partition, *start.lost) for start in starts if start.lost]
        if losses:
            EventLog(self.context.log).note_losses(epoch.number, losses)
        offsets = {start.partition: start.offset for start in starts}
        if self.stream.archive:
            note_first_starts(archive, epoch.number, offsets)
        if self._ends is None:
            self._ends = dict(available.end)
        run_folder = self.folder / folder_name(generation) / f"attempt={attempt:04d}"
        (run_folder / STAGED).mkdir(parents=True, exist_ok=True)
        clear_workers(self.client, self.keys.project, generation, str(self.address))
        store = self.context.config.store
        return JobPlan(
            generation=generation,
            bundle=path.resolve(),
            project=store.project,
            address=str(self.address),
            store=store.model_copy(update={"password": None}),
            keys_per_script=store.keys_per_script,
            keys_per_read=store.keys_per_read,
            epoch=epoch.number,
            columns=noted_as_read(epoch, read),
            starts=offsets,
            topic_id=epoch.name.rpartition(".")[2] if self.stream.source == "kafka" else None,
            start_markers={start.partition: start.marker for start in starts},
            ends=self._ends,
            until_end=self.options.until_end,
            source=self.stream.source,
            staged_files=run_folder / STAGED,
            archive_folder=archive,
            dead_letter_folder=self.folder / "dead-letters",
            letter_bytes=self._letter_bytes(),
            checkpoint_folder=self._checkpoints(generation, epoch),
            run_folder=run_folder,
            rest_port=free_port(),
            metrics_port=metrics_port(self.stream),
            restore_from=self.options.restore_from if attempt == 1 else None,
            exclude=dict(found.exclude),
            time_zone=self.context.config.time_zone,
            log=self.context.config.log,
            sale=self.context.config.sale,
            stream=self.stream.model_copy(update={"jars_folder": self._jars()}),
            position_check=self.options.position_check,
        ), starts

    def _letter_bytes(self) -> int | None:
        topic = self.stream.dead_letter_topic
        if topic is None:
            return None
        taken = min(largest_message(brokers_of(self.stream), topic), PRODUCER_BYTES)
        # Base64 makes four bytes of three; the other columns of a letter take less than 1 KB.
        return max(0, taken - 1024) * 3 // 4

    def _jars(self) -> Path:
        return jars_root(self.stream.jars_folder, self.context.workspace).resolve()

    def files(self) -> dict[int, list[EventFile]]:
        """The event files by partition; each is read through once in the life of the run."""
        return self._source.files()

    def file_epoch(self, epochs: Sequence[Epoch]) -> Epoch | None:
        """The epoch of the event files; None if they were never streamed."""
        return self._source.file_epoch(epochs)

    def stage(self, plan: JobPlan) -> None:
        """Give a job on files one file a partition, from the one that holds its start."""
        for partition, files in self.files().items():
            end = plan.ends.get(partition, 0) if plan.until_end else None
            todo = [
                file
                for file in files
                if file.last >= plan.starts[partition] and (end is None or file.first < end)
            ]
            # A job that watches gets all up to the marker's as one, then one after the other.
            following = max(plan.starts[partition], plan.start_markers[partition] + 1)
            chosen = [file for file in todo if plan.until_end or file.first <= following]
            if chosen:
                stage_file(staged_path(plan, chosen[-1]), chosen)

    def _checkpoints(self, generation: int, epoch: Epoch) -> Path:
        """Where checkpoints go; beside them stands which job they are of.

        Raises:
            CheckpointError: the one to resume from is of another job, or is none.
        """
        folder = self.stream.checkpoint_folder or self.folder / "checkpoints"
        folder = folder / folder_name(generation)
        job = {"project": self.keys.project, "generation": generation, "epoch": epoch.number}
        restored = self.options.restore_from
        if restored is not None:
            check_checkpoint(restored, job)
        write_json_atomically(folder / JOB_NAME, job)
        return folder / "checkpoints"


def staged_path(plan: JobPlan, file: EventFile) -> Path:
    """Where the job finds a staged file; the name tells how far it goes."""
    return plan.staged_files / f"partition={file.partition}-to-{file.last}.jsonl.gz"
