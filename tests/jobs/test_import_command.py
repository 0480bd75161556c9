"""`uic import` as a user runs it: the summary, the remark, one-line errors with status 2."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from uic.jobs.cli import main


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


Uic = Callable[..., Done]


@pytest.fixture
def uic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Uic:
    """Runs `uic import ARGUMENTS` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["uic", "import", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return Done(int(ended.value.code or 0), *capsys.readouterr())

    return run


def test_a_table_is_imported_and_summed_up(tmp_path: Path, uic: Uic) -> None:
    (tmp_path / "t.csv").write_text("u,i,t\n1,10,86400000\n1,11,5\nx,1,5\n")
    columns = ["--user-id", "u", "--item-id", "i", "--event-time", "t"]
    done = uic("table", "t.csv", *columns, "--name", "shop")
    assert done.returncode == 0, done.stderr
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    shown = {key: value.strip() for key, value in lines.items()}
    assert shown["behaviours"] == "2"
    assert shown["users"] == "1"
    assert shown["days"] == "2 (UTC)"
    assert shown["rejects"] == "1 wrong_type in var/log/rejects/epoch-00001-shop.jsonl"
    assert shown["epoch"] == "1 (shop), 4 partitions"
    again = uic("table", "t.csv", *columns)
    assert again.returncode == 2
    assert "already in the log as epoch 1 (shop)" in again.stderr
    assert len(again.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--delimiter", ";;"], "--delimiter: found ';;'"),
        (["--time-unit", "weeks"], "--time-unit: found 'weeks'"),
        (["--behavior", "b", "--behavior-name", "pv"], "--behavior-name: found 'pv'"),
        (["--name", "A B"], "--name: found 'A B'"),
        (["--clicked", "c", "--protocol", "next-item"], "has impressions of its own"),
        (["--category-id", "none"], "t.csv: column none is missing"),
    ],
)
def test_a_wrong_option_is_one_line(
    tmp_path: Path, uic: Uic, arguments: list[str], message: str
) -> None:
    (tmp_path / "t.csv").write_text("u,i,t,b,c\n1,10,86400000,pv,1\n")
    columns = ["--user-id", "u", "--item-id", "i", "--event-time", "t"]
    done = uic("table", "t.csv", *columns, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_kuairand_on_utc_days_gets_a_remark(uic: Uic) -> None:
    done = uic("kuairand", "nowhere")
    assert done.returncode == 2
    remark, error = done.stderr.strip().splitlines()
    assert "Asia/Shanghai" in remark
    assert "nowhere: no such folder" in error
