"""Reads what a topic holds, without Flink: for dead letters and for the drill."""

from collections.abc import Iterator

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Consumer, TopicPartition

from uic.jobs.stream.topics.event_files import LoggedPayload
from uic.jobs.stream.topics.kafka_topic import describe_topic, quiet


def read_topic(brokers: str, name: str) -> Iterator[LoggedPayload]:
    """Everything that is in a topic, partition after partition."""
    topic = describe_topic(brokers, name)
    consumer = Consumer(quiet(brokers, **{"group.id": "uic-read", "enable.auto.commit": False}))
    try:
        for partition, end in topic.end.items():
            following = topic.first[partition]
            consumer.assign([TopicPartition(name, partition, following)])
            while following < end:
                for message in consumer.consume(5000, timeout=10):
                    kind, when = message.timestamp()
                    assert kind != TIMESTAMP_NOT_AVAILABLE  # noqa: S101 - the broker stamps all
                    yield LoggedPayload(message.value(), partition, message.offset(), when)
                    following = message.offset() + 1
    finally:
        consumer.close()
