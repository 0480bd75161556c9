"""The crash drill: kill everything that streams, several times, and look whether it ends right.

`uic drill crash` runs it in a folder of its own, on a real Kafka (or files), Flink and Redis:

1. Write a log of events, a few of them malformed.
2. Stream it. When the store's markers reach a point chosen by the seed, kill -9 the Python worker,
   the JVM or redis-server, or put Redis back to a copy of its files from before.
3. Fold the same log in one batch, without Flink and without a store.
4. Compare every memory, byte for byte, and the dead letters with what the parser says.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from uic.feature_repo.store.packed import PackedStore
from uic.feature_repo.store.server import EmbeddedRedis
from uic.jobs.config.config import load_config
from uic.jobs.config.context import Context
from uic.jobs.drills.errors import DrillFailedError
from uic.jobs.drills.killer import RETRY_SECONDS, Killer
from uic.jobs.drills.log import DrillLog, batch_fold
from uic.jobs.drills.trial import start_trial, trial_context
from uic.jobs.stream.letters.dead_letters import letters_of
from uic.jobs.stream.run.planner import Planner, RunOptions
from uic.jobs.stream.run.supervisor import Supervisor
from uic.jobs.stream.topics.brokers import Brokers
from uic.jobs.stream.topics.java import jars_root
from uic.jobs.stream.topics.kafka_server import KafkaServer
from uic.models.memory.fold import MemoryFolder

_OLD_AGE_SECONDS: Final = 1200.0


@dataclass(frozen=True)
class DrillOptions:
    """What a drill does.

    Args:
        source: kafka or files.
        events: of the log.
        users: who cause them, unevenly.
        partitions: of the log.
        kills: what is killed, in this order.
        seed: of the log and of the moments of the kills.
        position_check: False replays events twice; then the drill must fail.
    """

    source: str = "kafka"
    events: int = 200_000
    users: int = 5000
    partitions: int = 4
    kills: tuple[str, ...] = ("worker", "redis", "java", "away", "restore", "worker", "java")
    seed: int = 1
    position_check: bool = True


@dataclass
class DrillReport:
    """What happened: kills with their moments, and how much was compared."""

    kills: list[str] = field(default_factory=list)
    users: int = 0
    wrong: int = 0
    rejects: int = 0
    wrong_rejects: int = 0
    seconds: float = 0.0


def run_drill(folder: Path, options: DrillOptions, say: Callable[[str], None]) -> DrillReport:
    """Run one drill in `folder`, which must be empty or new.

    Raises:
        DrillFailedError: a memory or a dead letter differs; says how many.
        UicError: the stream did not get to its end.
    """
    log = DrillLog.make(options.events, options.users, options.partitions, options.seed)
    with _source(folder, options, log) as settings:
        context = trial_context(
            folder / "workspace",
            {
                **settings,
                "source": options.source,
                "batch_rows": 1000,
                "checkpoint_seconds": 2.0,
                "archive_roll_seconds": 4.0,
                "backoff_seconds": 0.5,
                "retry_seconds": RETRY_SECONDS,
            },
        )
        server, fold = start_trial(context)
        try:
            report = _streamed(context, server, options, say)
            _compare(context, log, fold, report)
        finally:
            server.stop()
    say(
        f"compared {report.users:,} memories and {report.rejects:,} dead letters with the batch "
        f"fold: {report.wrong:,} and {report.wrong_rejects:,} differ"
    )
    if report.wrong or report.wrong_rejects:
        msg = (
            f"{folder}: {report.wrong} of {report.users} memories and {report.wrong_rejects} dead "
            f"letters differ from the batch fold after {len(report.kills)} kills"
        )
        raise DrillFailedError(msg)
    return report


@contextmanager
def _source(folder: Path, options: DrillOptions, log: DrillLog) -> Iterator[dict[str, Any]]:
    """The log in a Kafka topic or in files, and the settings that name it."""
    if options.source == "files":
        log.write_files(folder / "events")
        yield {"files": folder / "events"}
        return
    root = jars_root(load_config(None).stream.jars_folder, folder)
    with KafkaServer(folder / "kafka", jars_root=root) as kafka:
        kafka.create_topic("behaviours", options.partitions)
        kafka.create_topic("dead-letters", 1)
        log.send(Brokers(kafka.brokers), "behaviours")
        yield {"brokers": kafka.brokers, "dead_letter_topic": "dead-letters"}


def _streamed(
    context: Context, server: EmbeddedRedis, options: DrillOptions, say: Callable[[str], None]
) -> DrillReport:
    """Stream to the end while things are killed."""
    report = DrillReport()
    began = time.monotonic()
    run = RunOptions(until_end=True, position_check=options.position_check)
    planner = Planner(context, run)
    failure: list[Exception] = []

    def supervise() -> None:
        try:
            Supervisor(planner, say).run()
        except Exception as error:
            failure.append(error)

    supervision = threading.Thread(target=supervise)
    supervision.start()
    killer = Killer(planner, server, supervision.is_alive)
    try:
        for name, at in _schedule(options):
            if not killer.wait_for(at):
                break
            text = f"{time.monotonic() - began:6.1f} s  {killer.kill(name)}"
            report.kills.append(text)
            say(text)
        supervision.join(_OLD_AGE_SECONDS)
    finally:
        server.start()
    if supervision.is_alive():
        failure.append(DrillFailedError("the stream did not come to its end"))
    if failure:
        raise failure[0]
    report.seconds = time.monotonic() - began
    return report


def _schedule(options: DrillOptions) -> list[tuple[str, int]]:
    """What to kill when so many events are folded."""
    kills = options.kills
    share = options.events / (len(kills) + 1)
    moments = np.random.default_rng(options.seed).uniform(0.1, 0.9, len(kills))
    return [
        (name, int((index + moment) * share))
        for index, (name, moment) in enumerate(zip(kills, moments.tolist(), strict=True))
    ]


def _compare(context: Context, log: DrillLog, fold: MemoryFolder, report: DrillReport) -> None:
    """Steps 3 and 4."""
    planner = Planner(context, RunOptions(generation=1))
    store = PackedStore(planner.client, planner.keys, address=str(planner.address))
    expected = batch_fold(log.logged(context.config.stream), fold, context.config.log)
    report.users = len(expected.memories)
    report.wrong = expected.wrong_in(store, 1)
    letters = {(letter.partition, letter.offset): letter.reason for letter in letters_of(context)}
    report.rejects = len(expected.rejects)
    report.wrong_rejects = len(expected.rejects.items() ^ letters.items())
