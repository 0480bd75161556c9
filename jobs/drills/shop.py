"""A small shop for the rollback drill: a simulated log up to midnight, a trained model, memories.

The simulated days are the log of an import, a day that will happen (held back), and the day after
it, of which only impressions matter: they judge the memories, and no memory has seen them.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray

from uic.feature_repo.snapshots.published_values import load_values
from uic.feature_repo.snapshots.snapshots import Snapshot
from uic.feature_repo.store.opened import open_memories
from uic.feature_repo.store.settings_file import CONFIG_NAME
from uic.jobs.config.context import Context, open_context
from uic.jobs.demo.processes import answers, end_session
from uic.jobs.drills.errors import DrillFailedError
from uic.jobs.drills.trial import every_part
from uic.jobs.replay.client import RankingClient
from uic.jobs.replay.day import DayImpressions, HeldDay, open_day
from uic.jobs.replay.destination import EventFiles
from uic.jobs.replay.hold_back import hold_back
from uic.jobs.replay.run import FOLDER as HELD_FOLDER
from uic.jobs.stream.topics.kafka_server import free_port
from uic.models.bundles.saving import save_bundle
from uic.models.bundles.shelf import BundleShelf
from uic.models.samples.reader import SamplesReader
from uic.models.training.metrics import auc
from uic.models.training.run_spec import Days, RunSpec, apply_settings
from uic.models.training.trainer import Trainer
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.memories.build import MemoriesRequest, build_memories
from uic.pipelines.memories.exclude import ExcludeRule
from uic.pipelines.samples.run import SamplesRequest, make_samples
from uic.pipelines.simulator.plan import SimulationPlan
from uic.pipelines.simulator.write import write_simulation

VERSION: Final = "drill"
_READY_SECONDS: Final = 300.0
# Short delays, and patience with a busy machine: what is slow is not to look like a failure.
_SETTINGS: Final[dict[str, Any]] = {
    "log": {"partitions": 2},
    "store": {"pointer_refresh_seconds": 0.2, "switch_delay_seconds": 1.0},
    "stream": {
        "source": "files",
        "batch_rows": 1000,
        "checkpoint_seconds": 1.0,
        "archive_roll_seconds": 1.0,
        "backoff_seconds": 0.5,
    },
    "serve": {"store_timeout_ms": 10_000, "request_timeout_ms": 120_000, "drain_seconds": 0},
    "audit": {"sample_rate": 1.0, "feast_users": 50},
}


@dataclass(frozen=True)
class ShopSize:
    """How much is simulated, and how long the model trains.

    Args:
        users: of the shop.
        items: of the shop.
        days: simulated, the poisoned one and the one after it included.
        impressions_per_user_day: of which some are clicked.
        epochs: passes over the days of training.
    """

    users: int = 600
    items: int = 400
    days: int = 14
    impressions_per_user_day: float = 4.0
    epochs: int = 4


@dataclass(frozen=True)
class Probe(DayImpressions):
    """Impressions of the day after the poisoned one; the same ones judge every memory."""

    def measure(self, url: str) -> tuple[float, float]:
        """AUC through the running service: with its memories, and without any."""
        client = RankingClient(url)
        try:
            ranked = client.rank_all(self)
        finally:
            client.close()
        return auc(ranked.scores, self.clicked), auc(ranked.without_memory, self.clicked)


@dataclass(frozen=True)
class Shop:
    """The shop at midnight.

    Args:
        context: its workspace and settings.
        day: that will happen.
        probe: of the day after it.
        midnight: snapshot of all memories, live as generation 1.
        categories: of each item.
    """

    context: Context
    day: HeldDay
    probe: Probe
    midnight: Snapshot
    categories: dict[int, int]

    @property
    def events(self) -> EventFiles:
        """What is streamed."""
        return EventFiles(self.context.workspace / "events", self.context.config.log.partitions)


def open_shop(workspace: Path, size: ShopSize, seed: int) -> Shop:
    """Make the shop in an empty workspace; its Redis runs already."""
    workspace.mkdir(parents=True, exist_ok=True)
    (workspace / CONFIG_NAME).write_text(yaml.safe_dump(_SETTINGS), encoding="utf-8")
    context = open_context(workspace, None)
    plan = SimulationPlan.of(
        users=size.users,
        items=size.items,
        days=size.days,
        seed=seed,
        impressions_per_user_day=size.impressions_per_user_day,
    )
    log = EventLog(context.log)
    write_simulation(plan, log, context.config.log)
    after, day = plan.last_day, plan.last_day - timedelta(days=1)
    hold_back(context.log, workspace / HELD_FOLDER, day)
    _train(context, plan.first_day + timedelta(days=1), day - timedelta(days=1), size.epochs, seed)
    midnight = build(context, day - timedelta(days=1), generation=1)
    with open_memories(context.config.store, workspace) as store:
        load_values(midnight, store.memories, store.generations)
        store.generations.switch(1, 0.0)
    return Shop(
        context,
        open_day(context.log, workspace / HELD_FOLDER),
        _probe(log, after, midnight.ids()),
        midnight,
        _categories(log),
    )


def build(
    context: Context,
    until: date,
    *,
    generation: int,
    start: Path | None = None,
    rules: tuple[ExcludeRule, ...] = (),
) -> Snapshot:
    """`uic memories build` with the shop's bundle."""
    request = MemoriesRequest(
        log=context.log,
        memories=context.memories,
        bundle=context.bundles / "mimn" / VERSION,
        until=until,
        time_zone=context.config.time_zone,
        memories_settings=context.config.memories,
        sale=context.config.sale,
        start=start,
        rules=rules,
        generation=generation,
    )
    return build_memories(request)


