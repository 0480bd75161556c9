"""`uic daily`: the day's steps in order, and again after a kill and missed nights."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.pipelines.memories.conftest import untrained_bundle
from uic.jobs.cli import app
from uic.jobs.workspace.daily_order import DailyStep, DailyWork, do, plan
from uic.jobs.workspace.workspace import Workspace
from uic.models.errors import BadInputError, QualityGateError
from uic.models.published import only_writer

DAY = date(2025, 1, 18)
OPTIONS = ("--until", str(DAY), "--days", "4", "--train", "average_pooling", "--audit-rate", "1")
OF_THE_MEMORIES = ("compact", "forget", "clean", "snapshot", "prune", "audit")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty days of log, a live generation of the first fifteen, and its store, stopped."""
    workspace = Workspace(tmp_path_factory.mktemp("daily") / "shop")
    workspace.simulate(users=80, items=100, days=20)
    untrained_bundle(workspace.context.bundles / "mimn" / "0001")
    workspace.store.start()
    try:
        workspace.build_memories("mimn/0001", until=DAY - timedelta(days=3))
        workspace.switch(workspace.load().generation.number)
    finally:
        workspace.store.stop()
    return workspace.path


@pytest.fixture
def mine(shop: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the shop, with its store running."""
    with running_copy(shop, tmp_path / "mine") as copy:
        yield copy


class running_copy:  # noqa: N801 - read as a statement
    """A copy of a workspace whose store runs as long as it is used."""

    def __init__(self, of: Path, to: Path) -> None:
        shutil.copytree(of, to, symlinks=True)
        self.workspace = Workspace(to)

    def __enter__(self) -> Path:
        self.workspace.store.start()
        return self.workspace.path

    def __exit__(self, *_: object) -> None:
        self.workspace.store.stop()


def started(workspace: Path, *words: str, **environment: str) -> "subprocess.Popen[str]":
    """`uic daily` in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "uic", "daily", "-w", str(workspace), *OPTIONS, *words],
        env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip


def ended(workspace: Path, *words: str, **environment: str) -> tuple[int, str, str]:
    process = started(workspace, *words, **environment)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def killed(workspace: Path, after: str, seconds: float) -> str:
    """Start the day, and kill -9 it so long after the line that begins a day's step `after`."""
    process = started(workspace)
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if after in " ".join(line.split()):
            time.sleep(seconds)
            os.killpg(process.pid, signal.SIGKILL)
            break
    rest, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, err
    return "".join([*lines, rest])


def states(steps: list[DailyStep]) -> dict[str, str]:
    return {f"{one.name} {one.day.day}": one.state for one in steps}


def made(workspace: Path) -> dict[str, object]:
    """Sums of what a day makes, by what it is."""
    found: dict[str, object] = {}
    for kind in ("memories/*/*", "samples/*"):
        for path in sorted(workspace.glob(f"{kind}/manifest.json")):
            files = json.loads(path.read_text())["files"]
            found[str(path.parent.relative_to(workspace))] = files
    for line in Workspace(workspace).bundles():
        found[f"{line.model}/{line.version}"] = line.hash
    return found


@pytest.mark.slow
def test_a_day_that_is_killed_again_and_again_ends_as_one_that_is_not(
    shop: Path, mine: Path, tmp_path: Path
) -> None:
    asked = {"days": 4, "train": "average_pooling", "audit_rate": 1.0}
    before = states(Workspace(mine).daily(DAY, dry_run=True, **asked))
    assert before == {
        "compact 18": "left out", "forget 18": "done", "clean 18": "to do",
        "snapshot 16": "to do", "snapshot 17": "to do", "snapshot 18": "to do",
        "prune 18": "to do", "check 18": "to do", "samples 18": "to do", "train 18": "to do",
        "audit 18": "to do",
    }  # fmt: skip
    assert made(mine) == made(shop)
    killed(mine, "18 clean", 0.6)  # within the first night's snapshot, or just after it
    killed(mine, "17 snapshot", 0.0)  # between two steps
    killed(mine, "18 check", 1.0)  # within the samples
    assert re.search("18 +snapshot +done", killed(mine, "18 samples", 1.0))  # within the training
    code, out, err = ended(mine)
    assert code == 0, err
    assert re.search("18 +snapshot +done", out)
    assert re.search("18 +audit +done: one has passed since the snapshot", out)
    after = states(Workspace(mine).daily(DAY, dry_run=True, **asked))
    assert set(after.values()) == {"left out", "done", "to do"}
    assert [name for name, state in after.items() if state == "to do"] == ["clean 18"]
    with running_copy(shop, tmp_path / "other") as other:
        code, out, err = ended(other)
        assert code == 0, err
        assert made(other) == made(mine)
    names = [name for name in made(mine) if name.startswith("memories/generation=001")]
    assert [name[-2:] for name in names] == ["15", "16", "17", "18"]


