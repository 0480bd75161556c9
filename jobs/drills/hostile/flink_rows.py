"""A1 and A13: what a stream listens on, and the job on a Flink cluster that loses a worker."""

import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from uic.feature_repo.store.connection import STORE_FOLDER
from uic.feature_repo.store.packed import PackedStore
from uic.feature_repo.store.server import EmbeddedRedis
from uic.jobs.config.context import Context
from uic.jobs.drills.hostile.asking import wait_until
from uic.jobs.drills.hostile.row import HostileRow, require
from uic.jobs.drills.hostile.session_cluster import session_cluster
from uic.jobs.drills.hostile.stage import HostileStage
from uic.jobs.drills.log import BatchFold, DrillLog, batch_fold
from uic.jobs.stream.run.listeners import listeners
from uic.jobs.stream.run.planner import Planner, RunOptions
from uic.jobs.stream.run.supervisor import Supervisor, all_running
from uic.jobs.stream.topics.brokers import Brokers
from uic.jobs.stream.topics.kafka_server import free_port
from uic.jobs.stream.topics.produce import Outgoing, Pace, send_to_kafka

_Sockets = Mapping[tuple[str, str], int]
# By process and address, how many sockets take connections.
STREAM_SOCKETS: Final[_Sockets] = {
    # Flink's REST, its blobs, its metrics, PyFlink's gateway, and six of Beam's for the fold.
    ("java", "127.0.0.1"): 10,
    # Calls of Java into PyFlink.
    ("python", "127.0.0.1"): 1,
    # Flink's metrics, since `stream.prometheus_host` says so.
    ("python", "0.0.0.0"): 1,  # noqa: S104 - the one that is meant
}
STORE_SOCKETS: Final[_Sockets] = {}  # a Unix socket, which its owner alone may open
_EVENTS: Final = 20_000
_PARTITIONS: Final = 2
_SECONDS: Final = 300.0
_FAST: Final = {
    "checkpoint_seconds": 2.0,
    "archive_roll_seconds": 2.0,
    "task_restarts": 0,
    "attempts": 1,
}
_LISTEN: Final = """
import socket, sys
sockets = [socket.create_server((host, 0)) for host in ("127.0.0.1", "0.0.0.0")]
print("ready", flush=True)
sys.stdin.read()
"""


def sockets_of(pid: int) -> Counter[tuple[str, str]]:
    """By process and address, how many sockets of a process and its children take connections."""
    return Counter(
        (socket.process.rstrip("0123456789."), socket.address) for socket in listeners(pid)
    )


def _as_listed(what: str, pid: int, expected: _Sockets) -> str:
    found = dict(sockets_of(pid))
    require(found == expected, f"{what} listens on {found}, expected {dict(expected)}")
    return f"{what}: {sum(found.values())} sockets, as listed"


def _listens(stage: HostileStage) -> str:
    """A1."""
    folder, port = stage.new_folder("events"), free_port()
    DrillLog.make(500, 50, 1, seed=1).write_files(folder)
    metrics = {"prometheus_port": port, "prometheus_host": "0.0.0.0"}  # noqa: S104 - meant
    said: list[str] = []
    with stage.trial("listens", {"source": "files", "files": folder, **metrics, **_FAST}) as (
        context,
        _,
    ):
        planner = Planner(context, RunOptions())
        supervisor = Supervisor(planner, said.append)
        running = threading.Thread(target=supervisor.run)
        running.start()
        try:
            _wait_until_folded(planner, 500)
            seen = _while_it_streams(context, said, port)
        finally:
            supervisor.request_stop()
            running.join(_SECONDS)
    [line] = [line for line in said if line.startswith("listens on ")]
    require(f"0.0.0.0:{port} (Flink's metrics)" in line, line)
    warnings = [line for line in said if line.startswith("WARNING")]
    require(not warnings, "; ".join(warnings))
    return seen


