"""`feast materialize` killed in the middle: reads are answered, and the next one ends the work."""

import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import redis
from feast import FeatureStore

from tests.feature_repo.test_loading import CUT_MS, write_snapshot
from uic.feature_repo.plugin.repository import REPOSITORY, apply_definitions, open_feature_store
from uic.feature_repo.snapshots.published_values import load_values, point_current_to
from uic.feature_repo.snapshots.snapshots import Snapshot
from uic.feature_repo.store.generations import Generations, State
from uic.feature_repo.store.layout import ViewKeys
from uic.feature_repo.store.packed import PackedStore
from uic.feature_repo.store.settings import StoreSettings
from uic.models.records.record import header_view

# Importing Feast takes ten seconds of an idle machine, and minutes of a busy one.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

KEYS = ViewKeys.of_memories("uic")
IDS = np.arange(20_000)
SEEN = [{"user_id": user} for user in (0, 9_999, 19_999, 70_000)]


def _feast_materialize(repository: Path, address: str) -> subprocess.Popen[bytes]:
    """`feast materialize START END` on the repository as it lies in the project."""
    cut = datetime.fromtimestamp(CUT_MS / 1000, UTC)
    with (repository / "materialize.log").open("wb") as log:
        return subprocess.Popen(
            [
                str(Path(sys.executable).parent / "feast"),
                "materialize",
                (cut - timedelta(seconds=1)).isoformat(),
                cut.isoformat(),
                "-v",
                "user_interest",
            ],
            cwd=repository,
            env=os.environ | {"UIC_STORE__ADDRESS": address},
            stdout=log,
            stderr=log,
        )


def _offsets(store: PackedStore) -> np.ndarray:
    records, found = store.read(1, IDS)
    assert found.all()
    return header_view(records)["offset"].astype(np.int64)


def _killed_in_the_middle(
    root: Path, repository: Path, address: str, store: PackedStore
) -> tuple[Snapshot, int]:
    """A snapshot of which some rows are in the store and some are not, and its position.

    Another snapshot, should a busy machine let one end before it is killed.
    """
    for turn in range(1, 5):
        position = 100 + 100 * turn
        snapshot = write_snapshot(root, IDS, offset=position, day=f"2024-03-1{turn}")
        point_current_to(snapshot.path)
        process = _feast_materialize(repository, address)
        while process.poll() is None and not (_offsets(store) == position).any():
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        landed = int((_offsets(store) == position).sum())
        assert landed, (repository / "materialize.log").read_text()
        if landed < len(IDS):
            return snapshot, position
    return pytest.fail("four were over before they were killed")


def test_reads_are_answered_after_a_killed_materialize_and_during_the_next(
    redis_server: redis.Redis,
    store_address: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = store_address
    monkeypatch.setenv("UIC_WORKSPACE", str(tmp_path))
    store, generations = PackedStore(redis_server, KEYS), Generations(redis_server, KEYS)
    load_values(write_snapshot(tmp_path, IDS), store, generations)
    generations.switch(1, 0)
    feast = _applied(StoreSettings(address=address), tmp_path)
    repository = _repository(tmp_path)

    snapshot, position = _killed_in_the_middle(tmp_path, repository, address, store)
    before = {100 + 100 * turn for turn in range(4)}
    assert _read(feast) <= before | {position}

    second = _feast_materialize(repository, address)
    reads = 0
    while second.poll() is None:
        assert _read(feast) <= before | {position}
        reads += 1
    assert second.returncode == 0, (repository / "materialize.log").read_text()
    assert reads > 1
    assert (_offsets(store) == position).all()
    loaded = load_values(snapshot, store, generations)
    assert loaded.generation.state is State.LIVE
    assert loaded.landed == 0


def _applied(settings: StoreSettings, root: Path) -> FeatureStore:
    feast = open_feature_store(settings, root)
    with warnings.catch_warnings():
        # Feast calls on-demand views experimental, for offline use at scale.
        warnings.simplefilter("ignore")
        apply_definitions(feast, root)
    return feast


def _repository(root: Path) -> Path:
    folder = root / "repository"
    folder.mkdir()
    shutil.copy(REPOSITORY / "feature_store.yaml", folder)
    shutil.copy(REPOSITORY / "features.py", folder)
    return folder


def _read(feast: FeatureStore) -> set[int]:
    """Positions of some users through Feast, with the registry as it now is on disk."""
    feast.refresh_registry()
    found = feast.get_online_features(["user_interest:memory"], SEEN).to_dict()["memory"]
    assert found.pop() is None
    records = np.stack([np.frombuffer(value, np.uint8) for value in found])
    return set(header_view(records)["offset"].tolist())
