"""A command that removes something says what goes, and asks."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from uic.jobs.cli import app
from uic.jobs.commands.options import confirm
from uic.models.errors import BadInputError

# Every command that removes what a person may miss; a new one belongs here.
DESTRUCTIVE = [
    ("replay", "reset"),
    ("replay", "undo"),
    ("memories", "drop"),
    ("memories", "prune"),
    ("images", "drop"),
    ("user", "forget"),
    ("store", "adopt"),
]


@pytest.mark.parametrize("command", DESTRUCTIVE, ids=" ".join)
def test_it_has_a_yes(command):
    result = CliRunner().invoke(app, [*command, "--help"])
    assert "--yes" in result.output


def test_without_a_terminal_and_without_yes_nothing_goes(capsys):
    with pytest.raises(BadInputError, match="say --yes"):
        confirm(["/some/folder"], yes=False)
    assert "will be removed: /some/folder" in capsys.readouterr().err


def test_where_nothing_goes_nothing_is_asked(capsys):
    confirm([], yes=False)
    confirm(["/some/folder"], yes=True)
    assert capsys.readouterr().err == ""


def test_reset_in_a_workspace_without_a_replay_ends_with_2_and_leaves_everything(tmp_path):
    for name in ("events", "store", "stream"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.txt").write_text("mine")
    done = subprocess.run(
        [sys.executable, "-m", "uic", "replay", "reset", "--yes", "-w", str(tmp_path)],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 2
    assert "no day is held back here" in done.stderr
    assert sorted(path.parent.name for path in tmp_path.rglob("mine.txt")) == [
        "events", "store", "stream",
    ]  # fmt: skip