@contextmanager
def ranking_service(context: Context, bundle: str = f"mimn/{VERSION}") -> Iterator[str]:
    """`uic serve` in a process of its own; its URL."""
    port = free_port()
    words = ["serve", "--bundle", bundle, "--port", str(port)]
    log = context.workspace / "serve.log"
    with log.open("wb") as out:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "uic", *words, "--workspace", str(context.workspace)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + _READY_SECONDS
        while not answers(port, "/readyz"):
            if process.poll() is not None or time.monotonic() > until:
                text = log.read_text(encoding="utf-8", errors="replace")[-300:]
                msg = f"the ranking service does not answer; {log}: {text}"
                raise DrillFailedError(msg)
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        end_session(process)


def _train(context: Context, first: date, last: date, epochs: int, seed: int) -> None:
    samples = context.samples / VERSION
    make_samples(
        SamplesRequest(
            log=context.log,
            output=samples,
            first=first,
            last=last,
            time_zone=context.config.time_zone,
            samples=context.config.samples,
            sale=context.config.sale,
        )
    )
    reader = SamplesReader(samples)
    changes = [f"epochs={epochs}", "learning_rate=0.005", "min_count=1"]
    settings, training = apply_settings("mimn", context.config.train, changes)
    spec = RunSpec(
        model="mimn",
        settings=settings,
        training=training,
        days=Days(first, last),
        seed=seed,
        samples=reader.name,
        samples_sha256=reader.manifest_sha256(),
    )
    trained = Trainer(reader, spec).run()
    save_bundle(context.bundles / "mimn" / VERSION, trained, state=every_part())
    BundleShelf(context.bundles).choose("mimn", VERSION)


def _probe(log: EventLog, day: date, known: NDArray[np.int64]) -> Probe:
    tables = [pq.read_table(file.path) for file in log.impression_files(day, day)]
    table = pa.concat_tables(tables)
    users = table.column("user_id").to_numpy()
    chosen = np.isin(users, known)
    return Probe(
        users[chosen],
        table.column("item_id").to_numpy()[chosen],
        table.column("event_time").cast(pa.int64()).to_numpy()[chosen],
        table.column("clicked").to_numpy()[chosen],
    )


def _categories(log: EventLog) -> dict[int, int]:
    path = log.items_file()
    if path is None:
        msg = f"{log.root}: the simulated log has no table of items"
        raise DrillFailedError(msg)
    table = pq.read_table(path, columns=["item_id", "category_id"])
    columns = [table.column(name).to_pylist() for name in ("item_id", "category_id")]
    return dict(zip(*columns, strict=True))
