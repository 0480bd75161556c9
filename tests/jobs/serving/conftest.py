"""A shop with a real Redis, and the service as a process of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs.serving.shop import Shop


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """An empty shop: items and a running store, no bundle yet."""
    opened = Shop.open(tmp_path)
    yield opened
    opened.stop()
