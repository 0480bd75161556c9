"""A real Redis, started as `uic store start` starts it."""

from collections.abc import Iterator

import pytest
import redis

from feature_repo.connection import Address, connect
from feature_repo.server import EmbeddedRedis


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
    client = connect(Address("127.0.0.1", running.port))
    client.flushall()
    yield client
    client.close()
