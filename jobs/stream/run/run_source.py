"""What a run reads, a topic or a folder of files, and which epoch of the log that is."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from uic.feature_repo.store.generation import Generation
from uic.jobs.config.context import Context
from uic.jobs.config.stream import StreamSettings
from uic.jobs.stream.run.start_positions import Available, Marks, check_epochs_known
from uic.jobs.stream.topics.brokers import brokers_of
from uic.jobs.stream.topics.event_files import EventFile, scan_folder
from uic.jobs.stream.topics.kafka_topic import Topic, TopicError, describe_topic
from uic.models.errors import BadInputError
from uic.pipelines.log.event_log import EPOCHS_NAME, Epoch, EventLog


@dataclass
class RunSource:
    """The source of one run, asked afresh for each attempt.

    Args:
        context: workspace and configuration.
        new_epoch: take a topic that was made anew as a new epoch.
    """

    context: Context
    new_epoch: bool
    _files: dict[Path, EventFile | None] = field(default_factory=dict)
    _renewed: bool = False

    @property
    def _stream(self) -> StreamSettings:
        return self.context.config.stream

    @property
    def _epochs_path(self) -> Path:
        return self.context.log / EPOCHS_NAME

    @property
    def event_folder(self) -> Path:
        """Where event files come from."""
        return self._stream.files or self.context.workspace / "events"

    def files(self) -> dict[int, list[EventFile]]:
        """The event files by partition; each is read through once in the life of the run."""
        return scan_folder(self.event_folder, self._files)

    def names(self) -> dict[int, str]:
        """What the epochs of the log are called, by number."""
        return {epoch.number: epoch.name for epoch in EventLog(self.context.log).epochs()}

    def find(self, generation: Generation, marks: Marks) -> tuple[Epoch, Available]:
        """The epoch of the source, registered when it is seen first, and what there is of it.

        Args:
            generation: that is to be folded.
            marks: its markers; an epoch is registered only if they are of this log.

        Raises:
            ForeignEpochError: they are of another log's epochs.
            TopicError: the topic is not there, or not as it must be.
            BadInputError: the event files are not.
        """
        folded = (generation, marks)
        return self._of_files(folded) if self._stream.source == "files" else self._of_topic(folded)

    def _of_topic(self, folded: tuple[Generation, Marks]) -> tuple[Epoch, Available]:
        topic = describe_topic(brokers_of(self._stream), self._stream.topic)
        if not topic.log_append_time:
            msg = (
                f"{self._stream.brokers}: topic {topic.name} keeps its producers' times; log time "
                "must be the broker's: set message.timestamp.type=LogAppendTime on the topic"
            )
            raise TopicError(msg)
        epoch = self._topic_epoch(topic, folded)
        if topic.partitions != epoch.partitions:
            few = topic.partitions < epoch.partitions
            msg = (
                f"topic {topic.name} has {topic.partitions} partitions, epoch {epoch.number} of "
                f"{self._epochs_path} has {epoch.partitions}: "
                + ("some are missing" if few else "users have moved between partitions")
                + "; a log with other partitions needs a topic of its own"
            )
            raise TopicError(msg)
        if self._stream.parallelism > topic.partitions:
            msg = (
                f"stream.parallelism: {self._stream.parallelism} subtasks, but topic {topic.name} "
                f"has {topic.partitions} partitions; at most one subtask a partition"
            )
            raise BadInputError(msg)
        return epoch, Available(topic.first, topic.end, f"topic {topic.name}")

    def _topic_epoch(self, topic: Topic, folded: tuple[Generation, Marks]) -> Epoch:
        """The epoch of this incarnation of the topic; registered when it is seen first."""
        log = EventLog(self.context.log)
        epochs = log.epochs()
        known = topic.epoch_in(epochs)
        if known is not None:
            check_epochs_known(*folded, self.names(), self._epochs_path)
            if self._stream.offset_gaps and not known.offset_gaps:
                log.note_offset_gaps(known.number)
            return known
        before = topic.epoch_before(epochs)
        # One word of consent is for one topic: for one that is made anew later it is asked again.
        if before is not None and (self._renewed or not self.new_epoch):
            msg = (
                f"topic {topic.name} was made anew since epoch {before.number}: what was not "
                "folded of the old one is gone; give --new-epoch to go on with the new one"
            )
            raise TopicError(msg)
        self._check_with(topic.epoch_name, folded)
        self._renewed = before is not None
        return log.append_epoch(
            kind="topic",
            name=topic.epoch_name,
            partitions=topic.partitions,
            first_offsets=topic.first,
            offset_gaps=self._stream.offset_gaps,
        )

    def _of_files(self, folded: tuple[Generation, Marks]) -> tuple[Epoch, Available]:
        files = self.files()
        if not files:
            msg = f"{self.event_folder}: no event files; expected *.jsonl.gz"
            raise BadInputError(msg)
        if sorted(files) != list(range(len(files))):
            msg = f"{self.event_folder}: partitions {sorted(files)}, expected 0 to {len(files) - 1}"
            raise BadInputError(msg)
        first = {partition: own[0].first for partition, own in files.items()}
        end = {partition: own[-1].last + 1 for partition, own in files.items()}
        log = EventLog(self.context.log)
        epoch = self.file_epoch(log.epochs())
        if epoch is None:
            name = self._file_epoch_name
            self._check_with(name, folded)
            epoch = log.append_epoch(
                kind="topic",
                name=name,
                partitions=len(files),
                first_offsets=first,
                offset_gaps=False,
            )
        else:
            check_epochs_known(*folded, self.names(), self._epochs_path)
        if epoch.partitions != len(files):
            msg = (
                f"{self.event_folder}: {len(files)} partitions, epoch {epoch.number} of "
                f"{self._epochs_path} has {epoch.partitions}"
            )
            raise BadInputError(msg)
        return epoch, Available(first, end, str(self.event_folder))

    @property
    def _file_epoch_name(self) -> str:
        return f"files.{self.event_folder.resolve().name}"

    def file_epoch(self, epochs: Sequence[Epoch]) -> Epoch | None:
        """The epoch of the event files; None if they were never streamed."""
        name = self._file_epoch_name
        return next((e for e in epochs if e.kind == "topic" and e.name == name), None)

    def _check_with(self, name: str, folded: tuple[Generation, Marks]) -> None:
        """Hold the markers against the log as it would be with one more epoch.

        A log that was put back to before this epoch gets it back by its name.
        """
        names = self.names()
        check_epochs_known(*folded, names | {len(names) + 1: name}, self._epochs_path)
