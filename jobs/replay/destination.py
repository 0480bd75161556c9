"""Where a replayed day's events go: event files, or a Kafka topic; the stream reads the same."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final, Protocol

from uic.jobs.config.context import Context
from uic.jobs.replay.hold_back import ReplayError
from uic.jobs.stream.topics.brokers import Brokers, brokers_of
from uic.jobs.stream.topics.event_files import scan_folder
from uic.jobs.stream.topics.produce import Outgoing, Pace, send_to_kafka, write_files

FILES: Final = "files"
KAFKA: Final = "kafka"


class Destination(Protocol):
    """A log that a stream follows."""

    def epoch_name(self) -> str:
        """Name of the epoch that the stream registers for it."""
        ...

    def ends(self) -> dict[int, int]:
        """By partition, the offset that the next event will get."""
        ...

    def send(self, batches: Iterable[Outgoing]) -> int:
        """Append events; how many."""
        ...


class EventFiles:
    """gzip JSON lines, one more file of each partition at every `send`.

    Args:
        folder: of the files.
        partitions: of the log.
    """

    def __init__(self, folder: Path, partitions: int) -> None:
        self.folder = folder
        self.partitions = partitions

    def __str__(self) -> str:
        """For messages."""
        return str(self.folder)

    def epoch_name(self) -> str:
        """See `Destination`."""
        return f"files.{self.folder.resolve().name}"

    def ends(self) -> dict[int, int]:
        """See `Destination`."""
        if not self.folder.is_dir():
            return {}
        return {at: files[-1].last + 1 for at, files in scan_folder(self.folder).items()}

    def send(self, batches: Iterable[Outgoing]) -> int:
        """See `Destination`."""
        return write_files(batches, self.folder, self.partitions)


class KafkaTopic:
    """A topic; its broker stamps events with the time of now, whatever day they are of.

    Args:
        brokers: where Kafka is and how to get in.
        topic: its name.

    Raises:
        NoBrokerError: none answers.
        BrokerAccessError: the broker does not let us in.
        TopicError: no such topic.
    """

    def __init__(self, brokers: Brokers, topic: str) -> None:
        from uic.jobs.stream.topics.kafka_topic import describe_topic  # noqa: PLC0415 - loads Kafka's client

        self._brokers, self._topic = brokers, topic
        self._found = describe_topic(brokers, topic)

    def __str__(self) -> str:
        """For messages."""
        return f"topic {self._topic} at {self._brokers}"

    def epoch_name(self) -> str:
        """See `Destination`."""
        return f"{self._topic}.{self._found.topic_id}"

    def ends(self) -> dict[int, int]:
        """See `Destination`."""
        from uic.jobs.stream.topics.kafka_topic import end_offsets  # noqa: PLC0415

        return end_offsets(self._brokers, self._topic, self._found.partitions)

    def send(self, batches: Iterable[Outgoing]) -> int:
        """See `Destination`."""
        return send_to_kafka(batches, self._brokers, self._topic, Pace())


def destination_of(context: Context, kind: str) -> Destination:
    """The destination that the section `stream` names.

    Args:
        context: workspace and configuration.
        kind: `files` or `kafka`.

    Raises:
        ReplayError: another kind.
        UicError: no broker, or no such topic.
    """
    stream = context.config.stream
    if kind == FILES:
        return EventFiles(
            stream.files or context.workspace / "events", context.config.log.partitions
        )
    if kind == KAFKA:
        return KafkaTopic(brokers_of(stream), stream.topic)
    msg = f"--to {kind}: expected {FILES} or {KAFKA}"
    raise ReplayError(msg)
