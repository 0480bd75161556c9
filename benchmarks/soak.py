"""A soak of the stream: steady events while a new bundle is built, loaded and switched to.

    python benchmarks/soak.py [--quick] [--seconds S] [--rate EVENTS_PER_SECOND] [--kill-every S]
                              [--plot FILE]

Everything runs as its users run it: Kafka, `uic stream run --detach`, and in the middle `uic log
compact` and `uic memories upgrade` to another bundle. With --kill-every one thing after the other
is killed -9 meanwhile: the Python worker, the JVM, Redis for one and for nine seconds, Redis put
back to an older copy of its files, the broker. Memory and open files of every process are sampled.
At the end the events of the topic are folded in one batch and every memory in the store is
compared with that, byte for byte.
"""

import itertools
import json
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psutil
import yaml
from harness import arguments, report, say
from process_sampler import Sampler

from uic.feature_repo.store.opened import open_memories
from uic.jobs.config.context import Context, open_context
from uic.jobs.drills.killer import KILLS, RETRY_SECONDS, Killer
from uic.jobs.drills.log import batch_fold
from uic.jobs.drills.trial import start_trial, untrained_bundle
from uic.jobs.stream.letters.topic_reader import read_topic
from uic.jobs.stream.run.lag import lag_of
from uic.jobs.stream.run.planner import Planner, RunOptions
from uic.jobs.stream.run.start_positions import folder_name
from uic.jobs.stream.run.supervisor import running
from uic.jobs.stream.topics.brokers import Brokers
from uic.jobs.stream.topics.kafka_server import KafkaServer
from uic.jobs.stream.topics.produce import Outgoing, Pace, payload_of, send_to_kafka
from uic.models.bundles.bundle import load_bundle
from uic.models.memory.fold import MemoryFolder

TOPIC = "behaviours"
USERS = 20_000


