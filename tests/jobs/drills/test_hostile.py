"""The short form of the hostile drill, row after row, and that a drill tells what does not hold."""

import json

import pytest
from typer.testing import CliRunner

from uic.jobs.cli import app
from uic.jobs.drills.errors import DrillFailedError
from uic.jobs.drills.hostile.matrix import ROWS, chosen_rows, not_green
from uic.jobs.drills.hostile.row import HostileRow, RowVerdict, require, run_row
from uic.jobs.drills.hostile.stage import HostileStage, open_stage

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    with open_stage(tmp_path_factory.mktemp("hostile")) as made:
        yield made


@pytest.mark.parametrize("row", chosen_rows(short=True, only=()), ids=lambda row: row.name)
def test_what_must_hold_holds_and_the_control_is_told(row: HostileRow, stage: HostileStage):
    result = run_row(row, stage)
    assert result.verdict is RowVerdict.GREEN, result
    assert bool(result.control) is (row.control is not None)


def fails(_: HostileStage) -> str:
    require(held=False, seen="users are gone")
    return "all is well"


def dies(_: HostileStage) -> str:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("check", "control", "verdict", "seen"),
    [
        (lambda _: "all is well", fails, RowVerdict.GREEN, "all is well"),
        (fails, None, RowVerdict.RED, "users are gone"),
        (dies, None, RowVerdict.RED, "ZeroDivisionError: "),
        (lambda _: "all is well", lambda _: "all is well", RowVerdict.RED, "all is well"),
        (lambda _: "all is well", dies, RowVerdict.RED, "ZeroDivisionError: "),
    ],
)
def test_a_row_is_green_only_if_it_holds_and_its_control_does_not(
    check, control, verdict, seen, stage
):
    result = run_row(HostileRow("A0", "none", "all", check, control), stage)
    assert (result.verdict, result.seen) == (verdict, seen)


def test_a_row_that_cannot_run_is_not_green(stage, monkeypatch, tmp_path):
    monkeypatch.setenv("UIC_STREAM__JARS_FOLDER", str(tmp_path))
    row = HostileRow("A0", "none", "all", lambda _: "all is well", needs=("java", "kafka"))
    result = run_row(row, stage)
    assert result.verdict is RowVerdict.NOT_RUN
    assert "no jars; fetch them" in result.seen
    assert not_green([result]) == ["A0 not run"]


def test_every_number_of_the_attack_has_a_row_in_order():
    numbers = [int("".join(filter(str.isdigit, row.name))) for row in ROWS]
    assert numbers == sorted(numbers)


def test_the_command_prints_the_matrix_and_ends_with_3_for_a_row_that_is_not_green(monkeypatch):
    words = ["drill", "hostile", "--only", "A10", "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert (found["green"], [row["name"] for row in found["rows"]]) == (True, ["A10"])
    row = HostileRow("A10", "none", "all [of it]", fails)
    monkeypatch.setattr("uic.jobs.drills.hostile.matrix.ROWS", (row,))
    done = CliRunner().invoke(app, ["drill", "hostile"])
    assert isinstance(done.exception, DrillFailedError)
    assert str(done.exception) == "1 of 1 rows are not green: A10 red"
    assert "all [of it]" in " ".join(done.stdout.split())


def test_a_row_that_is_none_is_refused():
    done = CliRunner().invoke(app, ["drill", "hostile", "--only", "A99"])
    assert "--only A99: expected any of A1, A2, A3, " in str(done.exception)
