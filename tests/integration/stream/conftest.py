"""A real Kafka broker for the whole session, and a workspace with Redis and an empty generation."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from uic.feature_repo.store.server import EmbeddedRedis
from uic.jobs.config.context import Context
from uic.jobs.drills.trial import start_trial, trial_context
from uic.jobs.stream.topics.kafka_server import KafkaServer


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
