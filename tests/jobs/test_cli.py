"""Exit statuses and error lines, through the installed command."""

import subprocess
import sys

import pytest


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


@pytest.mark.parametrize("arguments", [["--help"], ["config", "show", "--help"]])
def test_help_is_there(arguments):
    result = uic(*arguments)
    assert result.returncode == 0
    assert "Usage" in result.stdout
