"""`uic events broker`: its own broker and no other's."""

import os
import signal
import subprocess
import sys
import time

import pytest

from uic.jobs.stream.topics.java import CHECKOUT_JARS
from uic.jobs.stream.topics.kafka_server import KafkaServer, KafkaServerError, free_port

pytestmark = pytest.mark.kafka


def test_another_processs_broker_is_refused(kafka: KafkaServer, tmp_path):
    port = int(kafka.brokers.rpartition(":")[2])
    with pytest.raises(KafkaServerError, match=f"127.0.0.1:{port} is another process's"):
        KafkaServer(tmp_path / "second", port).start()
    # A folder that had a broker before keeps its port; another may have it by now.
    assert not (tmp_path / "second").exists()
    (tmp_path / "third").mkdir()
    line = f"advertised.listeners=PLAINTEXT://{kafka.brokers}\n"
    (tmp_path / "third" / "server.properties").write_text(line)
    with pytest.raises(KafkaServerError, match="is another process's"):
        KafkaServer(tmp_path / "third").start()


def test_a_broker_that_is_killed_ends_the_command_with_1(tmp_path):
    port = free_port()
    environment = {**os.environ, "UIC_STREAM__JARS_FOLDER": str(CHECKOUT_JARS)}
    command = [sys.executable, "-m", "uic.jobs.cli", "events", "broker", "--port", str(port)]
    with subprocess.Popen(
        [*command, "-w", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        said = running.stdout.readline()
        assert f"Kafka at 127.0.0.1:{port}" in said
        os.kill(int(said.split("process ")[1].strip(") \n")), signal.SIGKILL)
        until = time.monotonic() + 60
        while running.poll() is None and time.monotonic() < until:
            time.sleep(0.1)
        assert running.returncode == 1
        error = " ".join(running.stderr.read().split())
    assert f"the broker at 127.0.0.1:{port} has ended; see broker.log" in error
    assert "Traceback" not in error
