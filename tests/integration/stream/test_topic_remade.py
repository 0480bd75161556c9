"""A topic that is deleted and made again under a running stream: its events are left alone."""

import pytest
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from uic.jobs.stream.fold.source import guard_of
from uic.jobs.stream.run.planner import Planner, RunOptions
from uic.jobs.stream.topics.kafka_server import KafkaServer
from uic.jobs.stream.topics.topic_guard import TopicChangedError

pytestmark = [pytest.mark.timeout(1200), pytest.mark.kafka]


def _remake(kafka: KafkaServer, topic: str, partitions: int) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.brokers})
    admin.delete_topics([topic])[topic].result(30)
    kafka.create_topic(topic, partitions)


def test_the_guard_knows_another_topic_of_the_same_name(trial, kafka: KafkaServer):
    kafka.create_topic("guarded", 2)
    planner = Planner(trial(brokers=kafka.brokers, topic="guarded"), RunOptions())
    guard = guard_of(planner.plan(1, 1)[0])
    guard.confirm()
    _remake(kafka, "guarded", 2)
    with pytest.raises(TopicChangedError, match="topic guarded was made anew under the running"):
        guard.confirm()


def test_the_guard_knows_a_topic_that_is_gone_or_keeps_other_times(trial, kafka: KafkaServer):
    kafka.create_topic("leaves", 1)
    planner = Planner(trial(brokers=kafka.brokers, topic="leaves"), RunOptions())
    guard = guard_of(planner.plan(1, 1)[0])
    admin = AdminClient({"bootstrap.servers": kafka.brokers})
    entry = ConfigEntry(
        "message.timestamp.type", "CreateTime", incremental_operation=AlterConfigOpType.SET
    )
    times = ConfigResource(ResourceType.TOPIC, "leaves", incremental_configs=[entry])
    admin.incremental_alter_configs([times])[times].result(30)
    with pytest.raises(TopicChangedError, match="keeps its producers' times"):
        guard.confirm()
    admin.delete_topics(["leaves"])["leaves"].result(30)
    with pytest.raises(TopicChangedError, match="there is no topic 'leaves' any more"):
        guard.confirm()
