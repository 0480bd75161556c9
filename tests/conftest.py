"""What all tests share: where the real data is, and an environment no test file leaves changed."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from uic.jobs.config import console
from uic.jobs.stream.topics.java import CHECKOUT_JARS

# Set by pytest itself, or once a process (the service's metrics read it when they are made).
_OF_THE_PROCESS = ("PYTEST_CURRENT_TEST", "PROMETHEUS_MULTIPROC_DIR")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of a running Flink or Kafka, and of the whole system, are no part of `make quick`."""
    for item in items:
        folders = item.path.relative_to(Path(__file__).parent).parts
        if folders[0] == "integration":
            item.add_marker("flink")
        if "kafka" in getattr(item, "fixturenames", ()):
            item.add_marker("kafka")
        if folders[0] == "system":
            item.add_marker("slow")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Whichever test of Kafka comes first, in whichever process, finds the jars."""
    whole = [
        CHECKOUT_JARS / kind / ".fetched" for kind in ("kafka", "flink")
    ]  # `make` writes it last
    if item.get_closest_marker("kafka") is None or all(mark.exists() for mark in whole):
        return
    if shutil.which("mvn"):
        _fetch_jars()
    elif os.environ.get("CI"):
        pytest.fail("no Kafka jars and no Maven to fetch them; install maven")
    else:
        pytest.skip("no Kafka jars; `make jars` fetches them (needs Maven)")


def _fetch_jars() -> None:
    """Fetch them once; who comes meanwhile waits for it (`make` does nothing the second time)."""
    with (Path(__file__).parent / "conftest.py").open() as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        subprocess.run(["make", "jars"], check=True)


@pytest.fixture(scope="module", autouse=True)
def _same_environment() -> Iterator[None]:
    """A service that starts inside a test names its workspace in the environment; the next file's
    commands would write there."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() | before.keys():
        if name in _OF_THE_PROCESS:
            continue
        if name in before:
            os.environ[name] = before[name]
        else:
            del os.environ[name]


@pytest.fixture(scope="session", autouse=True)
def _no_sign_of_life() -> None:
    """What a command says on standard error does not depend on how busy the machine is."""
    console.SIGN_SECONDS = 3600.0


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data; tests that need it fail in CI when it is not there."""
    path = Path(os.environ.get("UIC_SHARED_DATA", "../shared/data")).resolve()
    if not path.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"{path}: real data is missing; set UIC_SHARED_DATA")
        pytest.skip(f"{path}: no real data here; set UIC_SHARED_DATA")
    return path
