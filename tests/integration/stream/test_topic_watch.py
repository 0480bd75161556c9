"""Topics that do what a topic is not asked to do: grow, and leave out offsets. Without Flink."""

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions

from uic.jobs.checks.doctor import Level, examine
from uic.jobs.stream.run.planner import Planner, RunOptions
from uic.jobs.stream.run.report import lag_lines, lag_of
from uic.jobs.stream.run.start_positions import StartPositionError, folder_name
from uic.jobs.stream.run.topic_watch import TopicWatch
from uic.jobs.stream.topics.kafka_server import KafkaServer
from uic.jobs.stream.topics.kafka_topic import TopicError

pytestmark = pytest.mark.kafka


def _planned(trial, kafka: KafkaServer, topic: str, **stream):
    context = trial(brokers=kafka.brokers, topic=topic, parallelism=1, **stream)
    planner = Planner(context, RunOptions())
    return planner, planner.plan(1, 1)[0]


def _watch(planner: Planner, plan) -> TopicWatch:
    return TopicWatch(plan, planner.folder / folder_name(plan.generation))


def test_a_topic_that_grows_ends_the_attempt_and_says_so(trial, kafka: KafkaServer):
    kafka.create_topic("grows", 2)
    planner, plan = _planned(trial, kafka, "grows")
    watch = _watch(planner, plan)
    assert watch.look({}, now=True) == ""
    assert [line[:4] for line in lag_lines(planner, plan)] == ["lag "]
    admin = AdminClient({"bootstrap.servers": kafka.brokers})
    admin.create_partitions([NewPartitions("grows", 4)])["grows"].result(30)
    assert watch.look({}).startswith("the topic has 4 partitions, its epoch has 2: users")
    assert list(lag_lines(planner, plan))[1].startswith("partitions  the topic has 4")
    wrong = [found.text for found in examine(planner.context) if found.level is Level.WRONG]
    assert any("topic grows has 4 partitions, epoch 1 has 2" in text for text in wrong)
    # What the supervisor then says, and ends with: it plans the next attempt.
    with pytest.raises(TopicError, match="topic grows has 4 partitions, epoch 1"):
        planner.plan(1, 2)


def _transactions(kafka: KafkaServer, topic: str) -> None:
    """Offsets 0 to 2 and 5 to 7 are events, 3 and 8 their commits, 4 … 12 partly aborted."""
    producer = Producer({"bootstrap.servers": kafka.brokers, "transactional.id": topic})
    producer.init_transactions(30)
    for events, commit in ((3, True), (1, False), (3, True), (1, False)):
        producer.begin_transaction()
        for _ in range(events):
            producer.produce(topic, b"{}", b"1", partition=0)
        if commit:
            producer.commit_transaction(30)
        else:
            producer.flush(30)
            producer.abort_transaction(30)


def test_the_lag_of_a_transactional_topic_ends_and_its_quiet_partition_starts_again(
    trial, kafka: KafkaServer
):
    kafka.create_topic("transactional", 1)
    _transactions(kafka, "transactional")
    planner, plan = _planned(trial, kafka, "transactional", offset_gaps=True)
    assert plan.ends == {0: 12}
    marks = planner.keys.markers(1)
    planner.client.hset(marks, "1:0", 2)
    assert lag_of(planner, plan) == {0: 6}  # the next event is at 6: 3 is a commit, 4 aborted
    planner.client.hset(marks, "1:0", 8)
    assert lag_of(planner, plan) == {0: 0}
    assert _watch(planner, plan).look({0: 8}, now=True) == ""
    admin = AdminClient({"bootstrap.servers": kafka.brokers})
    everything = TopicPartition("transactional", 0, 12)
    admin.delete_records([everything])[everything].result(30)
    assert Planner(planner.context, RunOptions()).plan(1, 2)[0].starts == {0: 12}
    # A marker that nothing was noted for: an event may have been there.
    planner.client.hset(marks, "1:0", 7)
    with pytest.raises(StartPositionError, match="next event to fold is at offset 8, retention"):
        Planner(planner.context, RunOptions()).plan(1, 3)