@pytest.mark.slow
def test_a_gate_that_fails_leaves_out_samples_and_training_and_ends_with_3(mine: Path) -> None:
    code, out, err = ended(mine, UIC_QUALITY__MAX_CLICK_RATE="0.001")
    assert code == 3, err
    said = re.findall(r"^\S+ +(\w+) +(.*)$", out, re.M)
    by_step = dict(said)
    assert by_step["check"].startswith("failed: ")
    assert (by_step["samples"], by_step["train"]) == ("left out: check failed",) * 2
    assert by_step["audit"] == "80 memories are the log's"
    assert not (mine / "samples").exists()
    # Put right, the rest of the day is done, and the audit is not done again.
    code, out, err = ended(mine, "--skip", "train")
    assert code == 0, err
    by_step = dict(re.findall(r"^\S+ +(\w+) +(.*)$", out, re.M))
    assert by_step["train"] == "left out: --skip"
    assert by_step["samples"].startswith("617 impressions of 2025-01-15 to 2025-01-18")
    assert by_step["audit"] == "done: one has passed since the snapshot"
    # Other settings, another window: the samples are no longer what would be made.
    for days, state in ((4, "done"), (3, "to do")):
        steps = Workspace(mine).daily(DAY, days=days, dry_run=True, skip=OF_THE_MEMORIES)
        assert states(steps)["samples 18"] == state
    (mine / "uic.yaml").write_text("samples: {window_days: 9}\n")
    steps = Workspace(mine).daily(DAY, days=4, dry_run=True, skip=OF_THE_MEMORIES)
    assert states(steps)["samples 18"] == "to do"


@pytest.mark.slow
def test_of_many_missed_nights_the_last_that_are_kept_are_made(mine: Path) -> None:
    (mine / "uic.yaml").write_text("memories: {snapshots_kept: 2}\n")
    skip = ("check", "samples", "train", "audit")
    steps = Workspace(mine).daily(date(2025, 1, 20), skip=skip)
    assert [(one.name, one.day.day) for one in steps if one.state == "ran"] == [
        ("clean", 20), ("snapshot", 19), ("snapshot", 20), ("prune", 20),
    ]  # fmt: skip
    assert [one.name[-2:] for one in Workspace(mine).snapshots()] == ["19", "20"]
    late = Workspace(mine).daily(date(2025, 1, 21), skip=skip)
    [said] = [one.said for one in late if one.name == "snapshot"]
    assert said.endswith("0 events; the log ends on 2025-01-20")


def test_a_day_that_is_not_over_and_a_step_that_is_not_there_are_refused(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    today = datetime.now(UTC).date()
    with pytest.raises(BadInputError, match=f"--until {today}: is not over in UTC"):
        workspace.daily(today, dry_run=True)
    with pytest.raises(BadInputError, match="--skip samlpes: no such step; there is: compact, for"):
        workspace.daily(DAY, skip=["samlpes"])


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    with (
        only_writer(tmp_path / ".daily.lock"),
        pytest.raises(BadInputError, match="another `uic daily` is at work here"),
    ):
        Workspace(tmp_path).daily(DAY)


def test_without_a_store_the_day_ends_with_2_and_says_so(tmp_path: Path) -> None:
    code, _, err = ended(tmp_path)
    assert code == 2
    assert "no store was started here; run `uic store start`" in err


def test_the_example_of_the_help_runs(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = " ".join(CliRunner().invoke(app, ["daily", "--help"]).output.split())
    [words] = re.findall(r"Example: uic (.*?--dry-run)", text)
    monkeypatch.setenv("UIC_WORKSPACE", str(mine))
    done = CliRunner().invoke(app, shlex.split(words))
    assert done.exit_code == 0, done.output
    assert re.search("2025-03-02 +train +to do", done.output)


def works(*named: tuple[str, str | None, Exception | None]) -> Iterator[DailyWork]:
    """Steps by name, why they are done, and what they raise."""
    for name, done, error in named:

        def run(error: Exception | None = error) -> str:
            if error is not None:
                raise error
            return "ran"

        yield DailyWork(name, DAY, lambda done=done: done, run)


def test_what_a_gate_refuses_is_raised_after_what_does_not_need_it() -> None:
    told: list[DailyStep] = []
    failed, gate = QualityGateError("store"), QualityGateError("rows")
    with pytest.raises(QualityGateError, match="rows"):
        do(
            works(("check", None, gate), ("train", None, None), ("audit", None, failed)),
            told.append,
        )
    assert [(one.name, one.state) for one in told] == [
        ("check", "failed"), ("train", "left out"), ("audit", "failed"),
    ]  # fmt: skip


def test_bad_input_ends_the_day_where_it_is_met() -> None:
    told: list[DailyStep] = []
    with pytest.raises(BadInputError, match="no generation"):
        do(
            works(("snapshot", None, BadInputError("no generation")), ("audit", None, None)),
            told.append,
        )
    assert told == []


def test_a_plan_takes_what_follows_from_a_step_to_do_as_to_do() -> None:
    steps = plan(
        works(("snapshot", None, None), ("samples", "there", None), ("train", "there", None),
              ("audit", "passed", None)),
        lambda _step: None,
    )  # fmt: skip
    assert [one.state for one in steps] == ["to do", "done", "done", "to do"]
