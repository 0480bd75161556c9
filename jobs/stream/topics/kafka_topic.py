"""What the broker knows of a topic: its identity, partitions, and which offsets are still there."""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined] # two miss in its __all__
    ConfigResource,
    ResourceType,
)

from uic.jobs.stream.topics.brokers import Brokers, Setting
from uic.jobs.stream.topics.kafka_link import Link
from uic.models.errors import BadInputError
from uic.pipelines.log.epochs import Epoch

PRODUCER_BYTES: Final = 1_048_576
"""Largest request of a producer that sets no `max.request.size`, as Flink's sink."""
_TIMEOUT_SECONDS: Final = 6.0
_POLL_SECONDS: Final = 0.1
_LOOK: Final[dict[str, Setting]] = {"group.id": "uic-look", "enable.auto.commit": False}
_NO_LEADER_YET: Final = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
)


class TopicError(BadInputError):
    """A topic is missing, or has not what was expected of it."""


class NoTopicError(TopicError):
    """There is no topic of this name."""


@dataclass(frozen=True)
class Topic:
    """One incarnation of a topic.

    Args:
        name: of the topic.
        topic_id: Kafka's id; a topic that was deleted and made again has another.
        first: by partition, smallest offset that is still there.
        end: by partition, offset that the next event will get.
        log_append_time: whether the broker stamps records itself.
    """

    name: str
    topic_id: str
    first: Mapping[int, int]
    end: Mapping[int, int]
    log_append_time: bool

    @property
    def partitions(self) -> int:
        """Number of partitions."""
        return len(self.first)

    @property
    def epoch_name(self) -> str:
        """What its epoch is called in the log."""
        return f"{self.name}.{self.topic_id}"

    def epoch_in(self, epochs: Sequence[Epoch]) -> Epoch | None:
        """The epoch of this incarnation of the topic; None if it was never streamed."""
        name = self.epoch_name
        return next((e for e in epochs if e.kind == "topic" and e.name == name), None)

    def epoch_before(self, epochs: Sequence[Epoch]) -> Epoch | None:
        """The last epoch of another topic of this name; None if there is none."""
        return next(
            (
                epoch
                for epoch in reversed(epochs)
                if epoch.kind == "topic"
                and epoch.name.rpartition(".")[0] == self.name
                and epoch.name != self.epoch_name
            ),
            None,
        )


def describe_topic(brokers: Brokers, name: str) -> Topic:
    """Ask the broker about a topic.

    Raises:
        NoBrokerError: none answers.
        BrokerAccessError: it does not let us in.
        NoTopicError: there is no such topic.
    """
    link = Link(brokers)
    admin = link.admin()
    try:
        metadata = admin.list_topics(timeout=_TIMEOUT_SECONDS)
    except KafkaException as error:
        raise link.failed(error) from error
    if name not in metadata.topics:
        others = ", ".join(sorted(topic for topic in metadata.topics if not topic.startswith("_")))
        hidden = ", or let this user DESCRIBE it" if brokers.security.logs_in else ""
        msg = f"{brokers}: no topic {name!r}; there is {others or 'none'}; set stream.topic{hidden}"
        raise NoTopicError(msg)
    asked = admin.describe_topics(TopicCollection([name]), request_timeout=_TIMEOUT_SECONDS)
    description = answer(asked[name], link, brokers, name)
    resource = ConfigResource(ResourceType.TOPIC, name)
    settings = admin.describe_configs([resource], request_timeout=_TIMEOUT_SECONDS)[resource]
    looking = Link(brokers)
    consumer = looking.consumer(_LOOK)
    try:
        marks = {
            partition: _watermarks(looking, consumer, name, partition)
            for partition in sorted(metadata.topics[name].partitions)
        }
    finally:
        consumer.close()
    return Topic(
        name=name,
        topic_id=url_safe(description.topic_id),
        first={partition: low for partition, (low, _) in marks.items()},
        end={partition: high for partition, (_, high) in marks.items()},
        log_append_time=appends_time(answer(settings, link, brokers, name)),
    )


def url_safe(topic_id: Any) -> str:
    """As Kafka's own tools print it, in URL-safe base64: it becomes part of a file's name."""
    return str(topic_id).replace("+", "-").replace("/", "_")


def appends_time(settings: Mapping[str, Any]) -> bool:
    """Whether a topic of these settings has the broker's times."""
    return bool(settings["message.timestamp.type"].value == "LogAppendTime")


def answer(
    asked: "Future[Any]",
    link: Link,
    brokers: Brokers,
    topic: str,
    timeout_seconds: float = 2 * _TIMEOUT_SECONDS,
) -> Any:
    """What the broker says to a question about a topic that a client of `link` asked.

    Raises:
        NoTopicError: there is none of this name.
        NoBrokerError: no answer in time, or one that it cannot answer now.
        BrokerAccessError: the broker does not let us in, or not do this.
    """
    try:
        return asked.result(timeout_seconds)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            msg = f"{brokers}: there is no topic {topic!r} any more; set stream.topic"
            raise NoTopicError(msg) from error
        raise link.failed(error) from error
    except TimeoutError as error:
        reason = f"nothing within {timeout_seconds:.0f} s"
        raise link.error(reason) from error


def largest_message(brokers: Brokers, topic: str) -> int:
    """Bytes of the largest message that a topic takes; Kafka's default if there is no such topic.

    Raises:
        NoBrokerError: none answers.
        BrokerAccessError: the broker does not let us in, or not do this.
    """
    resource = ConfigResource(ResourceType.TOPIC, topic)
    link = Link(brokers)
    asked = link.admin().describe_configs([resource], request_timeout=_TIMEOUT_SECONDS)
    try:
        found = asked[resource].result(2 * _TIMEOUT_SECONDS)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return PRODUCER_BYTES
        raise link.failed(error) from error
    return int(found["max.message.bytes"].value)


def end_offsets(brokers: Brokers, topic: str, partitions: int) -> dict[int, int]:
    """Offset that the next event of each partition will get; for the lag.

    Raises:
        NoBrokerError: none answers.
        BrokerAccessError: the broker does not let us in.
    """
    link = Link(brokers)
    consumer = link.consumer(_LOOK)
    try:
        return {
            partition: _watermarks(link, consumer, topic, partition)[1]
            for partition in range(partitions)
        }
    finally:
        consumer.close()


def _watermarks(link: Link, consumer: Consumer, topic: str, partition: int) -> tuple[int, int]:
    """First and next offset; a partition that has just been made may still wait for its leader.

    Raises:
        NoBrokerError: no answer in time.
        BrokerAccessError: the broker does not let us in, or not do this.
    """
    until = time.monotonic() + _TIMEOUT_SECONDS
    while True:
        try:
            marks: tuple[int, int] = consumer.get_watermark_offsets(
                TopicPartition(topic, partition), timeout=_TIMEOUT_SECONDS
            )
        except KafkaException as error:
            if error.args[0].code() in _NO_LEADER_YET and time.monotonic() < until:
                time.sleep(_POLL_SECONDS)
                continue
            raise link.failed(error) from error
        return marks
