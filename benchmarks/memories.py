"""Memories from the log: a warm-up on one core and two, its cost per event, and the way into Redis.

    python benchmarks/memories.py [--quick] [--events 1000000 4000000]

- warm-up: `uic memories build`'s pipeline over a generated log of click streams with a long tail
  of users, in a process of its own per run, held to one core or two (a build folds two buckets at
  once in one process);
- per_user_pandas: the same log read with pandas, grouped by user, one step of the same network per
  event, as a notebook would do it, on a slice of the users;
- loading: `uic memories load` against `feast materialize` of the same snapshot.
"""

import logging
import os
import shutil
import statistics
import tempfile
import time
import warnings
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from harness import arguments, in_process, report, say

from uic.feature_repo.snapshots.published_values import load_values, point_current_to
from uic.feature_repo.snapshots.snapshots import Snapshot
from uic.feature_repo.store.connection import Address, connect
from uic.feature_repo.store.generations import Generations
from uic.feature_repo.store.layout import ViewKeys
from uic.feature_repo.store.packed import PackedStore
from uic.feature_repo.store.server import EmbeddedRedis
from uic.feature_repo.store.settings import StoreSettings
from uic.models.bundles.bundle import load_bundle
from uic.models.bundles.saving import save_bundle
from uic.models.rankers.catalogue import model_kind
from uic.models.samples.vocabulary import IdTable, Vocabulary
from uic.models.training.run_spec import Days, RunSpec
from uic.models.training.settings import TrainSettings
from uic.models.training.trainer import Trained
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.schemas import BEHAVIORS
from uic.pipelines.log.writer import LogWriter, Part
from uic.pipelines.memories.build import MemoriesRequest, build_memories
from uic.pipelines.settings import MemoriesSettings, SaleSettings

FIRST, DAYS = date(2024, 1, 1), 120
UNTIL = FIRST + timedelta(days=DAYS - 1)
ITEMS, CATEGORIES = 100_000, 500
EVENTS_PER_USER = 50
LOADED_USERS = 100_000  # the largest snapshot of no more users is the one that is loaded
CHUNK = 1_000_000
PANDAS_EVENTS = 3_000


def make_bundle(path: Path) -> Path:
    """A bundle of the product's own size; its weights are random, which costs the same."""
    kind = model_kind("mimn")
    settings = kind.settings()
    vocabulary = Vocabulary(
        item=IdTable(np.arange(ITEMS), 1000), category=IdTable(np.arange(CATEGORIES), 10)
    )
    torch.manual_seed(0)
    model = kind.build(settings, vocabulary.item.rows, vocabulary.category.rows).eval()
    spec = RunSpec("mimn", settings, TrainSettings(), Days(FIRST, FIRST), 0, "none", "0" * 64)
    save_bundle(path, Trained(spec, model, vocabulary, None, [], []))
    return path


def make_log(root: Path, events: int) -> None:
    """Behaviours of `events / EVENTS_PER_USER` users over 120 days; few users have very many."""
    rng = np.random.default_rng(0)
    users = events // EVENTS_PER_USER
    start = np.datetime64(FIRST, "ms")
    with LogWriter(EventLog(root), Part("generated"), time_zone="UTC", partitions=4) as writer:
        for at in range(0, events, CHUNK):
            count = min(CHUNK, events - at)
            items = (rng.pareto(1.0, count) * 50).astype(np.int64) % ITEMS
            times = start + rng.integers(0, DAYS * 86_400_000, count).astype("timedelta64[ms]")
            codes = pa.array(rng.choice(4, count, p=[0.9, 0.05, 0.03, 0.02]), pa.int8())
            writer.add_behaviors(
                pa.table(
                    {
                        "user_id": (users * rng.random(count) ** 1.5).astype(np.int64),
                        "item_id": items,
                        "category_id": items % CATEGORIES,
                        "behavior": pa.DictionaryArray.from_arrays(codes, list(BEHAVIORS)),
                        "event_time": pa.array(times),
                    }
                )
            )
        writer.publish()


