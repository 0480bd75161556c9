"""Reads what a topic holds, without Flink: for dead letters and for the drill."""

import time
from collections.abc import Iterator
from typing import Final

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, KafkaError, Message, TopicPartition

from uic.jobs.stream.topics.brokers import Brokers, Setting
from uic.jobs.stream.topics.event_files import LoggedPayload
from uic.jobs.stream.topics.kafka_link import Link
from uic.jobs.stream.topics.kafka_topic import describe_topic
from uic.models.errors import UicError

SILENCE_SECONDS: Final = 30.0
_WAIT_SECONDS: Final = 0.5
_BATCH: Final = 5000
_SETTINGS: Final[dict[str, Setting]] = {
    "group.id": "uic-read",
    "enable.auto.commit": False,
    # The end of a partition is an event of its own: offsets may have gaps up to it.
    "enable.partition.eof": True,
}


class TopicReadError(UicError):
    """The broker stopped answering, or answered with an error, before the end of a topic."""


def read_topic(
    brokers: Brokers, name: str, silence_seconds: float = SILENCE_SECONDS
) -> Iterator[LoggedPayload]:
    """Everything that is in a topic when reading begins, partition after partition.

    Args:
        brokers: where Kafka is and how to get in.
        name: of the topic.
        silence_seconds: how long the broker may say nothing.

    Raises:
        NoBrokerError: none answers at the start.
        BrokerAccessError: the broker does not let us in.
        TopicError: there is no such topic.
        TopicReadError: the broker went away, or an event has an error, no place or no time.
    """
    topic = describe_topic(brokers, name)
    consumer = Link(brokers).consumer(_SETTINGS)
    try:
        for partition, end in topic.end.items():
            following = topic.first[partition]
            consumer.assign([TopicPartition(name, partition, following)])
            heard = time.monotonic()
            while following < end:
                # A call waits for a whole batch: at the end of a partition, for all of its timeout.
                messages = consumer.consume(_BATCH, timeout=min(_WAIT_SECONDS, silence_seconds))
                if not messages and time.monotonic() - heard < silence_seconds:
                    continue
                heard = time.monotonic()
                where = f"{brokers}: topic {name}, partition {partition}, offset {following}"
                if not messages:
                    msg = (
                        f"{where}: no answer for {silence_seconds:g} s, events up to {end} "
                        "expected; is the broker still there?"
                    )
                    raise TopicReadError(msg)
                for message in messages:
                    payload = _payload(message, where)
                    if payload is None:
                        following = end
                        break
                    yield payload
                    following = payload.offset + 1
    finally:
        consumer.close()


def _payload(message: Message, where: str) -> LoggedPayload | None:
    """One event; None at the end of the partition."""
    error = message.error()
    if error is not None and error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - public
        return None
    partition, offset = message.partition(), message.offset()
    if error is not None or partition is None or offset is None:
        msg = f"{where}: {'an event without a place' if error is None else error.str()}"
        raise TopicReadError(msg)
    kind, when = message.timestamp()
    if kind == TIMESTAMP_NOT_AVAILABLE:
        msg = f"{where}: an event without a time; set message.timestamp.type=LogAppendTime"
        raise TopicReadError(msg)
    return LoggedPayload(message.value(), partition, offset, when)
