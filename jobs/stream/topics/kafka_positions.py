"""Where the events of a partition go on, which is not the offset after the last one.

A transactional topic has offsets that no reader gets: each commit and each abort takes one, and so
do the events of an aborted transaction. "Last event + 1" then never reaches the end of a quiet
partition. Only a read can tell, one fetch a partition.
"""

import time
from collections.abc import Mapping
from typing import Final

# Its __all__ misses a name, as in kafka_topic.
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from uic.jobs.stream.topics.brokers import Brokers, Setting
from uic.jobs.stream.topics.kafka_link import Link

_SECONDS: Final = 20.0
_SETTINGS: Final[dict[str, Setting]] = {
    "group.id": "uic-look",
    "enable.auto.commit": False,
    "enable.partition.eof": True,
    "isolation.level": "read_committed",
    # A position that retention has eaten goes on with the first event that is left.
    "auto.offset.reset": "earliest",
}
_END: Final = KafkaError._PARTITION_EOF  # noqa: SLF001 - librdkafka names its own codes so


def events_ahead(
    brokers: Brokers, topic: str, after: Mapping[int, int], ends: Mapping[int, int], *, gaps: bool
) -> dict[int, int]:
    """By partition, the offset of the next event to fold, or the end if there is none.

    Args:
        brokers: to ask.
        topic: its name.
        after: by partition, the offset after the last event that is folded.
        ends: by partition, the offset that the next event will get.
        gaps: whether offsets may leave out some; only then the topic is read.

    Raises:
        NoBrokerError: no answer in time.
    """
    if not gaps:
        return {partition: min(at, ends[partition]) for partition, at in after.items()}
    behind = {partition: at for partition, at in after.items() if at < ends[partition]}
    ahead = next_events(brokers, topic, behind)
    return {partition: ahead.get(partition, ends[partition]) for partition in after}


def next_events(brokers: Brokers, topic: str, positions: Mapping[int, int]) -> dict[int, int]:
    """By partition, the offset of the first committed event at or after a position.

    Where there is none, it is the end of what is committed.

    Args:
        brokers: to ask.
        topic: its name.
        positions: by partition.

    Raises:
        NoBrokerError: no answer in time.
        BrokerAccessError: the broker does not let us in, or not do this.
    """
    if not positions:
        return {}
    link = Link(brokers)
    consumer = link.consumer(_SETTINGS)
    ahead: dict[int, int] = {}
    try:
        consumer.assign(
            [TopicPartition(topic, partition, at) for partition, at in positions.items()]
        )
        until = time.monotonic() + _SECONDS
        while len(ahead) < len(positions) and time.monotonic() < until:
            message = consumer.poll(0.2)
            if message is None:
                continue
            error = message.error()
            if error is not None and error.code() != _END:
                reason = f"topic {topic} cannot be read: {error.str()}"
                raise link.error(reason, error.code())
            partition, offset = message.partition(), message.offset()
            if partition is not None and offset is not None:
                ahead.setdefault(partition, offset)
    except KafkaException as error:
        raise link.failed(error) from error
    else:
        if len(ahead) < len(positions):
            reason = f"topic {topic}: nothing within {_SECONDS:.0f} s"
            raise link.error(reason)
        return ahead
    finally:
        consumer.close()
