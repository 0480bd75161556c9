"""What all tests share: where the real data is."""

import os
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of a running Flink, and of the whole system, are no part of `make quick`."""
    for item in items:
        folders = item.path.relative_to(Path(__file__).parent).parts
        if folders[0] == "integration":
            item.add_marker("flink")
        if folders[0] == "system":
            item.add_marker("slow")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data; tests that need it fail in CI when it is not there."""
    path = Path(os.environ.get("UIC_SHARED_DATA", "../shared/data")).resolve()
    if not path.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"{path}: real data is missing; set UIC_SHARED_DATA")
        pytest.skip(f"{path}: no real data here; set UIC_SHARED_DATA")
    return path
