"""`uic import` as a user runs it: the summary, the remark, one-line errors with status 2."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from uic.jobs.cli import main
from uic.pipelines.log.event_log import EventLog


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
    columns = ["--user-id", "u", "--item-id", "i", "--event-time", "t", "--any-time"]
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
        (["--separator", 'a"'], "--separator: found 'a\"'"),
        (["--names", "u,i,u"], "--names: u is there twice"),
        (["--behavior", "=bought"], "--behavior: found '=bought', expected = and one of click"),
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
    columns = ["--user-id", "u", "--item-id", "i", "--event-time", "t", "--any-time"]
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


def test_a_public_set_is_a_whole_log_or_by_protocol_its_last_events(
    tmp_path: Path, uic: Uic
) -> None:
    (tmp_path / "ml").mkdir()
    rows = [
        f"{user}::{item}::{item}::97830{user}{item}00\n" for user in (1, 2) for item in (3, 4, 5)
    ]
    (tmp_path / "ml" / "ratings.dat").write_text("".join([*rows, "1::9::5::978300700\n"]))
    done = uic("movielens", "ml")
    assert done.returncode == 0, done.stderr
    assert re.search(r"behaviours +5 ", done.stdout)
    assert re.search(r"left out +2 rows, by --least-rating", done.stdout)
    assert re.search(r"epoch +1 \(movielens\), 4 partitions", done.stdout)
    again = uic("movielens", "ml/ratings.dat")
    assert (again.returncode, "already in the log as epoch 1" in again.stderr) == (2, True)
    papers = ["--again", "--protocol", "next-item", "--min-length", "2", "--least-rating", "3"]
    done = uic("movielens", "ml", *papers)
    assert done.returncode == 0, done.stderr
    assert re.search(r"behaviours +2 ", done.stdout)
    assert re.search(r"impressions +2 ", done.stdout)
    assert re.search(r"2 users, left out: .*, 1 that have every item", done.stdout)


@pytest.mark.parametrize("name", ["movielens", "retailrocket", "yoochoose"])
def test_a_file_that_is_no_file_of_a_set_is_one_line_and_nothing_is_written(
    tmp_path: Path, uic: Uic, name: str
) -> None:
    (tmp_path / "t.csv").write_text("u,i,t,b\n1,10,86400000,pv\n")
    done = uic(name, "t.csv")
    assert done.returncode == 2
    assert re.match(rf"error: t\.csv: column \w+ .*`uic import {name}` reads ", done.stderr)
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.rglob("var/log/*"))


ROWS = ["--any-time", "--user-id", "u", "--item-id", "i", "--event-time", "t"]
SHOWN = [*ROWS, "--clicked", "c"]


def test_impressions_go_in_beside_a_topic_and_take_no_epoch(tmp_path: Path, uic: Uic) -> None:
    (tmp_path / "b.csv").write_text("u,i,t\n1,10,86400000\n")
    (tmp_path / "m.csv").write_text("u,i,t,c\n1,10,86400000,1\n2,11,86400001,0\n1,x,5,1\n")
    (tmp_path / "n.csv").write_text("u,i,t,c\n1,12,172800000,1\n")
    assert uic("table", "b.csv", *ROWS).returncode == 0
    log = EventLog(tmp_path / "var" / "log")
    log.append_epoch(kind="topic", name="behaviours.x", partitions=1, first_offsets={0: 0})
    before = [file.path for file in log.behavior_files()]
    done = uic("table", "m.csv", *SHOWN, "--impressions", "--name", "shown")
    assert done.returncode == 0, done.stderr
    assert re.search(r"impressions +2 ", done.stdout)
    assert " epoch " not in done.stdout
    assert uic("table", "n.csv", *SHOWN, "--impressions", "--name", "shown").returncode == 0
    assert [epoch.number for epoch in log.epochs()] == [1, 2]
    assert [file.path for file in log.behavior_files()] == before
    assert [(str(file.dt), file.rows) for file in log.impression_files()] == [
        ("1970-01-02", 2),
        ("1970-01-03", 1),
    ]
    again = uic("table", "m.csv", *SHOWN, "--impressions")
    assert again.returncode == 2
    assert "already in the log as impressions (shown)" in again.stderr


def test_impressions_need_the_column_of_their_label(tmp_path: Path, uic: Uic) -> None:
    (tmp_path / "m.csv").write_text("u,i,t,c\n1,10,86400000,1\n")
    done = uic("table", "m.csv", *ROWS, "--impressions")
    assert done.returncode == 2
    assert "need their label (--clicked COL)" in done.stderr


@pytest.mark.parametrize("columns", [ROWS, SHOWN])
def test_behaviours_behind_a_topic_are_refused_before_anything_is_written(
    tmp_path: Path, uic: Uic, columns: list[str]
) -> None:
    (tmp_path / "b.csv").write_text("u,i,t,c\n1,10,86400000,1\n")
    log = EventLog(tmp_path / "var" / "log")
    log.append_epoch(kind="topic", name="behaviours.x", partitions=1, first_offsets={0: 0})
    files = sorted(path for path in log.root.rglob("*") if path.is_file())
    done = uic("table", "b.csv", *columns)
    assert done.returncode == 2
    assert "epoch 1 is topic behaviours.x" in done.stderr
    assert "--impressions" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert sorted(path for path in log.root.rglob("*") if path.is_file()) == files
