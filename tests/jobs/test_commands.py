"""The shape of the command line: panels in the order of a day, short commands, short files."""

import ast
import importlib
from pathlib import Path

import pytest
from typer.testing import CliRunner

import uic
from uic.jobs.cli import PANELS, app

ROOT = Path(__file__).parents[2]
PACKAGES = ("models", "feature_repo", "pipelines", "jobs", "benchmarks")
MODULES = sorted((ROOT / "jobs" / "commands").glob("*.py"))
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def test_help_has_panels_in_the_order_of_a_day():
    shown = CliRunner().invoke(app, ["--help"]).stdout
    places = [shown.index(f"─ {panel} ─") for panel in PANELS]
    assert places == sorted(places)
    words = [line.split()[1] for line in shown.splitlines() if line.startswith("│ ")]
    commands = [word for word in words if word[0] != "-"]
    order = "demo doctor config report import simulate check samples events log dead-letters"
    assert [word for word in commands if word in order.split()] == order.split()


def test_every_module_with_a_command_is_in_a_panel():
    entries = [entry for panel in PANELS.values() for entry in panel.values()]
    parts = {
        "__init__",
        "options",
        "next_item_options",
        "table_options",
        "item_versions",
        "gate_tables",
        "pictures",
        "imported_features",
        "import_summary",
        "simulation_options",
        "examples",
        "completion",
    }
    for path in MODULES:
        module = importlib.import_module(f"uic.jobs.commands.{path.stem}")
        own = [getattr(module, name, None) for name in ("app", path.stem)]
        assert path.stem in parts or any(entry in own for entry in entries), path.stem


def test_version():
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"uic {uic.__version__}\n")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_command_parses_calls_and_prints_in_forty_lines(path):
    functions = [
        node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)
    ]
    lengths = {node.name: node.end_lineno - node.lineno + 1 for node in functions}
    assert {name: lines for name, lines in lengths.items() if lines > 40} == {}


def test_no_file_is_over_350_lines():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in FILES}
    assert {name: lines for name, lines in lengths.items() if lines > 350} == {}
