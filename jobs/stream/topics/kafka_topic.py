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
    AdminClient,
    ConfigResource,
    ResourceType,
)

from uic.models.errors import BadInputError, UicError
from uic.pipelines.log.epochs import Epoch

Setting = str | int | float | bool
"""A value of a client's setting."""
NO_SETTINGS: Final[Mapping[str, Setting]] = {}

PRODUCER_BYTES: Final = 1_048_576
"""Largest request of a producer that sets no `max.request.size`, as Flink's sink."""
_TIMEOUT_SECONDS: Final = 6.0
_POLL_SECONDS: Final = 0.1
_NO_LEADER_YET: Final = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
)


class NoBrokerError(UicError):
    """No Kafka broker answers."""

    passing = True


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


def quiet(brokers: str, settings: Mapping[str, Setting] = NO_SETTINGS) -> dict[str, Setting]:
    """Client settings that keep librdkafka's own log off standard error."""
    return {"bootstrap.servers": brokers, "log_level": 0, **settings}


def describe_topic(brokers: str, name: str) -> Topic:
    """Ask the broker about a topic.

    Raises:
        NoBrokerError: none answers.
        NoTopicError: there is no such topic.
    """
    admin = AdminClient(quiet(brokers))
    try:
        metadata = admin.list_topics(timeout=_TIMEOUT_SECONDS)
    except KafkaException as error:
        msg = (
            f"{brokers}: no Kafka broker answers ({error.args[0].str()}); start one "
            "(`uic events broker`) or set stream.brokers"
        )
        raise NoBrokerError(msg) from error
    if name not in metadata.topics:
        others = ", ".join(sorted(topic for topic in metadata.topics if not topic.startswith("_")))
        msg = f"{brokers}: no topic {name!r}; there is {others or 'none'}; set stream.topic"
        raise NoTopicError(msg)
    asked = admin.describe_topics(TopicCollection([name]), request_timeout=_TIMEOUT_SECONDS)
    description = answer(asked[name], brokers, name)
    resource = ConfigResource(ResourceType.TOPIC, name)
    settings = admin.describe_configs([resource], request_timeout=_TIMEOUT_SECONDS)[resource]
    consumer = Consumer(quiet(brokers, {"group.id": "uic-look", "enable.auto.commit": False}))
    try:
        marks = {
            partition: _watermarks(consumer, name, partition, brokers)
            for partition in sorted(metadata.topics[name].partitions)
        }
    finally:
        consumer.close()
    return Topic(
        name=name,
        topic_id=url_safe(description.topic_id),
        first={partition: low for partition, (low, _) in marks.items()},
        end={partition: high for partition, (_, high) in marks.items()},
        log_append_time=appends_time(answer(settings, brokers, name)),
    )


def url_safe(topic_id: Any) -> str:
    """As Kafka's own tools print it, in URL-safe base64: it becomes part of a file's name."""
    return str(topic_id).replace("+", "-").replace("/", "_")


def appends_time(settings: Mapping[str, Any]) -> bool:
    """Whether a topic of these settings has the broker's times."""
    return bool(settings["message.timestamp.type"].value == "LogAppendTime")


def answer(
    asked: "Future[Any]", brokers: str, topic: str, timeout_seconds: float = 2 * _TIMEOUT_SECONDS
) -> Any:
    """What the broker says to a question about a topic.

    Raises:
        NoTopicError: there is none of this name.
        NoBrokerError: no answer in time, or one that it cannot answer now.
    """
    try:
        return asked.result(timeout_seconds)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            msg = f"{brokers}: there is no topic {topic!r} any more; set stream.topic"
            raise NoTopicError(msg) from error
        msg = f"{brokers}: no Kafka broker answers ({error.args[0].str()})"
        raise NoBrokerError(msg) from error
    except TimeoutError as error:
        msg = f"{brokers}: no Kafka broker answers within {timeout_seconds:.0f} s"
        raise NoBrokerError(msg) from error


def largest_message(brokers: str, topic: str) -> int:
    """Bytes of the largest message that a topic takes; Kafka's default if there is no such topic.

    Raises:
        NoBrokerError: none answers.
    """
    resource = ConfigResource(ResourceType.TOPIC, topic)
    try:
        admin = AdminClient(quiet(brokers))
        found = admin.describe_configs([resource])[resource].result(_TIMEOUT_SECONDS)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return PRODUCER_BYTES
        msg = f"{brokers}: no Kafka broker answers ({error.args[0].str()})"
        raise NoBrokerError(msg) from error
    return int(found["max.message.bytes"].value)


def partitions_of(brokers: str, topic: str) -> int:
    """How many partitions a topic has now.

    Raises:
        NoBrokerError: none answers.
    """
    try:
        found = AdminClient(quiet(brokers)).list_topics(topic, timeout=_TIMEOUT_SECONDS)
    except KafkaException as error:
        msg = f"{brokers}: no Kafka broker answers ({error.args[0].str()})"
        raise NoBrokerError(msg) from error
    return len(found.topics[topic].partitions)


def end_offsets(brokers: str, topic: str, partitions: int) -> dict[int, int]:
    """Offset that the next event of each partition will get; for the lag."""
    consumer = Consumer(quiet(brokers, {"group.id": "uic-look", "enable.auto.commit": False}))
    try:
        return {
            partition: _watermarks(consumer, topic, partition, brokers)[1]
            for partition in range(partitions)
        }
    finally:
        consumer.close()


def _watermarks(consumer: Consumer, topic: str, partition: int, brokers: str) -> tuple[int, int]:
    """First and next offset; a partition that has just been made may still wait for its leader.

    Raises:
        NoBrokerError: no answer in time.
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
            msg = f"{brokers}: no Kafka broker answers ({error.args[0].str()})"
            raise NoBrokerError(msg) from error
        return marks
