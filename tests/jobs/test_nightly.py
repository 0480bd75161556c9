"""The nightly snapshot as its manifest runs it: after missed nights, and twice."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest
import yaml

from tests.pipelines.audit.conftest import SNAPSHOT_DAY, Audited, audited
from uic.feature_repo.snapshots.snapshots import list_snapshots
from uic.feature_repo.store.server import EmbeddedRedis
from uic.jobs.workspace.workspace import Workspace
from uic.models.errors import BadInputError

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
DAILY = ROOT / "infra" / "kubernetes" / "daily.yaml"


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Audited]:
    """Six days of log, a live generation 1 of the first four, and a store of its own."""
    server = EmbeddedRedis(tmp_path / "store")
    server.start()
    try:
        with audited(tmp_path / "shop", server) as made:
            monkeypatch.setenv("UIC_WORKSPACE", str(made.workspace))
            monkeypatch.setenv("UIC_STORE__ADDRESS", str(made.settings.address))
            yield made
    finally:
        server.stop()


def nightly(shop: Audited, today: date) -> "subprocess.CompletedProcess[str]":
    """Run the snapshot job of the manifest on a day; it must succeed."""
    jobs = {one["metadata"]["name"]: one for one in yaml.safe_load_all(DAILY.read_text()) if one}
    pod = jobs["snapshot"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    tools = shop.workspace / "bin"
    tools.mkdir(exist_ok=True)
    yesterday = today - timedelta(days=1)
    for name, line in (
        ("date", f'[ "$*" = "-d yesterday +%F" ] && echo {yesterday}'),
        ("uic", f'exec {sys.executable} -m uic.jobs.cli "$@"'),
    ):
        (tools / name).write_text(f"#!/bin/sh\n{line}\n")
        (tools / name).chmod(0o755)
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        pod["containers"][0]["command"],
        env={**os.environ, "PATH": path},
        cwd=shop.workspace,
        check=True,
        capture_output=True,
        text=True,
    )


def test_a_missed_night_is_made_good_and_a_rerun_has_nothing_to_do(shop: Audited) -> None:
    number = shop.build()
    shop.store.generations.switch(number, 0.0)
    days = [one.manifest["until"] for one in list_snapshots(shop.workspace / "memories")]
    assert days == [SNAPSHOT_DAY.isoformat()]
    # One night is missed: two days are folded at once.
    today = SNAPSHOT_DAY + timedelta(days=3)
    assert "snapshot" in nightly(shop, today).stdout
    made = list_snapshots(shop.workspace / "memories")[-1]
    last = SNAPSHOT_DAY + timedelta(days=2)
    assert made.name == f"generation=001/dt={last}"
    assert made.manifest["from"] == f"generation=001/dt={SNAPSHOT_DAY}"
    again = nightly(shop, today)
    assert f"nothing new: {made.name} holds the log until {last}" in again.stdout
    assert [one.generation for one in list_snapshots(shop.workspace / "memories")] == [1, 1]
    # The same memories as of a build from nothing.
    whole = shop.build(last)
    pieces = list_snapshots(shop.workspace / "memories")
    assert (whole, [one.generation for one in pieces]) == (2, [1, 1, 2])
    assert (pieces[-1].rows, pieces[-1].positions) == (made.rows, made.positions)


def test_without_a_live_generation_the_nightly_job_says_so(shop: Audited) -> None:
    workspace = Workspace(shop.workspace)
    with pytest.raises(BadInputError, match="no generation is live"):
        workspace.build_memories(None, SNAPSHOT_DAY, start="latest", generation="live")
    with pytest.raises(BadInputError, match=r"--from latest: .* no snapshot of generation 7"):
        workspace.build_memories(None, SNAPSHOT_DAY, start="latest", generation=7)
    with pytest.raises(BadInputError, match="--bundle: needed"):
        workspace.build_memories(None, SNAPSHOT_DAY)
