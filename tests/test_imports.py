"""The layers of docs/architecture.md hold, and the command starts without heavy libraries."""

import ast
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

import uic

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "apache_beam", "pyflink", "feast", "great_expectations", "pandas", "fastapi")


def test_imports_go_one_way():
    result = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout


def loaded_by(code):
    """What of `HEAVY` is imported after running `code` in a new process."""
    probe = f"import sys; {code}; print([m for m in {HEAVY!r} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True
    )
    return result.stdout.strip()


def test_help_imports_nothing_heavy():
    assert loaded_by("import uic.jobs.cli") == "[]"


def test_the_front_door_imports_nothing_heavy():
    assert loaded_by("import uic; uic.UicError; uic.Workspace; dir(uic)") == "[]"


@pytest.mark.parametrize("name", uic.__all__)
def test_every_name_of_the_front_door_is_there(name):
    assert getattr(uic, name).__name__ == name


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Workspaces'"):
        uic.Workspaces  # noqa: B018


def test_class_names_are_unique_in_the_project():
    homes = defaultdict(list)
    for package in ("models", "feature_repo", "pipelines", "jobs"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    homes[node.name].append(str(path.relative_to(ROOT)))
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}
