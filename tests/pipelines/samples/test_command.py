"""`uic samples`: what it prints, and its exit status."""

import sys
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from uic.jobs import cli


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


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
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
