"""Reading a topic to its end, and a broker that goes away meanwhile."""

import numpy as np
import pytest
from confluent_kafka import Producer

from uic.jobs.stream.letters.topic_reader import TopicReadError, read_topic
from uic.jobs.stream.topics.brokers import Brokers
from uic.jobs.stream.topics.kafka_server import KafkaServer
from uic.jobs.stream.topics.produce import Outgoing, Pace, send_to_kafka

pytestmark = pytest.mark.kafka


def send(kafka, topic, count):
    users = np.arange(count, dtype=np.int64)
    payloads = [b"%d" % user for user in users.tolist()]
    send_to_kafka([Outgoing(payloads, users, users)], Brokers(kafka.brokers), topic, Pace())


def test_all_partitions_are_read_to_their_end(kafka):
    kafka.create_topic("read-all", 3)
    send(kafka, "read-all", 40)
    rows = list(read_topic(Brokers(kafka.brokers), "read-all"))
    assert sorted(int(row.payload) for row in rows) == list(range(40))
    assert [row.partition for row in rows] == sorted(row.partition for row in rows)


def test_markers_of_transactions_at_the_end_are_no_events(kafka):
    kafka.create_topic("read-transactions", 1)
    producer = Producer({"bootstrap.servers": kafka.brokers, "transactional.id": "read"})
    producer.init_transactions(10)
    producer.begin_transaction()
    producer.produce("read-transactions", value=b"only")
    producer.commit_transaction(10)
    rows = list(read_topic(Brokers(kafka.brokers), "read-transactions"))
    assert [(row.payload, row.offset) for row in rows] == [(b"only", 0)]


def test_a_broker_that_goes_away_is_an_error_and_no_endless_wait(kafka, tmp_path):
    del kafka  # its jars are there
    with KafkaServer(tmp_path / "kafka") as server:
        server.create_topic("read-away", 2)
        send(server, "read-away", 40)
        rows = read_topic(Brokers(server.brokers), "read-away", silence_seconds=3)
        first = next(rows)
        assert (first.partition, first.offset) == (0, 0)
        server.kill()
        with pytest.raises(TopicReadError, match=r"partition 1, offset 0: "):
            list(rows)
