"""`uic store`, `uic memories` and `uic user` on a workspace of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from uic.feature_repo.store.connection import STORE_FOLDER
from uic.feature_repo.store.errors import EmptyStoreError, StoreUnavailableError
from uic.feature_repo.store.server import EmbeddedRedis
from uic.jobs.cli import app
from uic.models.bundles.documents import BundleError
from uic.models.errors import BadInputError, UicError


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    EmbeddedRedis(tmp_path / STORE_FOLDER).stop()


def uic(workspace: Path, *arguments: str) -> str:
    """Standard output; a command's error is raised as it is."""
    result = CliRunner().invoke(app, [*arguments, "--workspace", str(workspace)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_the_store_starts_is_seen_and_stops(workspace: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="uic store start"):
        uic(workspace, "store", "status")
    assert "redis-server at unix:///" in uic(workspace, "store", "start")
    assert "append-only file, sync always" in uic(workspace, "store", "status")
    assert "(none: the store is empty; load a snapshot)" in uic(workspace, "memories", "list")
    assert uic(workspace, "store", "stop") == "stopped\n"
    assert uic(workspace, "store", "stop") == "was not running\n"


@pytest.mark.parametrize(
    ("arguments", "kind", "says"),
    [
        (("memories", "load"), BadInputError, "uic memories build"),
        (("memories", "load", "generation=009/dt=2024-01-01"), BadInputError, "no such folder"),
        (("memories", "show", "3"), EmptyStoreError, "load a snapshot"),
        (("memories", "switch", "3"), EmptyStoreError, "load a snapshot"),
        (("memories", "drop", "3"), EmptyStoreError, "load a snapshot"),
        (("user", "show", "3"), EmptyStoreError, "load a snapshot"),
        (
            ("memories", "build", "--bundle", "mimn/1", "--until", "2024-01-01"),
            BundleError,
            "no bundle .mimn/1.; there is: none; make one with `uic train`",
        ),
        (
            ("memories", "build", "--bundle", "mimn/1", "--until", "yesterday"),
            BadInputError,
            "--until: found .yesterday., expected a day",
        ),
    ],
)
def test_what_is_not_there_is_one_line(
    workspace: Path, arguments: tuple[str, ...], kind: type[UicError], says: str
) -> None:
    uic(workspace, "store", "start")
    with pytest.raises(kind, match=says) as found:
        uic(workspace, *arguments)
    assert "\n" not in str(found.value)


def test_forgetting_somebody_unknown_leaves_a_tombstone(workspace: Path) -> None:
    uic(workspace, "store", "start")
    for _ in range(2):
        assert "user 55 forgotten\n" in uic(workspace, "user", "forget", "55", "--yes")
