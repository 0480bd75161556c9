"""The lag of a running stream, as Prometheus sees it."""

import threading
import time
import urllib.error
import urllib.request

import pytest

from uic.jobs.drills.hostile.topic_rows import send_clicks
from uic.jobs.stream.run.lag_watch import LagWatch
from uic.jobs.stream.run.metrics_relay import LAG_FILE
from uic.jobs.stream.run.planner import Planner, RunOptions
from uic.jobs.stream.run.supervisor import Supervisor
from uic.jobs.stream.topics.kafka_server import KafkaServer, free_port

pytestmark = [pytest.mark.timeout(1200), pytest.mark.kafka]


def test_a_lag_that_is_not_known_is_no_number(trial, kafka: KafkaServer):
    kafka.create_topic("lags", 2)
    send_clicks(kafka.brokers, "lags", 40)
    planner = Planner(trial(brokers=kafka.brokers, topic="lags", prometheus_port=1), RunOptions())
    plan, _ = planner.plan(1, 1)
    watch = LagWatch(planner, plan)
    watch.look()
    path = plan.run_folder / LAG_FILE
    assert 'uic_stream_lag_events{generation="1",partitions="read"} 40\n' in path.read_text()
    planner.client.hset(planner.keys.markers(1), mapping={"1:0": plan.ends[0] - 1})
    watch.look()
    assert f'partitions="read"}} {plan.ends[1]}\n' in path.read_text()
    stream = planner.context.config.stream
    object.__setattr__(stream, "brokers", "127.0.0.1:1")
    watch.look()
    assert not path.exists()


def test_prometheus_sees_the_lag_of_a_running_stream_and_flinks_own(trial, kafka: KafkaServer):
    kafka.create_topic("seen", 2)
    send_clicks(kafka.brokers, "seen", 500)
    port = free_port()
    context = trial(
        brokers=kafka.brokers, topic="seen", prometheus_port=port, checkpoint_seconds=2.0,
        task_restarts=0, attempts=1,
    )  # fmt: skip
    said: list[str] = []
    supervisor = Supervisor(Planner(context, RunOptions()), said.append)
    running = threading.Thread(target=supervisor.run)
    running.start()
    wanted = (
        b'uic_stream_lag_events{generation="1",partitions="read"} 0',
        b"flink_taskmanager_job_task_operator_pendingRecords",
    )
    page, until = b"", time.monotonic() + 240
    try:
        while not all(text in page for text in wanted):
            assert time.monotonic() < until, (said, page[-2000:])
            assert running.is_alive(), said
            time.sleep(1)
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                    page = answer.read()
            except urllib.error.URLError:
                continue
    finally:
        supervisor.request_stop()
        running.join(400)
