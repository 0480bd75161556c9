"""A small real bundle, and logs of a few days."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from uic.models.bundles.saving import save_bundle
from uic.models.rankers.catalogue import model_kind
from uic.models.samples.vocabulary import IdTable, Vocabulary
from uic.models.state.definition import StateDefinition
from uic.models.training.run_spec import Days, RunSpec
from uic.models.training.settings import TrainSettings
from uic.models.training.trainer import Trained
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.schemas import BEHAVIORS
from uic.pipelines.log.writer import LogWriter, Part
from uic.pipelines.memories.build import MemoriesRequest
from uic.pipelines.settings import MemoriesSettings, SaleSettings

FIRST = date(2024, 3, 1)


def untrained_bundle(
    path: Path, seed: int = 0, items: int = 50, state: StateDefinition | None = None
) -> Path:
    """A bundle of the product's own size with random weights, and exact parts behind them."""
    kind = model_kind("mimn")
    settings = kind.settings()
    ids = np.arange(1, items + 1)
    vocabulary = Vocabulary(item=IdTable(ids, 8), category=IdTable(np.arange(1, 9), 4))
    torch.manual_seed(seed)
    model = kind.build(settings, vocabulary.item.rows, vocabulary.category.rows).eval()
    day = FIRST
    spec = RunSpec("mimn", settings, TrainSettings(), Days(day, day), seed, "test", "0" * 64)
    save_bundle(path, Trained(spec, model, vocabulary, None, [], []), state=state)
    return path


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_bundle(tmp_path_factory.mktemp("bundles") / "mimn" / "1")


@pytest.fixture(scope="session")
def other_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_bundle(tmp_path_factory.mktemp("bundles") / "mimn" / "2", seed=1)


def random_behaviors(days: int, events: int, users: int = 30, seed: int = 0) -> pa.Table:
    """Behaviours of `days` days from FIRST, some users busy and some quiet."""
    rng = np.random.default_rng(seed)
    start = datetime(FIRST.year, FIRST.month, FIRST.day, tzinfo=UTC)
    seconds = np.sort(rng.integers(0, days * 86_400, events))
    times = [start + timedelta(seconds=int(second)) for second in seconds]
    return pa.table(
        {
            "user_id": pa.array((rng.pareto(1.0, events) * 3).astype(np.int64) % users),
            "item_id": pa.array(rng.integers(1, 70, events)),
            "category_id": pa.array(rng.integers(1, 12, events)),
            "behavior": pa.array([BEHAVIORS[at] for at in rng.integers(0, 4, events)]),
            "event_time": pa.array(times, pa.timestamp("ms", "UTC")).cast(pa.timestamp("ms")),
            "source": pa.array([("app", "web", None)[at] for at in rng.integers(0, 3, events)]),
        }
    )


def write_log(root: Path, behaviors: pa.Table, name: str = "test") -> EventLog:
    log = EventLog(root)
    with LogWriter(log, Part(name), time_zone="UTC", partitions=3) as writer:
        writer.add_behaviors(behaviors)
        writer.publish()
    return log


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture(scope="module")
def request_for(root: Path, bundle: Path) -> Callable[..., MemoriesRequest]:
    """A build over `root / "log"`, with whatever is different."""

    def make(until: date, **changes: object) -> MemoriesRequest:
        settings: dict[str, object] = {
            "log": root / "log",
            "memories": root / "memories",
            "bundle": bundle,
            "until": until,
            "time_zone": "UTC",
            "memories_settings": MemoriesSettings(buckets=3),
            "sale": SaleSettings(),
        }
        return MemoriesRequest(**(settings | changes))

    return make


@pytest.fixture(scope="module")
def small_log(root: Path) -> EventLog:
    return write_log(root / "log", random_behaviors(days=6, events=900))
