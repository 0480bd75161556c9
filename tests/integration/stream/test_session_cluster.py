"""The job on a Flink cluster of its own, submitted as infra's files do, with a killed worker."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pyflink
import pytest

from uic.feature_repo.store.packed import PackedStore
from uic.jobs.drills.log import DrillLog, batch_fold
from uic.jobs.drills.trial import start_trial, trial_context
from uic.jobs.stream.run import attempt
from uic.jobs.stream.run.planner import Planner, RunOptions
from uic.jobs.stream.topics.brokers import Brokers
from uic.jobs.stream.topics.java import jars_root, java_home
from uic.jobs.stream.topics.kafka_server import KafkaServer, free_port
from uic.jobs.stream.topics.produce import Outgoing, Pace, send_to_kafka

BIN = Path(pyflink.__file__).parent / "bin"
EVENTS = 20_000
PARTITIONS = 2
SECONDS = 150


class Cluster:
    """A job manager and a task manager, from the scripts of the pip package."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rpc, self.rest = free_port(), free_port()
        (folder / "log").mkdir(parents=True)
        (folder / "conf").mkdir()
        shipped = BIN.parent / "conf"
        for path in shipped.iterdir():
            (folder / "conf" / path.name).write_bytes(path.read_bytes())
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, script: str, *settings: str) -> psutil.Process:
        common = (
            f"jobmanager.rpc.address=127.0.0.1 jobmanager.rpc.port={self._rpc} "
            f"rest.address=127.0.0.1 rest.port={self.rest} rest.bind-address=127.0.0.1"
        )
        definitions = [word for item in (*common.split(), *settings) for word in ("-D", item)]
        with (self._folder / "log" / f"{script}.out").open("ab") as out:
            process = subprocess.Popen(
                [BIN / script, "start-foreground", *definitions],
                env=self.environment(),
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self._processes.append(process)
        return psutil.Process(process.pid)

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "JAVA_HOME": str(java_home()),
            "FLINK_CONF_DIR": str(self._folder / "conf"),
            "FLINK_LOG_DIR": str(self._folder / "log"),
            "OMP_NUM_THREADS": "1",
        }

    def submit(self, plan: Path) -> None:
        """As `submit` of infra/compose.yaml."""
        done = subprocess.run(
            [
                *(BIN / "flink", "run", "-d", "-m", f"127.0.0.1:{self.rest}"),
                *("-pyexec", sys.executable, "-pyclientexec", sys.executable),
                *("-py", attempt.__file__, plan),
            ],
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def stop(self) -> None:
        for process in self._processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    made = Cluster(folder)
    try:
        made.start("jobmanager.sh")
        yield made
    finally:
        made.stop()


def task_manager(made: Cluster) -> psutil.Process:
    return made.start(
        "taskmanager.sh",
        "taskmanager.host=127.0.0.1",
        f"taskmanager.numberOfTaskSlots={PARTITIONS}",
        "taskmanager.memory.process.size=1600m",
    )


@pytest.mark.flink
@pytest.mark.kafka
@pytest.mark.slow
def test_a_job_on_a_session_cluster_folds_exactly_when_its_task_manager_is_killed(tmp_path):
    root = jars_root(None, tmp_path)
    log = DrillLog.make(EVENTS, 500, PARTITIONS, seed=3)
    with KafkaServer(tmp_path / "kafka", jars_root=root) as kafka:
        kafka.create_topic("behaviours", PARTITIONS)
        context = trial_context(
            tmp_path / "workspace",
            {
                "brokers": kafka.brokers,
                "batch_rows": 500,
                "checkpoint_seconds": 2.0,
                "archive_roll_seconds": 4.0,
                "task_restarts": 50,
                "parallelism": PARTITIONS,
            },
        )
        server, fold = start_trial(context)
        planner = Planner(context, RunOptions())
        try:
            with cluster(tmp_path / "flink") as flink:
                worker = task_manager(flink)
                plan, _ = planner.plan(1, 1)
                path = tmp_path / "plan.json"
                path.write_text(plan.model_dump_json())
                _send(kafka.brokers, log, slice(0, EVENTS // 2))
                flink.submit(path)
                _wait_until_folded(planner, EVENTS // 8, tmp_path)
                os.killpg(worker.pid, signal.SIGKILL)
                _send(kafka.brokers, log, slice(EVENTS // 2, EVENTS))
                task_manager(flink)
                _wait_until_folded(planner, EVENTS, tmp_path)
            store = PackedStore(planner.client, planner.keys, address=str(planner.address))
            expected = batch_fold(log.logged(context.config.stream), fold, context.config.log)
            assert len(expected.memories) > 300
            assert expected.wrong_in(store, 1) == 0
        finally:
            server.stop()


def _send(brokers: str, log: DrillLog, part: slice) -> None:
    rows = log.outgoing
    some = Outgoing(rows.payloads[part], rows.user_ids[part], rows.log_times_ms[part])
    send_to_kafka([some], Brokers(brokers), "behaviours", Pace())


def _wait_until_folded(planner: Planner, events: int, folder: Path) -> None:
    until = time.monotonic() + SECONDS
    while True:
        marks = planner.generations.markers(1).get(1, {})
        if sum(offset + 1 for offset in marks.values()) >= events:
            return
        logs = "".join(path.read_text()[-3000:] for path in (folder / "flink" / "log").iterdir())
        assert time.monotonic() < until, logs
        time.sleep(0.2)
