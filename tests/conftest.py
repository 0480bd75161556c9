"""What all tests share: where the real data is."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data; tests that need it fail in CI when it is not there."""
    path = Path(os.environ.get("UIC_SHARED_DATA", "../shared/data")).resolve()
    if not path.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"{path}: real data is missing; set UIC_SHARED_DATA")
        pytest.skip(f"{path}: no real data here; set UIC_SHARED_DATA")
    return path
