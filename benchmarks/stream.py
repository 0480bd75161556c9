"""The stream job against the idiomatic PyFlink job: Kafka to memories in Redis, end to end.

    python benchmarks/stream.py [--quick] [--users N] [--events N]

Same machine, same Kafka, same events, same Redis (append-only file, every write synced), one after
the other. The peers are `peers/stream_keyed.py`: keyed `ValueState` and one torch step an event,
written through Feast per event, per 1,000 events with large bundles, and per 1,000 in thread mode.
Rates are between the first and the last event seen, so the start of Java is left out.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from harness import arguments, report, say
from running_stream import PARTITIONS, Ours

from uic.jobs.drills.trial import start_trial, trial_context
from uic.jobs.stream.topics.brokers import Brokers
from uic.jobs.stream.topics.java import jars, java_home
from uic.jobs.stream.topics.kafka_server import KafkaServer, free_port
from uic.jobs.stream.topics.produce import Outgoing, Pace, payload_of, send_to_kafka

HERE = Path(__file__).resolve().parent
SEND_ROWS = 50_000
PEERS = {
    "per_event": {"rows_per_write": 1, "mode": "process", "bundle_size": 1000},
    "per_1000": {"rows_per_write": 1000, "mode": "process", "bundle_size": 20_000},
    "per_1000_threads": {"rows_per_write": 1000, "mode": "thread", "bundle_size": 20_000},
}
TARGETS = {"per_event": ">=300", "per_1000": ">=50", "per_1000_threads": ">=25"}


def fill(brokers: str, topic: str, events: int, users: int) -> None:
    draw = np.random.default_rng(users)
    for first in range(0, events, SEND_ROWS):
        count = min(SEND_ROWS, events - first)
        ids = draw.integers(0, users, count)
        items = draw.integers(0, 5000, count)
        now = int(time.time() * 1000)
        payloads = [
            payload_of(user, item, item % 100, "click", now)
            for user, item in zip(ids.tolist(), items.tolist(), strict=True)
        ]
        batch = Outgoing(payloads, ids, np.full(count, now, np.int64))
        send_to_kafka([batch], Brokers(brokers), topic, Pace())


def ours_rate(folder: Path, brokers: str, topic: str, events: int) -> dict[str, Any]:
    """Events per second between 5 % and 100 % of the log, and the workers' time by stage."""
    seen: list[tuple[float, int]] = []
    with Ours(folder, brokers, topic) as ours:
        while not seen or seen[-1][1] < events:
            if not ours.thread.is_alive():
                msg = "the stream ended early"
                raise RuntimeError(msg)
            time.sleep(0.05)
            seen.append((time.monotonic(), ours.folded()))
        time.sleep(1.5)
        status = ours.status()
    running = [entry for entry in seen if entry[1] >= 0.05 * events]
    (began, first), (ended, last) = running[0], running[-1]
    return {
        "events_per_second": round((last - first) / (ended - began)),
        "stages": {name: round(share, 3) for name, share in status.stage_shares().items()},
    }


def peer_rate(
    folder: Path, kafka: KafkaServer, topic: str, options: dict[str, Any], seconds: float
):
    """Events per second of the idiomatic job over `seconds` after its first events."""
    folder.mkdir(parents=True)
    context = trial_context(folder / "workspace", {})
    port = free_port()
    # Feast's own store knows no Unix sockets.
    server, _ = start_trial(context, options=("--port", str(port)))
    progress = folder / "progress"
    progress.touch()
    document = {
        **options,
        "bundle": str(context.bundles / "mimn" / "untrained"),
        "feast": str(folder / "feast"),
        "redis_port": port,
        "brokers": kafka.brokers,
        "topic": topic,
        "jar": str(jars("flink")[0]),
        "checkpoints": str(folder / "checkpoints"),
        "progress": str(progress),
    }
    (folder / "options.json").write_text(json.dumps(document))
    site = str(Path(np.__file__).resolve().parents[1])
    environment = {
        **os.environ,
        "JAVA_HOME": str(java_home()),
        "FLINK_LOG_DIR": str(folder),
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent), site]),
        "OMP_NUM_THREADS": "1",
    }
    with (folder / "out.log").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "peers" / "stream_keyed.py"), str(folder / "options.json")],
            stdout=out,
            stderr=out,
            env=environment,
            start_new_session=True,
        )
    try:
        return _progress_rate(process, progress, seconds, folder)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        server.stop()


def _progress_rate(process, progress: Path, seconds: float, folder: Path) -> dict[str, Any]:
    began = None
    until = time.monotonic() + 240
    while time.monotonic() < until:
        time.sleep(0.5)
        lines = [line.split() for line in progress.read_text().splitlines()]
        lines = [line for line in lines if len(line) == 2]
        if lines and began is None:
            began = time.monotonic()
        ended = process.poll() is not None
        if began is not None and (time.monotonic() - began >= seconds or ended) and len(lines) > 1:
            (first, before), (last, after) = lines[0], lines[-1]
            rate = (int(after) - int(before)) / (float(last) - float(first))
            return {"events_per_second": round(rate)}
        if ended:
            break
    tail = (folder / "out.log").read_text(errors="replace")[-2000:]
    msg = f"the idiomatic job made no progress: {tail}"
    raise RuntimeError(msg)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--events", type=int, default=2_000_000, help="events of ours' run")
    parser.add_argument("--users", type=int, action="append", help="users; may be repeated")
    parser.add_argument("--peer-seconds", type=float, default=25.0)
    options = parser.parse_args()
    events = 60_000 if options.quick else options.events
    users = options.users or ([1000] if options.quick else [1000, 50_000, 1_000_000])
    peer_seconds = 5.0 if options.quick else options.peer_seconds
    names = ("per_1000",) if options.quick else tuple(PEERS)
    with tempfile.TemporaryDirectory(prefix="uic-bench-stream-") as name:
        folder = Path(name)
        with KafkaServer(folder / "kafka", heap_mib=1024) as kafka:
            ours: dict[str, Any] = {}
            peers: dict[str, dict[str, Any]] = {peer: {} for peer in names}
            for count in users:
                topic = f"users-{count}"
                kafka.create_topic(topic, PARTITIONS)
                fill(kafka.brokers, topic, events, count)
                say(f"{events:,} events of {count:,} users are in Kafka")
                found = ours_rate(folder / f"ours-{count}", kafka.brokers, topic, events)
                say(f"ours, {count:,} users: {found}")
                ours[f"users_{count}"] = found
                for peer in names:
                    place = folder / f"{peer}-{count}"
                    peers[peer][f"users_{count}"] = peer_rate(
                        place, kafka, topic, PEERS[peer], peer_seconds
                    )
                    say(f"{peer}, {count:,} users: {peers[peer][f'users_{count}']}")
    # The smallest advantage over all numbers of users.
    ratios = {
        peer: min(
            ours[key]["events_per_second"] / max(1, figures[key]["events_per_second"])
            for key in figures
        )
        for peer, figures in peers.items()
    }
    targets = {peer: TARGETS[peer] for peer in names}
    report(
        "stream",
        ours=ours,
        peers=peers,
        ratios=ratios,
        targets=targets,
        packages=("apache-flink", "feast", "torch", "numpy", "redis"),
    )


if __name__ == "__main__":
    main()