def uic(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "uic", *arguments, "--workspace", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        msg = f"uic {' '.join(arguments)}: {done.stderr[-1000:]}"
        raise RuntimeError(msg)
    say(f"uic {' '.join(arguments)}: {done.stdout.strip() or done.stderr.strip()[-300:]}")
    return done.stdout


def compact(workspace: Path) -> None:
    """Make the log of the archive; its first files come with a checkpoint."""
    until = time.monotonic() + 240
    while True:
        said = uic(workspace, "log", "compact", str(datetime.now(UTC).date()))
        if "nothing new" not in said:
            return
        if time.monotonic() > until:
            msg = "nothing was archived"
            raise RuntimeError(msg)
        time.sleep(5)


def produce(brokers: str, rate: float, ended: threading.Event) -> None:
    draw = np.random.default_rng(3)

    def batches():
        while not ended.is_set():
            ids = (USERS * draw.random(500) ** 2).astype(np.int64)
            items = draw.integers(0, 5000, 500).tolist()
            now = int(time.time() * 1000)
            payloads = [
                payload_of(user, item, item % 100, "click", now)
                for user, item in zip(ids.tolist(), items, strict=True)
            ]
            yield Outgoing(payloads, ids, np.full(500, now, np.int64))

    send_to_kafka(batches(), Brokers(brokers), TOPIC, Pace(rate))


def wait_until_folded(context: Context, generation: int) -> None:
    planner = Planner(context, RunOptions(generation=generation))
    if running(planner.folder / folder_name(generation)) is None:
        msg = f"generation {generation} does not stream any more"
        raise RuntimeError(msg)
    until = time.monotonic() + 180
    while lag_of(planner, generation).events:
        if time.monotonic() > until:
            msg = f"generation {generation} still lags"
            raise RuntimeError(msg)
        time.sleep(0.5)


def differences(context: Context, brokers: str, generation: int, bundle: Path) -> tuple[int, int]:
    """Users compared, and those whose memory is not the batch fold of the topic."""
    folder = MemoryFolder(load_bundle(bundle), generation)
    expected = batch_fold(read_topic(Brokers(brokers), TOPIC), folder, context.config.log)
    with open_memories(context.config.store, context.workspace) as store:
        return len(expected.memories), expected.wrong_in(store.memories, generation)


class Kills(threading.Thread):
    """Kills one thing after the other while `may` is set; the rest of the time it waits."""

    def __init__(self, killer: Killer, kafka: KafkaServer, every: float, sampler: Sampler) -> None:
        super().__init__(daemon=True)
        self.killer = killer
        self.done: list[str] = []
        self.may = threading.Event()
        self.ended = threading.Event()
        self._kafka = kafka
        self._every = every
        self._sampler = sampler

    def run(self) -> None:
        """Kill every `every` seconds until `ended`."""
        for name in itertools.cycle((*KILLS, "broker")):
            if self.ended.wait(self._every):
                return
            self.may.wait()
            line = self._broker() if name == "broker" else self.killer.kill(name)
            self.done.append(name)
            say(f"{time.monotonic() - self._sampler.began:7.1f} s  {line}")
            _follow(self._sampler, self.killer.server.directory)

    def _broker(self) -> str:
        pid = self._kafka.pid
        self._kafka.kill()
        self._kafka.start()
        return f"killed the broker (process {pid}) and started it again"

    def stop(self) -> None:
        """End after the kill at hand."""
        self.may.set()
        self.ended.set()
        self.join(120)


def upgrade(workspace: Path) -> float:
    """Move to the other bundle; seconds that it took."""
    compact(workspace)
    began = time.monotonic()
    uic(workspace, "memories", "upgrade", "--bundle", "mimn/other")
    return time.monotonic() - began


def soak(
    folder: Path, seconds: float, rate: float, every: float | None, sampler: Sampler
) -> dict[str, float]:
    """Run it; the figures."""
    workspace = folder / "workspace"
    workspace.mkdir(parents=True)
    with KafkaServer(folder / "kafka", heap_mib=768) as kafka:
        kafka.create_topic(TOPIC, 4)
        settings = {"brokers": kafka.brokers, "topic": TOPIC, "archive_roll_seconds": 10.0}
        if every is not None:
            settings["retry_seconds"] = RETRY_SECONDS
        (workspace / "uic.yaml").write_text(yaml.safe_dump({"stream": settings}))
        context = open_context(workspace, None)
        server, _ = start_trial(context)
        other = workspace / "bundles" / "mimn" / "other"
        untrained_bundle(other, items=4000, categories=100)
        ended = threading.Event()
        sender = threading.Thread(target=produce, args=(kafka.brokers, rate, ended), daemon=True)
        killer = Killer(Planner(context, RunOptions(generation=1)), server, lambda: True)
        kills = Kills(killer, kafka, every or 1.0, sampler)
        try:
            _follow(sampler, server.directory)
            uic(workspace, "stream", "run", "--detach")
            _follow_stream(sampler, workspace, 1)
            sender.start()
            if every is not None:
                kills.may.set()
                kills.start()
            time.sleep(seconds / 2)
            kills.may.clear()
            upgraded = upgrade(workspace)
            killer.generation = 2
            _follow_stream(sampler, workspace, 2)
            uic(workspace, "stream", "status")
            kills.may.set()
            time.sleep(max(0.0, seconds / 2 - upgraded))
            if every is not None:
                kills.stop()
            ended.set()
            sender.join(60)
            wait_until_folded(context, 2)
            sampler.ended.set()  # what follows is the harness's own work
            users, wrong = differences(context, kafka.brokers, 2, other)
        finally:
            ended.set()
            for generation in ("1", "2"):
                try:
                    uic(workspace, "stream", "stop", "--generation", generation)
                except RuntimeError as error:
                    say(str(error))
            sampler.ended.set()
            server.stop()
    return {
        "users": users,
        "wrong_memories": wrong,
        "upgrade_seconds": round(upgraded, 1),
        "kills": len(kills.done),
    }


def _follow(sampler: Sampler, store: Path) -> None:
    pid = json.loads((store / "server.json").read_text())["pid"]
    sampler.roots.append(psutil.Process(pid))


def _follow_stream(sampler: Sampler, workspace: Path, generation: int) -> None:
    found = running(workspace / "stream" / folder_name(generation))
    if found is not None:
        sampler.roots += [psutil.Process(found["pid"]), psutil.Process(found["attempt_pid"])]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--rate", type=float, default=10_000.0, help="events a second")
    parser.add_argument("--kill-every", type=float, help="seconds between two kills; default: none")
    parser.add_argument("--plot", type=Path, help="where to draw the memory of processes")
    options = parser.parse_args()
    seconds = 20.0 if options.quick else options.seconds
    rate = 1000.0 if options.quick else options.rate
    sampler = Sampler()
    sampler.start()
    with tempfile.TemporaryDirectory(prefix="uic-soak-") as name:
        figures = soak(Path(name), seconds, rate, options.kill_every, sampler)
    growth = sampler.growth()
    if options.plot:
        sampler.plot(options.plot)
    report(
        "soak",
        ours={
            **figures,
            "seconds": seconds,
            "events_per_second": rate,
            "growth": growth,
        },
        peers={},
        ratios={
            "wrong_memories": figures["wrong_memories"],
            "largest_memory_growth": max((kind["memory"] for kind in growth.values()), default=1.0),
            "largest_file_growth": max((kind["files"] for kind in growth.values()), default=1.0),
        },
        # Twenty seconds are all warm-up.
        targets={"wrong_memories": "<=0"}
        | (
            {}
            if options.quick
            else {"largest_memory_growth": "<=1.1", "largest_file_growth": "<=1.1"}
        ),
        packages=("apache-flink", "redis", "torch"),
    )


if __name__ == "__main__":
    main()
