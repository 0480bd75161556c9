"""A2 and A15: a topic that is made anew, or grows, under a running stream. On a real broker."""

import threading
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from uic.feature_repo.store.packed import PackedStore
from uic.jobs.checks.audited_topic import audit_topic
from uic.jobs.checks.doctor import Level, examine
from uic.jobs.config.context import Context
from uic.jobs.drills.hostile.asking import wait_until
from uic.jobs.drills.hostile.row import HostileRow, require
from uic.jobs.drills.hostile.stage import HostileStage
from uic.jobs.drills.log import BatchFold, batch_fold
from uic.jobs.stream.letters.compact import compact
from uic.jobs.stream.letters.topic_reader import read_topic
from uic.jobs.stream.run.planner import Planner, RunOptions
from uic.jobs.stream.run.report import status_lines
from uic.jobs.stream.run.start_positions import folder_name
from uic.jobs.stream.run.supervisor import Supervisor
from uic.jobs.stream.run.topic_watch import TopicWatch
from uic.jobs.stream.topics.brokers import Brokers
from uic.jobs.stream.topics.event_files import LoggedPayload
from uic.jobs.stream.topics.kafka_topic import TopicError
from uic.jobs.stream.topics.produce import Outgoing, Pace, payload_of, send_to_kafka
from uic.models.memory.fold import MemoryFolder

_USERS: Final = 30
_OLD_EVENTS: Final = 3000
_NEW_EVENTS: Final = 9000
_PARTITIONS: Final = 2
_UNREAD: Final = 548
_START_SECONDS: Final = 300.0
_FAST: Final = {"checkpoint_seconds": 1.0, "archive_roll_seconds": 1.0, "backoff_seconds": 0.1}


def send_clicks(brokers: str, topic: str, count: int) -> None:
    """Write so many clicks of now to a topic, the users in turn."""
    now_ms = int(time.time() * 1000)
    at = np.arange(count)
    payloads = [payload_of(one % _USERS, one, one % 10, "click", now_ms) for one in at.tolist()]
    send_to_kafka([Outgoing(payloads, at % _USERS, at)], Brokers(brokers), topic, Pace())


def _folded(planner: Planner, epoch: int) -> int:
    """Events of an epoch that the markers have passed."""
    marks = planner.generations.markers(1).get(epoch, {})
    return sum(offset + 1 for offset in marks.values())


def _remade(stage: HostileStage) -> str:
    """A2."""
    brokers, topic = stage.kafka.brokers, "remade"
    stage.kafka.create_topic(topic, _PARTITIONS)
    send_clicks(brokers, topic, _OLD_EVENTS)
    stream = {"brokers": brokers, "topic": topic, "parallelism": 1, **_FAST}
    with stage.trial(topic, stream) as (context, folder):
        old, error = _under_a_running_stream(stage, context, topic)
        planner = Planner(context, RunOptions(new_epoch=True, until_end=True))
        seen = [f"the stream ended: {error.split(':')[0]}", _left_alone(planner)]
        Supervisor(planner, lambda _: None).run()
        seen.append(_both_topics(planner, old, folder))
        made = compact(context, datetime.now(UTC).date() + timedelta(days=1))
    compacted = {one.epoch: one.publication.behaviors for one in made}
    require(compacted == {1: _OLD_EVENTS, 2: _NEW_EVENTS}, f"compacted by epoch: {compacted}")
    return "; ".join([*seen, f"compacted by epoch: {compacted}"])


def _under_a_running_stream(
    stage: HostileStage, context: Context, topic: str
) -> tuple[list[LoggedPayload], str]:
    """Delete the topic and make it again; the old events, and what the stream ended with."""
    brokers = stage.kafka.brokers
    planner, errors = Planner(context, RunOptions()), []
    supervisor = Supervisor(planner, lambda _: None)

    def supervise() -> None:
        try:
            supervisor.run()
        except TopicError as error:
            errors.append(str(error))

    running = threading.Thread(target=supervise)
    running.start()
    try:
        wait_until(lambda: _folded(planner, 1) == _OLD_EVENTS, _START_SECONDS, "the old events")
        old = list(read_topic(Brokers(brokers), topic))
        time.sleep(4)  # a checkpoint, so that the archive has them
        admin = AdminClient({"bootstrap.servers": brokers})
        admin.delete_topics([topic])[topic].result(30)
        stage.kafka.create_topic(topic, _PARTITIONS)
        send_clicks(brokers, topic, _NEW_EVENTS)
        running.join(120)
    finally:
        supervisor.request_stop()
        running.join(_START_SECONDS)
    require(errors, "the stream went on with the new topic, or ended without an error")
    require("made anew" in errors[0] and "--new-epoch" in errors[0], errors[0])
    return old, errors[0]


