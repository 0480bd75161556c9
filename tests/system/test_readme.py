"""Every command in README and the manual: blocks run as they stand, the others are accepted."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from uic.jobs.cli import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# What stands in capitals for something of the reader's own.
EXAMPLES = {
    "FILE": "clicks.csv", "COL": "user", "DAY": "2025-03-02", "NEXT": "2025-03-03",
    "NAME": "default", "ID": "7", "MANIFEST": "photographs.csv", "N": "2", "OUT": "plan.json",
    "PLAN": "plan.json", "NEW": "mimn/0002", "B": "mimn/1", "OLD": "1", "YESTERDAY": "2025-03-02",
    "SNAPSHOT": "generation=001/dt=2025-03-02", "WITHOUT": "default", "WITH": "sale",
    "TEXT": "alice", "MODEL": "mimn",
}  # fmt: skip


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def inline(path: Path) -> list[str]:
    """Commands in back quotes; a line that breaks within one is joined."""
    text = " ".join(path.read_text(encoding="utf-8").split())
    return sorted(set(re.findall(r"`(uic [a-z][^`]*)`", text)))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder to run in; no store is left running in it."""
    yield tmp_path
    for workspace in ("var", "var/shop"):
        uic(tmp_path, "store", "stop", "-w", workspace)


def uic(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return python(folder, "-m", "uic", *words)


def python(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "UIC_WORKSPACE"}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True,
        check=False, timeout=300,
    )  # fmt: skip


def test_a_first_day_runs_as_it_stands(folder: Path) -> None:
    [day] = [block for block in blocks(README, "") if "uic doctor" in block]
    for line in day.splitlines():
        program, *words = shlex.split(line)
        assert program == "uic", line
        done = uic(folder, *words)
        assert done.returncode == 0, f"{line}: {done.stdout[-2000:]}{done.stderr[-2000:]}"


def test_the_python_block_runs_as_it_stands(folder: Path) -> None:
    [code] = blocks(README, "python")
    done = python(folder, "-c", code)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/operations.md",
        "docs/models.md",
        "docs/features.md",
        "docs/state.md",
        "docs/events.md",
        "docs/other-rankers.md",
    ],
)
def test_every_command_that_is_named_is_accepted(page: str, tmp_path: Path, monkeypatch) -> None:
    """Groups, options and types fit; capitals stand for something of the reader's."""
    for name in ("clicks.csv", "photographs.csv", "plan.json", "rules.yaml"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    refused = [f"{line}: {fault}" for line in inline(ROOT / page) if (fault := fault_of(line))]
    assert refused == []


def fault_of(line: str) -> str:
    """Why the command line would refuse; empty if it would not, or only a command is named."""
    text = re.sub(r"\b[A-Z]+\b", lambda match: EXAMPLES.get(match[0], match[0]), line)
    words = shlex.split(text)[1:]
    command = typer.main.get_command(app)
    context = command.context_class(command, info_name="uic")
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        if words[0] == "…":
            return ""
        if words[0] not in command.commands:
            return f"no command {words[0]}"
        command = command.commands[words.pop(0)]
        context = command.context_class(command, info_name=command.name, parent=context)
    if hasattr(command, "commands") or not words:
        return ""
    if "…" in words:  # shortened: its options are there
        known = {option for parameter in command.params for option in parameter.opts}
        return " ".join({word for word in words if word.startswith("--")} - known)
    try:
        command.make_context(command.name, words, parent=context.parent)
    except Exception as error:  # typer's own click raises classes that it does not export
        return getattr(error, "message", repr(error))
    return ""
