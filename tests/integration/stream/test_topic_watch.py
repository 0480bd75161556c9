"""Topics that do what a topic is not asked to do: grow, and leave out offsets. Without Flink."""

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from uic.jobs.checks.audited_topic import audit_topic
from uic.jobs.checks.doctor import Level, examine
from uic.jobs.stream.run.lag import lag_lines, lag_of
from uic.jobs.stream.run.planner import Planner, RunOptions
from uic.jobs.stream.run.start_positions import StartPositionError, folder_name
from uic.jobs.stream.run.topic_watch import TopicWatch
from uic.jobs.stream.topics.kafka_server import KafkaServer
from uic.pipelines.log.event_log import EventLog

pytestmark = pytest.mark.kafka


def _planned(trial, kafka: KafkaServer, topic: str, **stream):
    context = trial(brokers=kafka.brokers, topic=topic, parallelism=1, **stream)
    planner = Planner(context, RunOptions())
    return planner, planner.plan(1, 1)[0]


def _watch(planner: Planner, plan) -> TopicWatch:
    return TopicWatch(plan, planner.folder / folder_name(plan.generation))


def test_a_topic_that_was_made_anew_waits_as_a_whole(trial, kafka: KafkaServer):
    kafka.create_topic("anew", 1)
    planner, _ = _planned(trial, kafka, "anew")
    known = audit_topic(planner.context)
    assert known.fault == ""
    assert known.said.endswith("ends at 0: 0")
    admin = AdminClient({"bootstrap.servers": kafka.brokers})
    admin.delete_topics(["anew"])["anew"].result(30)
    assert "no topic 'anew'" in audit_topic(planner.context).fault
    kafka.create_topic("anew", 1)
    producer = Producer({"bootstrap.servers": kafka.brokers})
    for _ in range(7):
        producer.produce("anew", b"{}", b"1")
    producer.flush(30)
    assert lag_of(planner, 1).unread == {0: 7}
    assert "anew was made anew since epoch 1; `uic stream run" in list(lag_lines(planner, 1))[1]
    assert "7 events of it are not in the log" in audit_topic(planner.context).fault
    wrong = [found.text for found in examine(planner.context) if found.level is Level.WRONG]
    assert any("topic anew was made anew since epoch 1" in text for text in wrong)


def test_an_audit_says_when_no_broker_could_be_asked(trial):
    context = trial(brokers="127.0.0.1:1", topic="gone")
    assert audit_topic(context) is None  # nothing was streamed, so nothing is asked
    EventLog(context.log).append_epoch(
        kind="topic", name="gone.Ab", partitions=1, first_offsets={0: 0}
    )
    audited = audit_topic(context)
    assert audited.said.startswith("topic gone was not asked, so it is not known whether")
    assert "--without-broker" in audited.fault  # not judged is not a yes
    assert audit_topic(context, ask=False).fault == ""


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
    assert lag_of(planner, 1).behind == {0: 6}  # the next event is at 6: 3 is a commit, 4 aborted
    planner.client.hset(marks, "1:0", 8)
    assert lag_of(planner, 1).behind == {0: 0}
    assert _watch(planner, plan).look({0: 8}, now=True) == ""
    admin = AdminClient({"bootstrap.servers": kafka.brokers})
    everything = TopicPartition("transactional", 0, 12)
    admin.delete_records([everything])[everything].result(30)
    assert Planner(planner.context, RunOptions()).plan(1, 2)[0].starts == {0: 12}
    # A marker that nothing was noted for: an event may have been there.
    planner.client.hset(marks, "1:0", 7)
    with pytest.raises(StartPositionError, match="next event to fold is at offset 8, retention"):
        Planner(planner.context, RunOptions()).plan(1, 3)
