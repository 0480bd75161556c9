"""Each `--help` ends with an example that the command itself accepts."""

import re
from collections.abc import Iterator

import pytest
import typer
from typer.testing import CliRunner

from tests.system.test_readme import fault_of
from uic.jobs.cli import app
from uic.jobs.commands.examples import EXAMPLES

FILES = ("clicks.csv", "photographs.csv", "lamp.jpg", "rows.parquet")


def named(command, words: str = "") -> Iterator[tuple[str, object]]:
    """Commands, and groups that run by themselves, with the words that name them."""
    inner = getattr(command, "commands", {})
    if not inner or getattr(command, "invoke_without_command", False):
        yield words.strip(), command
    for name, one in inner.items():
        yield from named(one, f"{words} {name}")


COMMANDS = dict(named(typer.main.get_command(app)))


def test_every_command_has_an_example_in_the_order_of_the_help():
    ordered = sorted(EXAMPLES, key=list(COMMANDS).index)
    assert [*COMMANDS] == sorted([*ordered, "import table"], key=list(COMMANDS).index)
    for words, command in COMMANDS.items():
        assert f"uic {words}" in (command.epilog or ""), words


def test_every_example_is_accepted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in FILES:
        (tmp_path / name).touch()
    refused = {
        words: fault
        for words, command in COMMANDS.items()
        for line in re.findall(r"uic [a-z].*", command.epilog or "")
        if (fault := fault_of(line))
    }
    assert refused == {}


@pytest.mark.parametrize("words", ["memories build", "serve", "doctor"])
def test_the_help_shows_it(words):
    shown = CliRunner().invoke(app, [*words.split(), "--help"]).stdout
    assert " ".join(f"Example: uic {words} {EXAMPLES[words]}".split()) in " ".join(shown.split())


def test_an_example_that_a_command_refuses_is_noticed():
    assert "no such option" in fault_of("uic memories build --bundel mimn").lower()
