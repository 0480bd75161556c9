"""Feast's own page, started as `docs/operations.md` says, shows our views and services."""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.waiting import wait_until
from uic.feature_repo.plugin.repository import REPOSITORY

pytestmark = pytest.mark.slow
MANUAL = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
[COMMAND] = re.findall(r"`(UIC_WORKSPACE=var feast -c FOLDER ui [^`]*)`", MANUAL)
VIEWS = {"user_interest", "user_features", "item_image"}
DECODED = {"user_interest_decoded", "item_image_decoded"}
SERVICES = {"interest_v1", "ranker_v1"}


@pytest.fixture(scope="module")
def page(registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the page answers; the workspace `var` has no more than a registry."""
    folder = tmp_path_factory.mktemp("ui")
    (folder / "var").mkdir()
    shutil.copy(registry, folder / "var")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = COMMAND.replace("FOLDER", shlex.quote(str(REPOSITORY))).replace("8888", port)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with (folder / "ui.log").open("w") as log:
        server = subprocess.Popen(
            ["bash", "-c", command], cwd=folder, env=os.environ | {"PATH": path},
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(url), server, folder / "ui.log")
        yield url
    finally:
        server.kill()
        server.wait(30)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def names(page: str, kind: str, of: str) -> set[str]:
    """Names of what the registry has of a kind, as the page asks for them."""
    [project] = httpx.get(f"{page}/projects-list.json", timeout=60).json()["projects"]
    answer = httpx.get(
        f"{page}{project['registryPath']}/{kind}", params={"project": project["id"]}, timeout=60
    )
    return {one["spec"]["name"] for one in answer.json()[of]}


def test_the_registry_has_our_views_and_services(page: str) -> None:
    assert names(page, "feature_views", "featureViews") >= VIEWS | DECODED
    assert names(page, "feature_services", "featureServices") >= SERVICES
    assert names(page, "entities", "entities") >= {"user", "item"}


@pytest.mark.chromium
@pytest.mark.parametrize(
    ("path", "expected"),
    [("feature-view", VIEWS | DECODED), ("feature-service", SERVICES)],
)
def test_a_browser_shows_them(page: str, path: str, expected: set[str], tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.fail("chromium: not found; .ci/run installs it")
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
         f"--user-data-dir={tmp_path}",
         "--virtual-time-budget=20000", "--dump-dom", f"{page}/p/uic/{path}"],
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    shown = set(re.findall(r">\s*(\w+)\s*<", done.stdout))
    assert expected <= shown
