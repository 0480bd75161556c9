"""A store that is set back to an older copy while nobody sends: it is seen, and mended."""

import shutil
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
from uic.jobs.stream.run.supervisor import Supervisor
from uic.jobs.stream.topics.brokers import Brokers
from uic.jobs.stream.topics.kafka_server import KafkaServer
from uic.jobs.stream.topics.produce import Outgoing, Pace, payload_of, send_to_kafka
from uic.models.bundles.bundle import load_bundle
from uic.models.memory.fold import MemoryFolder

pytestmark = [pytest.mark.timeout(1200), pytest.mark.kafka]

USERS = 30


def _send(kafka: KafkaServer, first: int) -> None:
    now_ms = int(time.time() * 1000)
    at = np.arange(first, first + 100)
    payloads = [payload_of(item % USERS, item, item % 10, "click", now_ms) for item in at.tolist()]
    send_to_kafka([Outgoing(payloads, at % USERS, at)], Brokers(kafka.brokers), "set-back", Pace())


def _wait_for(planner: Planner, marker: int) -> None:
    until = time.monotonic() + 300
    while _marker(planner) != marker:
        assert time.monotonic() < until
        time.sleep(0.2)


def _marker(planner: Planner) -> int:
    try:
        return planner.generations.markers(1).get(1, {}).get(0, -1)
    except StoreUnavailableError:
        return -2


def test_an_older_copy_is_noticed_and_mended_without_an_event(trial, kafka: KafkaServer):
    kafka.create_topic("set-back", 1)
    _send(kafka, 0)
    context = trial(
        brokers=kafka.brokers,
        topic="set-back",
        parallelism=1,
        checkpoint_seconds=1.0,
        backoff_seconds=0.1,
    )
    store = context.workspace / STORE_FOLDER
    server, planner, said = EmbeddedRedis(store), Planner(context, RunOptions()), []
    supervisor = Supervisor(planner, said.append)
    running = threading.Thread(target=supervisor.run)
    running.start()
    try:
        _wait_for(planner, 99)
        server.kill()
        shutil.copytree(store, context.workspace / "older")
        server.start()
        _send(kafka, 100)
        _wait_for(planner, 199)
        time.sleep(5)  # it is quiet, and the supervisor has seen the marker
        server.kill()
        shutil.rmtree(store)
        shutil.copytree(context.workspace / "older", store)
        server.start()
        _wait_for(planner, 199)
    finally:
        supervisor.request_stop()
        running.join(300)
    assert any("was at 199 and is at 99" in line for line in said)
    folder = MemoryFolder(load_bundle(context.bundles / "mimn" / "untrained"), 1)
    logged = read_topic(Brokers(kafka.brokers), "set-back")
    expected = batch_fold(logged, folder, context.config.log)
    assert expected.wrong_in(PackedStore(planner.client, planner.keys), 1) == 0
