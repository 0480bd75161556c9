"""`uic samples`: what it prints, and its exit status."""

import sys
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from uic.jobs import cli
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.writer import LogWriter, Part


@pytest.fixture
def workspace(oracle, tmp_path):
    """One user with two clicks and then one impression."""
    times = [datetime(2025, 3, 8, hour, tzinfo=UTC).replace(tzinfo=None) for hour in (1, 2, 3)]
    ids = {name: pa.array([7, 7]) for name in ("user_id", "item_id", "category_id")}
    behaviors = pa.table(
        {
            **ids,
            "behavior": pa.array([0, 0], pa.int8()),
            "event_time": pa.array(times[:2], pa.timestamp("ms")),
        }
    )
    impressions = pa.table(
        {
            **{name: column[:1] for name, column in ids.items()},
            "event_time": pa.array(times[2:], pa.timestamp("ms")),
            "clicked": [True],
        }
    )
    oracle.write_log(tmp_path / "log", behaviors, impressions)
    return tmp_path


def uic(monkeypatch, capsys, *arguments):
    """Exit status, standard output and standard error of `uic samples` with these arguments."""
    # A log of three rows is not what the gates are for; they have tests of their own.
    monkeypatch.setattr(sys, "argv", ["uic", "samples", "--no-gates", *map(str, arguments)])
    try:
        cli.main()
        status = 0
    except SystemExit as ended:
        status = ended.code or 0
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_it_prints_groups_and_bytes_both_ways(workspace, monkeypatch, capsys):
    status, out, err = uic(
        monkeypatch, capsys, "-w", workspace, "--first", "2025-03-07", "--last", "2025-03-08"
    )
    assert status == 0
    assert "impressions          1 in 1 groups" in out
    assert "grouped" in out
    assert "with one row per impression" in out
    assert "no impressions on 2025-03-07" in err
    assert (workspace / "samples" / "default" / "manifest.json").is_file()


def test_it_tells_what_its_window_leaves_out(oracle, tmp_path, monkeypatch, capsys):
    first = datetime(2025, 3, 1)  # noqa: DTZ001 - as the log has it
    users, days = [7, 7, 8, 9, 7], [0, 3, 3, 3, 6]
    ids = {name: pa.array(users) for name in ("user_id", "item_id", "category_id")}
    times = pa.array([first + timedelta(days=day) for day in days], pa.timestamp("ms"))
    behaviors = {**ids, "behavior": pa.array([0] * 5, pa.int8()), "event_time": times}
    impressions = {**ids, "event_time": times, "clicked": [True] * 5}
    oracle.write_log(tmp_path / "log", pa.table(behaviors), pa.table(impressions).slice(4))
    days = ("--first", "2025-03-07", "--last", "2025-03-07")
    for window, said in (
        (2, "remark: 4 older events of 3 users (2 of them have no others), before 2025-03-05, "),
        (4, "remark: 1 older events of 1 users (0 of them have no others), before 2025-03-03, "),
        (6, ""),
    ):
        (tmp_path / "uic.yaml").write_text(f"samples: {{window_days: {window}}}\n")
        config = ("-c", str(tmp_path / "uic.yaml"))
        status, _, err = uic(monkeypatch, capsys, "-w", tmp_path, *config, *days)
        assert (status, err.partition("are in no history")[0]) == (0, said)


def test_next_item_tells_what_became_of_the_targets(workspace, monkeypatch, capsys):
    days = ("--first", "2025-03-08", "--last", "2025-03-08", "--protocol", "next-item")
    status, _, err = uic(monkeypatch, capsys, "-w", workspace, *days, "--targets", "click")
    assert status == 2
    assert "found 2, too few events 1, no negative 1" in err
    more = pa.table(
        {
            **{name: pa.array([8, 8]) for name in ("user_id", "item_id", "category_id")},
            "behavior": pa.array([0, 3], pa.int8()),
            "event_time": pa.array([datetime(2025, 3, 8, h) for h in (4, 5)], pa.timestamp("ms")),  # noqa: DTZ001 - as the log has it
        }
    )
    with LogWriter(EventLog(workspace / "log"), Part("more"), time_zone="UTC") as writer:
        writer.add_behaviors(more)
        writer.publish()
    status, out, _ = uic(monkeypatch, capsys, "-w", workspace, *days, "--targets", "buy")
    assert status == 0
    assert "targets              1; left out: 0 with too few events before, 0 without a neg" in out
    assert "impressions          2 in 1 groups" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--first", "2025-03-08", "--last", "2025-03-08", "--targets", "buy"], "--protocol next"),
        (["--first", "2025-03-09", "--last", "2025-03-08"], "swap them"),
        (["--first", "8 March", "--last", "2025-03-08"], "--first: found '8 March'"),
        (["--first", "2025-03-08", "--last", "2025-03-08", "--out", "../x"], "--out: found '../x'"),
        (["--first", "2025-03-08", "--last", "2025-03-08", "--", "--fo=1"], "Beam option '--fo=1'"),
        (["--first", "2025-03-08", "--last", "2025-03-08", "stray"], "Beam option 'stray'"),
    ],
)
def test_bad_arguments_are_one_line_and_status_2(workspace, monkeypatch, capsys, arguments, says):
    status, out, err = uic(monkeypatch, capsys, "-w", workspace, *arguments)
    assert (status, out) == (2, "")
    assert says in err
    assert len(err.strip().splitlines()) == 1
