"""A topic that is deleted and made again under a running stream: its events are left alone."""

import threading
import time
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from uic.feature_repo.store.packed import PackedStore
from uic.jobs.drills.log import batch_fold
from uic.jobs.stream.fold.source import guard_of
from uic.jobs.stream.letters.compact import compact
from uic.jobs.stream.letters.topic_reader import read_topic
from uic.jobs.stream.run.planner import Planner, RunOptions
from uic.jobs.stream.run.supervisor import Supervisor
from uic.jobs.stream.topics.brokers import Brokers
from uic.jobs.stream.topics.kafka_server import KafkaServer
from uic.jobs.stream.topics.kafka_topic import TopicError
from uic.jobs.stream.topics.produce import Outgoing, Pace, payload_of, send_to_kafka
from uic.jobs.stream.topics.topic_guard import TopicChangedError
from uic.models.bundles.bundle import load_bundle
from uic.models.memory.fold import MemoryFolder

pytestmark = [pytest.mark.timeout(1200), pytest.mark.kafka]

USERS = 30


def _send(kafka: KafkaServer, topic: str, count: int) -> None:
    now_ms = int(time.time() * 1000)
    at = np.arange(count)
    payloads = [payload_of(item % USERS, item, item % 10, "click", now_ms) for item in at.tolist()]
    send_to_kafka([Outgoing(payloads, at % USERS, at)], Brokers(kafka.brokers), topic, Pace())


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


def _marks(planner: Planner, epoch: int) -> dict[int, int]:
    return planner.generations.markers(1).get(epoch, {})


def test_an_event_of_the_new_topic_is_neither_folded_nor_skipped(trial, kafka: KafkaServer):
    kafka.create_topic("remade", 2)
    _send(kafka, "remade", 3000)
    context = trial(
        brokers=kafka.brokers,
        topic="remade",
        parallelism=1,
        checkpoint_seconds=1.0,
        archive_roll_seconds=1.0,
        backoff_seconds=0.1,
    )
    planner, said, errors = Planner(context, RunOptions()), [], []

    def supervise():
        try:
            Supervisor(planner, said.append).run()
        except TopicError as error:
            errors.append(str(error))

    running = threading.Thread(target=supervise)
    running.start()
    until = time.monotonic() + 240
    while sum(_marks(planner, 1).values()) < 2998 and time.monotonic() < until:
        time.sleep(0.2)
    old_events = list(read_topic(Brokers(kafka.brokers), "remade"))
    time.sleep(4)  # a checkpoint, so that the archive has them
    _remake(kafka, "remade", 2)
    _send(kafka, "remade", 9000)
    running.join(120)
    assert not running.is_alive()
    assert sum(_marks(planner, 1).values()) == 2998  # 3,000 events, the last at 1,499 or so each
    assert "made anew since epoch 1" in errors[0]
    assert "--new-epoch" in errors[0]

    # With consent the new topic is read from its beginning.
    again = Planner(context, RunOptions(new_epoch=True, until_end=True))
    Supervisor(again, said.append).run()
    assert sum(_marks(again, 2).values()) == 8998
    folder = MemoryFolder(load_bundle(context.bundles / "mimn" / "untrained"), 1)
    limits = context.config.log
    before = batch_fold(iter(old_events), folder, limits, 1).memories
    new_events = read_topic(Brokers(kafka.brokers), "remade")
    expected = batch_fold(new_events, folder, limits, 2, before).memories
    users = np.arange(USERS)
    records, found = PackedStore(again.client, again.keys).read(1, users, folder.record_bytes)
    assert found.all()
    assert [bytes(records[user]) for user in users] == [bytes(expected[user]) for user in users]

    # The archive has each event once, in the epoch that it was sent in.
    made = compact(context, datetime.now(UTC).date() + timedelta(days=1))
    assert {one.epoch: one.publication.behaviors for one in made} == {1: 3000, 2: 9000}