def _left_alone(planner: Planner) -> str:
    folded = _folded(planner, 1)
    require(
        folded == _OLD_EVENTS, f"markers say {folded:,} of {_OLD_EVENTS:,} events of the old one"
    )
    return "no event of the new topic was folded or skipped"


def _both_topics(planner: Planner, old: Sequence[LoggedPayload], folder: MemoryFolder) -> str:
    """Every memory is the fold of the old topic, then of the new one."""
    stream, limits = planner.stream, planner.context.config.log
    before = batch_fold(iter(old), folder, limits, 1).memories
    new = read_topic(Brokers(stream.brokers), stream.topic)
    expected: BatchFold = batch_fold(new, folder, limits, 2, before)
    wrong = expected.wrong_in(PackedStore(planner.client, planner.keys), 1)
    require(wrong == 0, f"{wrong} of {len(expected.memories)} memories differ from the batch fold")
    return f"with --new-epoch {len(expected.memories)} memories are the batch fold of both"


def _remade_control(stage: HostileStage) -> str:
    """The markers after the attack: the stream had gone on in the new topic."""
    with stage.trial("remade-control", {"source": "files"}) as (context, _):
        planner = Planner(context, RunOptions())
        marks: Mapping[str, str] = {"1:0": "4499", "1:1": "4499"}
        planner.client.hset(planner.keys.markers(1), mapping=dict(marks))
        return _left_alone(planner)


def _send_to_new_partitions(brokers: str, topic: str) -> None:
    """Send events to the partitions that the stream does not read."""
    producer = Producer({"bootstrap.servers": brokers})
    for at in range(_UNREAD):
        producer.produce(topic, b"{}", b"1", partition=_PARTITIONS + at % 2)
    producer.flush(30)


def _watched(stage: HostileStage, topic: str, grown: int) -> str:
    """A15: the topic gets partitions after its stream was planned."""
    stage.kafka.create_topic(topic, _PARTITIONS)
    stream = {"brokers": stage.kafka.brokers, "topic": topic, "parallelism": 1}
    with stage.trial(topic, stream) as (context, _):
        planner = Planner(context, RunOptions())
        plan, _ = planner.plan(1, 1)
        watch = TopicWatch(plan, planner.folder / folder_name(plan.generation))
        before = watch.look({}, now=True)
        require(not before, f"before it grew: {before}")
        if grown > _PARTITIONS:
            admin = AdminClient({"bootstrap.servers": stage.kafka.brokers})
            admin.create_partitions([NewPartitions(topic, grown)])[topic].result(30)
            _send_to_new_partitions(stage.kafka.brokers, topic)
        wrong = [found.text for found in examine(context) if found.level is Level.WRONG]
        audited = audit_topic(context)
        said = {
            "supervisor": watch.look({}, now=True),
            "status": " ".join(status_lines(context, 1)),
            "doctor": " ".join(wrong),
            "audit": audited.fault if audited else "",
        }
        require(
            f"has {grown} partitions" in said["supervisor"],
            f"supervisor says {said['supervisor']!r}",
        )
        for who in ("status", "doctor", "audit"):
            require(f"{_UNREAD} events" in said[who], f"{who} says {said[who]!r}")
        try:
            planner.plan(1, 2)
        except TopicError:
            return (
                f"{', '.join(said)} say so, the last three with the {_UNREAD} events of the new "
                "partitions; the next attempt is refused"
            )
        require(held=False, seen="the next attempt is planned as if nothing had happened")
        raise AssertionError


ROWS: Final[Sequence[HostileRow]] = (
    HostileRow(
        "A2",
        "a topic is deleted and made again under a running stream, with more events",
        "the stream ends before an event of the new one is folded or skipped; none is folded twice",
        _remade,
        _remade_control,
        needs=("java", "kafka"),
    ),
    HostileRow(
        "A15",
        "a topic gets more partitions while it streams",
        "supervisor, status, doctor and audit say so, and the next attempt is refused",
        lambda stage: _watched(stage, "grows", 4),
        lambda stage: _watched(stage, "stays", _PARTITIONS),
        needs=("java", "kafka"),
    ),
)
