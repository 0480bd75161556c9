"""Redis away: for a while it is waited for; beyond the limit the job fails, and goes on later."""

import threading
import time

import numpy as np
import pytest

from uic.feature_repo.store.connection import STORE_FOLDER
from uic.feature_repo.store.errors import StoreUnavailableError
from uic.feature_repo.store.packed import PackedStore
from uic.feature_repo.store.server import EmbeddedRedis
from uic.jobs.drills.log import batch_fold
from uic.jobs.stream.letters.topic_reader import read_topic
from uic.jobs.stream.run.planner import Planner, RunOptions
from uic.jobs.stream.run.supervisor import StreamFailedError, Supervisor
from uic.jobs.stream.topics.brokers import Brokers
from uic.jobs.stream.topics.kafka_server import KafkaServer
from uic.jobs.stream.topics.produce import Outgoing, Pace, payload_of, send_to_kafka
from uic.models.bundles.bundle import load_bundle
from uic.models.memory.fold import MemoryFolder

# Java takes a minute to start on a busy machine.
pytestmark = [pytest.mark.timeout(1200), pytest.mark.kafka]

AWAY_SECONDS, RETRY_SECONDS = 3.0, 8.0


def _send(kafka, first):
    """A hundred clicks more."""
    now_ms = int(time.time() * 1000)
    at = np.arange(first, first + 100)
    payloads = [payload_of(item % 30, item, item % 10, "click", now_ms) for item in at.tolist()]
    send_to_kafka([Outgoing(payloads, at % 30, at)], Brokers(kafka.brokers), "away", Pace())


def test_redis_away_is_waited_for_and_beyond_the_limit_the_job_fails_and_resumes(
    trial, kafka: KafkaServer
):
    kafka.create_topic("away", 1)
    _send(kafka, 0)
    context = trial(
        brokers=kafka.brokers,
        topic="away",
        retry_seconds=RETRY_SECONDS,
        checkpoint_seconds=1.0,
        # One attempt without a restart: what fails in it ends the run.
        task_restarts=0,
        attempts=1,
        backoff_seconds=0.1,
    )
    server = EmbeddedRedis(context.workspace / STORE_FOLDER)
    planner, said, failures = Planner(context, RunOptions()), [], []

    def supervise():
        try:
            Supervisor(planner, said.append).run()
        except StreamFailedError as error:
            failures.append(str(error))

    running = threading.Thread(target=supervise)
    running.start()
    _wait(lambda: _marker(planner) == 99, running, said, failures)

    # Within the limit.
    server.kill()
    _send(kafka, 100)
    time.sleep(AWAY_SECONDS)
    assert running.is_alive()
    server.start()
    _wait(lambda: _marker(planner) == 199, running, said, failures)
    assert not [line for line in said if "attempt" in line]  # no attempt has ended

    # Beyond the limit.
    server.kill()
    _send(kafka, 200)
    running.join(400)
    assert not running.is_alive()
    assert "StoreUnavailableError" in failures[0]
    assert "Redis does not answer" in failures[0]

    # Where it resumes is the store's marker; nothing was lost and nothing comes twice.
    server.start()
    assert _marker(planner) == 199
    Supervisor(Planner(context, RunOptions(until_end=True)), said.append).run()
    folder = MemoryFolder(load_bundle(context.bundles / "mimn" / "untrained"), 1)
    logged = read_topic(Brokers(kafka.brokers), "away")
    expected = batch_fold(logged, folder, context.config.log)
    assert expected.wrong_in(PackedStore(planner.client, planner.keys), 1) == 0


def _marker(planner):
    try:
        return planner.generations.markers(1).get(1, {}).get(0, -1)
    except StoreUnavailableError:
        return -2


def _wait(holds, running, *remarks):
    until = time.monotonic() + 500
    while not holds():
        assert running.is_alive(), remarks
        assert time.monotonic() < until
        time.sleep(0.1)