def warm_up(folder: str, bundle: str, out: str, cores: int) -> dict[str, Any]:
    """One build on so many cores; runs in a process of its own."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    request = MemoriesRequest(
        log=Path(folder),
        memories=Path(out),
        bundle=Path(bundle),
        until=UNTIL,
        time_zone="UTC",
        memories_settings=MemoriesSettings(),
        sale=SaleSettings(),
    )
    started = time.perf_counter()
    snapshot = build_memories(request)
    return {"seconds": time.perf_counter() - started, "path": str(snapshot.path)}


def per_user_pandas(log: Path, bundle_path: Path) -> float:
    """Events a second of one step per event and user; stops after `PANDAS_EVENTS` events."""
    torch.set_num_threads(1)
    bundle = load_bundle(bundle_path)
    files = [file.path for file in EventLog(log).behavior_files()]
    frame = pd.concat([pd.read_parquet(path) for path in files])
    frame = frame[frame.user_id < frame.user_id.max() // 100]
    done, started = 0, time.perf_counter()
    with torch.no_grad():
        for _, events in frame.sort_values(["epoch", "offset"]).groupby("user_id"):
            state = bundle.memory.initial(1)
            for event in events.itertuples():
                x = bundle.embed(np.array([event.item_id]), np.array([event.category_id]))
                state = bundle.memory.step(state, x)
                done += 1
            if done >= PANDAS_EVENTS:
                break
    return done / (time.perf_counter() - started)


def loading(snapshot: Snapshot, workspace: Path) -> dict[str, float]:
    """Seconds of both ways into an empty Redis with every write synced."""
    warnings.filterwarnings("ignore")
    # Here, and not in every process of a build: importing Feast takes seconds.
    from uic.feature_repo.plugin.repository import materialize_memories  # noqa: PLC0415 - see above

    server = EmbeddedRedis(workspace / "redis")
    running = server.start()
    seconds = {}
    try:
        client = connect(Address.at(running.address))
        keys = ViewKeys.of_memories("uic")
        started = time.perf_counter()
        load_values(snapshot, PackedStore(client, keys), Generations(client, keys))
        seconds["load"] = time.perf_counter() - started
        client.flushall()
        point_current_to(snapshot.path)
        started = time.perf_counter()
        materialize_memories(StoreSettings(address=running.address), workspace, snapshot)
        seconds["feast_materialize"] = time.perf_counter() - started
        assert client.dbsize() >= snapshot.rows
        client.close()
    finally:
        server.stop()
    return seconds


def measure(folder: Path, sizes: list[int]) -> None:
    bundle = make_bundle(folder / "bundles" / "mimn" / "1")
    figures: dict[str, Any] = {}
    rates: dict[str, float] = {}
    per_event_us = []
    snapshot: Snapshot | None = None
    for events in sizes:
        log = folder / f"log-{events}"
        started = datetime.now(UTC)
        make_log(log, events)
        say(f"log of {events:,} events made in {(datetime.now(UTC) - started).seconds} s")
        for cores in (1, 2):
            out = folder / f"out-{events}-{cores}" / "memories"
            run = in_process(warm_up, str(log), str(bundle), str(out), cores)
            seconds = run["result"]["seconds"]
            say(f"{events:,} events, {cores} cores: {seconds:.1f} s")
            name = f"{events // 1000}k_{cores}_core{'s' if cores > 1 else ''}"
            figures[f"events_per_s_{name}"] = round(events / seconds)
            figures[f"peak_memory_mib_{name}"] = run["peak_memory_mib"]
            rates[str(cores)] = events / seconds
            if cores == 1:
                per_event_us.append(1e6 * seconds / events)
                if snapshot is None or events <= LOADED_USERS * EVENTS_PER_USER:
                    snapshot = Snapshot.open(Path(run["result"]["path"]))
            else:
                shutil.rmtree(out)
    pandas_rate = per_user_pandas(folder / f"log-{sizes[0]}", bundle)
    assert snapshot is not None
    loaded = loading(snapshot, snapshot.path.parents[2])
    figures |= {
        "us_per_event_smallest": round(per_event_us[0], 2),
        "us_per_event_largest": round(per_event_us[-1], 2),
        "users_loaded": snapshot.rows,
        "load_s": round(loaded["load"], 2),
        "load_users_per_s": round(snapshot.rows / loaded["load"]),
    }
    report(
        "memories",
        ours=figures,
        peers={
            "per_user_pandas": {"events_per_s": round(pandas_rate)},
            "feast_materialize": {
                "seconds": round(loaded["feast_materialize"], 2),
                "users_per_s": round(snapshot.rows / loaded["feast_materialize"]),
            },
        },
        ratios={
            "per_user_pandas": rates["1"] / pandas_rate,
            "two_cores_over_one": rates["2"] / rates["1"],
            "largest_over_smallest_us_per_event": per_event_us[-1]
            / statistics.mean(per_event_us[:1]),
            "load_over_feast_materialize": loaded["feast_materialize"] / loaded["load"],
        },
        targets={"per_user_pandas": ">=10", "largest_over_smallest_us_per_event": "<=1.2"},
        packages=("apache-beam", "feast", "numpy", "pandas", "pyarrow", "torch"),
    )


def main() -> None:
    parser = arguments("memories from the log, and into Redis")
    parser.add_argument("--events", type=int, nargs="+", default=[1_000_000, 5_000_000, 20_000_000])
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    os.environ.setdefault("PYTHONWARNINGS", "ignore")  # httplib2's, in every process of a build
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), [50_000] if options.quick else options.events)


if __name__ == "__main__":
    main()
