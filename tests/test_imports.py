"""The layers of docs/architecture.md hold, and the command starts without heavy libraries."""

import subprocess
import sys

HEAVY = ("torch", "apache_beam", "pyflink", "feast", "great_expectations", "pandas", "fastapi")


def test_imports_go_one_way():
    result = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout


def test_help_imports_nothing_heavy():
    probe = f"import sys, uic.jobs.cli; print([m for m in {HEAVY!r} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
