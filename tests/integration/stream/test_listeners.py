"""What the processes of an installation listen on: these sockets, and no others."""

import os
import subprocess
import sys

import pytest

from uic.jobs.drills.hostile.flink_rows import sockets_of
from uic.jobs.stream.run.failures import read_failure
from uic.jobs.stream.topics.java import java_home
from uic.jobs.stream.topics.kafka_server import KafkaServer

# Java takes a minute to start on a busy machine.
pytestmark = pytest.mark.timeout(1200)

BROKER = {("java", "127.0.0.1"): 2}  # clients, and the controller


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
    assert sockets_of(kafka.pid) == BROKER
