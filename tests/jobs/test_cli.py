"""Exit statuses and error lines, through the installed command."""

import subprocess
import sys

import pytest

from tests.pipelines.test_text_ids import imported
from uic.jobs.commands.samples import _remark
from uic.jobs.workspace.workspace import Workspace
from uic.pipelines.log.text_ids import number_of


def uic(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "uic", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_missing_configuration_is_one_line_and_status_2(tmp_path):
    result = uic("config", "show", "--config", str(tmp_path / "none.yaml"))
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "none.yaml: no such file" in result.stderr


def test_a_workspace_that_is_a_file_is_status_2(tmp_path):
    (tmp_path / "file").write_text("")
    result = uic("config", "show", "--workspace", str(tmp_path / "file"))
    assert result.returncode == 2
    assert "is a file" in result.stderr


def test_an_error_shows_what_no_terminal_prints_as_python_escapes_it(tmp_path):
    result = uic("config", "show", "--config", str(tmp_path / "a\x1b[31mb.yaml"))
    assert result.returncode == 2
    assert r"a\x1b[31mb.yaml: no such file" in result.stderr


def test_machines_of_a_log_with_text_ids_are_named_by_their_texts(tmp_path, capsys):
    imported(tmp_path, "[/]bot\\,x,3")
    left_out = {"inhuman_users": 2, "inhuman_impressions": 4}
    left_out["inhuman_user_ids"] = [number_of("[/]bot\\"), 5]
    settings = {"max_events_per_day": 9}
    _remark(Workspace(tmp_path), {"empty_days": [], "left_out": left_out, "settings": settings})
    assert "left out, with 4 impressions: [/]bot\\, 5\n" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["config", "show", "--help"]])
def test_help_is_there(arguments):
    result = uic(*arguments)
    assert result.returncode == 0
    assert "Usage" in result.stdout
