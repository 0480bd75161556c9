"""What the processes of an installation listen on: these sockets, and no others."""

import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter

import pytest

from tests.integration.stream.test_stream_job import FAST, _good, _wait_for_marker, _write
from uic.feature_repo.store.server import EmbeddedRedis
from uic.jobs.stream.run.failures import read_failure
from uic.jobs.stream.run.listeners import listeners
from uic.jobs.stream.run.planner import Planner, RunOptions
from uic.jobs.stream.run.supervisor import Supervisor, all_running
from uic.jobs.stream.topics.java import java_home
from uic.jobs.stream.topics.kafka_server import KafkaServer, free_port

# Java takes a minute to start on a busy machine.
pytestmark = pytest.mark.timeout(1200)

# By process and address, how many sockets take connections.
STREAM = {
    # Flink's REST, its blobs, its metrics, PyFlink's gateway, and six of Beam's for the fold.
    ("java", "127.0.0.1"): 10,
    # Calls of Java into PyFlink.
    ("python", "127.0.0.1"): 1,
    # Flink's metrics, since `stream.prometheus_host` says so.
    ("python", "0.0.0.0"): 1,
}
BROKER = {("java", "127.0.0.1"): 2}  # clients, and the controller
STORE: dict[tuple[str, str], int] = {}  # a Unix socket, which its owner alone may open


def _sockets(pid: int) -> dict[tuple[str, str], int]:
    return Counter(
        (socket.process.rstrip("0123456789."), socket.address) for socket in listeners(pid)
    )


def test_a_stream_its_store_and_nothing_else(trial, tmp_path):
    files = tmp_path / "events"
    _write(files, 0, _good(500, 1))
    port = free_port()
    metrics = {"prometheus_port": port, "prometheus_host": "0.0.0.0"}
    context = trial(source="files", files=files, **metrics, **FAST)
    said: list[str] = []
    planner = Planner(context, RunOptions())
    supervisor = Supervisor(planner, said.append)
    running = threading.Thread(target=supervisor.run)
    running.start()
    try:
        _wait_for_marker(planner, 499, running)
        until = time.monotonic() + 120
        while not any(line.startswith("listens on ") for line in said):
            assert time.monotonic() < until, said
            time.sleep(0.2)
        [run] = all_running(context.workspace)
        assert _sockets(run["attempt_pid"]) == STREAM
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/anything") as answer:
            assert b"flink_taskmanager_job_task_operator_" in answer.read()
        store = EmbeddedRedis(context.workspace / "store").running()
        assert store is not None
        assert _sockets(store.pid) == STORE
    finally:
        supervisor.request_stop()
        running.join(400)
    [line] = [line for line in said if line.startswith("listens on ")]
    assert f"0.0.0.0:{port} (Flink's metrics)" in line
    assert "(Flink's REST), 10 ports of 127.0.0.1 (between Flink, Beam and Python)" in line
    assert not [line for line in said if line.startswith("WARNING")]


def test_a_java_that_would_listen_everywhere_runs_no_stream():
    script = (
        "from pyflink.java_gateway import get_gateway\n"
        "from uic.jobs.stream.run.loopback import keep_servers_on_loopback\n"
        "keep_servers_on_loopback(get_gateway().jvm)"
    )
    # Without Flink's options of Java, and ours.
    environment = {**os.environ, "FLINK_ENV_JAVA_OPTS": "", "JVM_ARGS": "-Xmx200m"}
    environment["JAVA_HOME"] = str(java_home())
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    failure = read_failure(done.stderr)
    assert failure.ends_run
    assert "cannot keep Flink's servers on the loopback address (java.lang.refl" in failure.reason


@pytest.mark.kafka
def test_a_broker(kafka: KafkaServer):
    assert kafka.pid is not None
    assert _sockets(kafka.pid) == BROKER