def _while_it_streams(context: Context, said: Sequence[str], port: int) -> str:
    wait_until(
        lambda: any(line.startswith("listens on ") for line in said),
        _SECONDS,
        "the stream names what it listens on",
    )
    [run] = all_running(context.workspace)
    seen = [_as_listed("the stream", run["attempt_pid"], STREAM_SOCKETS)]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/anything") as answer:
        require(b"flink_taskmanager_job_task_operator_" in answer.read(), "no metrics of Flink")
    store = EmbeddedRedis(context.workspace / STORE_FOLDER).running()
    assert store is not None  # noqa: S101 - of the trial
    seen.append(_as_listed("its store", store.pid, STORE_SOCKETS))
    return "; ".join(seen)


def _listens_control(_: HostileStage) -> None:
    """A process that opens one more socket, on every address."""
    with subprocess.Popen(  # noqa: S603 - our own text
        [sys.executable, "-c", _LISTEN], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None  # noqa: S101 - PIPE
        process.stdout.readline()
        try:
            _as_listed("a process", process.pid, {("python", "127.0.0.1"): 1})
        finally:
            process.communicate(b"")


def _cluster(stage: HostileStage) -> str:
    """A13."""
    log = DrillLog.make(_EVENTS, 500, _PARTITIONS, seed=3)
    topic = "cluster"
    stage.kafka.create_topic(topic, _PARTITIONS)
    stream = {
        "brokers": stage.kafka.brokers,
        "topic": topic,
        "batch_rows": 500,
        "checkpoint_seconds": 2.0,
        "archive_roll_seconds": 4.0,
        "task_restarts": 50,
        "parallelism": _PARTITIONS,
    }
    with stage.trial("cluster", stream) as (context, fold):
        planner = Planner(context, RunOptions())
        plan, _ = planner.plan(1, 1)
        path = context.workspace / "plan.json"
        path.write_text(plan.model_dump_json())
        with session_cluster(context.workspace / "flink", _PARTITIONS) as flink:
            worker = flink.start_task_manager()
            _send(stage.kafka.brokers, topic, log, slice(0, _EVENTS // 2))
            flink.submit(path)
            _wait_until_folded(planner, _EVENTS // 8)
            flink.kill(worker)
            _send(stage.kafka.brokers, topic, log, slice(_EVENTS // 2, _EVENTS))
            flink.start_task_manager()
            _wait_until_folded(planner, _EVENTS)
        expected = batch_fold(log.logged(context.config.stream), fold, context.config.log)
        return f"its one task manager killed: {_all_right(planner, expected)}"


def _send(brokers: str, topic: str, log: DrillLog, part: slice) -> None:
    rows = log.outgoing
    some = Outgoing(rows.payloads[part], rows.user_ids[part], rows.log_times_ms[part])
    send_to_kafka([some], Brokers(brokers), topic, Pace())


def _wait_until_folded(planner: Planner, events: int) -> None:
    def folded() -> bool:
        marks = planner.generations.markers(1).get(1, {})
        return sum(offset + 1 for offset in marks.values()) >= events

    wait_until(folded, _SECONDS, f"{events:,} events folded on the cluster")


def _all_right(planner: Planner, expected: BatchFold) -> str:
    wrong = expected.wrong_in(PackedStore(planner.client, planner.keys), 1)
    users = len(expected.memories)
    require(wrong == 0 < users, f"{wrong} of {users} memories differ from the batch fold")
    return f"{users} memories are byte for byte the batch fold of {_EVENTS:,} events"


def _cluster_control(stage: HostileStage) -> str:
    """A store that nothing was folded into."""
    log = DrillLog.make(1000, 50, 1, seed=3)
    folder = stage.new_folder("events")
    log.write_files(folder)
    stream: dict[str, Any] = {"source": "files", "files": folder}
    with stage.trial("cluster-control", stream) as (context, fold):
        expected = batch_fold(log.logged(context.config.stream), fold, context.config.log)
        return _all_right(Planner(context, RunOptions()), expected)


ROWS: Final[Sequence[HostileRow]] = (
    HostileRow(
        "A1",
        "a stream runs; what of its processes takes connections?",
        "on loopback alone but for what a setting names, and every socket is in the list",
        _listens,
        _listens_control,
        needs=("java",),
    ),
    HostileRow(
        "A13",
        "the job is submitted to a Flink cluster, and its only task manager is killed",
        "it starts, goes on with another, and every memory is the batch fold",
        _cluster,
        _cluster_control,
        needs=("java", "kafka"),
    ),
)
