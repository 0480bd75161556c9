"""A real Kafka broker for the whole session, and a workspace with Redis and an empty generation."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from feature_repo.server import EmbeddedRedis
from jobs.context import Context
from jobs.stream.kafka_server import KafkaServer
from jobs.stream.trial import start_trial, trial_context


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    with KafkaServer(tmp_path_factory.mktemp("kafka")) as server:
        yield server


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Callable[..., Context]]:
    """Make a workspace with these settings of `stream`; its Redis ends with the test."""
    servers: list[EmbeddedRedis] = []

    def make(**stream: Any) -> Context:
        context = trial_context(tmp_path / "workspace", stream)
        servers.append(start_trial(context)[0])
        return context

    yield make
    for server in servers:
        server.stop()
