"""Dead letters sent again: through a real broker, with the letters in a topic of their own."""

import time

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from uic.feature_repo.store.packed import PackedStore
from uic.jobs.cli import app
from uic.jobs.config.context import open_context
from uic.jobs.drills.log import batch_fold
from uic.jobs.stream.fold.worker import make_fold_function
from uic.jobs.stream.letters.topic_reader import read_topic
from uic.jobs.stream.run.planner import Planner, RunOptions
from uic.jobs.stream.run.supervisor import Supervisor
from uic.jobs.stream.topics.brokers import Brokers
from uic.jobs.stream.topics.kafka_server import KafkaServer
from uic.jobs.stream.topics.produce import Outgoing, Pace, payload_of, send_to_kafka
from uic.models.bundles.bundle import load_bundle
from uic.models.memory.fold import MemoryFolder

# Java takes a minute to start on a busy machine.
pytestmark = [pytest.mark.timeout(1200), pytest.mark.kafka]
OLD_DAYS = 9


def test_letters_are_sent_again_once_and_then_folded(trial, kafka: KafkaServer):
    """Events older than the limit become letters; the limit is raised, and they are retried."""
    kafka.create_topic("retry", 2)
    kafka.create_topic("retry-letters", 1)
    stream = {"brokers": kafka.brokers, "topic": "retry", "dead_letter_topic": "retry-letters"}
    context = trial(**stream, checkpoint_seconds=1.0, task_restarts=0, attempts=1)
    now_ms = int(time.time() * 1000)
    old_ms = now_ms - OLD_DAYS * 86_400_000
    users = np.arange(20)
    payloads = [
        payload_of(user, user, 1, "click", old_ms if user < 5 else now_ms) for user in range(20)
    ]
    payloads[18] = b"x" * 900_000  # as a letter more than Kafka's 1 MB
    payloads[19] = b"{"
    send_to_kafka([Outgoing(payloads, users, users)], Brokers(kafka.brokers), "retry", Pace())
    said = []
    Supervisor(Planner(context, RunOptions(until_end=True)), said.append).run()
    assert said[-1] == "attempt 1 finished"

    # The limit is raised, and the letters are sent again, each once.
    settings = {"stream": stream, "log": {"max_event_age_days": 10}}
    (context.workspace / "uic.yaml").write_text(yaml.safe_dump(settings))
    shown = _uic("dead-letters", "show", context.workspace)
    assert "5  event_too_old" in shown
    assert "1  malformed" in shown
    assert "1  too_large" in shown
    assert "900,000 bytes, cut" in " ".join(shown.split())
    assert "5 letters sent again" in _uic("dead-letters", "retry", context.workspace)
    assert "0 letters sent again" in _uic("dead-letters", "retry", context.workspace)

    # They stand at the end of the log, in the partitions of their users, and are folded there.
    logged = list(read_topic(Brokers(kafka.brokers), "retry"))
    homes = {row.payload: row.partition for row in logged[::-1]}
    again = [row for row in logged if payloads[:5].count(row.payload)]
    assert len(logged) == 25
    assert sorted(row.payload for row in again) == sorted(payloads[:5] * 2)
    assert all(row.partition == homes[row.payload] for row in again)
    raised = open_context(context.workspace, None)
    planner = Planner(raised, RunOptions())
    plan, _ = planner.plan(1, 2)
    marks = planner.generations.markers(1)[plan.epoch]
    rows = [row for row in logged if row.offset > marks[row.partition]]
    assert len(rows) == 5
    reasons = make_fold_function(plan)(
        [row.payload for row in rows],
        np.array([row.partition for row in rows]),
        np.array([row.offset for row in rows]),
        np.array([row.log_time_ms for row in rows]),
    )
    assert reasons == [None] * 5
    folder = MemoryFolder(load_bundle(context.bundles / "mimn" / "untrained"), 1)
    strict = batch_fold((row for row in logged if row not in rows), folder, context.config.log)
    expected = batch_fold(iter(rows), folder, raised.config.log, start=strict.memories).memories
    records, found = PackedStore(planner.client, planner.keys).read(
        1, users[:18], folder.record_bytes
    )
    assert found.all()
    assert (records == np.stack([expected[user] for user in range(18)])).all()


def _uic(*words):
    done = CliRunner().invoke(app, [*(str(word) for word in words[:-1]), "-w", str(words[-1])])
    assert done.exit_code == 0, done.output
    return done.output
