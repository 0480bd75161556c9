"""A real Redis, started as `uic store start` starts it, and Feast on it."""

import asyncio
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from feast import FeatureStore

from uic.feature_repo.plugin.repository import apply_definitions, open_feature_store
from uic.feature_repo.store.connection import Address, connect
from uic.feature_repo.store.server import EmbeddedRedis
from uic.feature_repo.store.settings import StoreSettings


@pytest.fixture(scope="session")
def redis_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    """The server that all tests of a session share."""
    server = EmbeddedRedis(tmp_path_factory.mktemp("store"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis_server(redis_folder: EmbeddedRedis) -> Iterator[redis.Redis]:
    """A client of a running, empty Redis."""
    running = redis_folder.start()
    client = connect(Address.at(running.address))
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def store_address(redis_server: redis.Redis, redis_folder: EmbeddedRedis) -> str:
    """Where that Redis is, as `store.address` has it."""
    return redis_folder.start().address


@pytest.fixture
def settings(store_address: str) -> StoreSettings:
    return StoreSettings(address=store_address, pointer_refresh_seconds=0, switch_delay_seconds=0.1)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UIC_WORKSPACE", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="session")
def registry(redis_folder: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The registry of this project's repository, applied once."""
    root = tmp_path_factory.mktemp("applied")
    store = open_feature_store(StoreSettings(address=redis_folder.start().address), root)
    with warnings.catch_warnings():
        # Feast calls on-demand views experimental, for offline use at scale.
        warnings.simplefilter("ignore")
        apply_definitions(store, root)
    asyncio.run(store._get_provider().online_store.close())
    return root / "feast.db"


@pytest.fixture
def feast(settings: StoreSettings, workspace: Path, registry: Path) -> Iterator[FeatureStore]:
    """The repository of this project, applied."""
    shutil.copy(registry, workspace / "feast.db")
    store = open_feature_store(settings, workspace)
    yield store
    asyncio.run(store._get_provider().online_store.close())
