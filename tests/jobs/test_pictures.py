"""`uic log show` and `uic samples show`: bars of what is there, on a terminal and a page."""

import re
from datetime import date

import numpy as np
import pytest

from tests.command_line import uic
from tests.pipelines.samples.small_run import random_tables
from uic.jobs.report.profiles import Bars, log_bars, samples_bars
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.profile import LogProfile, log_profile
from uic.pipelines.log.writer import LogWriter, Part
from uic.pipelines.samples.profile import SamplesProfile


@pytest.fixture
def root(tmp_path):
    with LogWriter(EventLog(tmp_path / "log"), Part("test"), time_zone="UTC") as writer:
        behaviors, impressions = random_tables()
        writer.add_behaviors(behaviors)
        writer.add_impressions(impressions)
        writer.publish()
    return tmp_path


def test_bars_are_as_long_as_their_values():
    picture = Bars("n", "rows a day", "rows", [("a", 4, "4"), ("bc", 2, "2"), ("d", 0, "0")])
    assert picture.lines() == [
        "rows a day (rows)",
        f"  a   {'#' * 40}  4",
        f"  bc  {'#' * 20}{' ' * 20}  2",
        f"  d   {' ' * 40}  0",
    ]


def test_a_profile_counts_what_is_in_the_log(root):
    behaviors, impressions = random_tables()
    profile = log_profile(EventLog(root / "log"))
    assert sum(profile.behaviors.values()) == behaviors.num_rows
    assert sum(profile.impressions.values()) == impressions.num_rows
    users = np.sort(np.unique(behaviors["user_id"], return_counts=True)[1])
    assert profile.of_users.tolist() == users.tolist()
    items = np.sort(np.unique(behaviors["item_id"], return_counts=True)[1])
    assert profile.of_items.tolist() == items.tolist()
    assert len(profile.gaps_seconds) == behaviors.num_rows - len(users)
    assert profile.gaps_seconds.min() >= 0


def test_pictures_have_days_lengths_skew_and_gaps():
    days = {date.fromordinal(739000 + at).isoformat(): 10 * at for at in range(62)}
    profile = LogProfile(
        days, {}, np.array([1, 2, 3, 9]), np.array([1] * 99 + [101]), np.array([0.5, 70.0]), 0.25
    )
    of_days, users, items, gaps = log_bars(profile)
    assert of_days.title == "behaviours a day, mean of 2 days from each"
    assert [row[2] for row in of_days.rows[:2]] == ["5", "25"]
    of_users = [("1", 1), ("2 to 3", 2), ("4 to 7", 0), ("8 to 15", 1)]
    assert [row[:2] for row in users.rows] == of_users
    assert items.rows[0] == ("top 1%", 0.505, "50.5% on 1 items")
    assert gaps.title == "time between two events of a user, of 25.0% of the users"
    assert [row[1] for row in gaps.rows] == [1, 0, 1, 0, 0, 0]
    empty = log_bars(LogProfile({}, {}, *[np.zeros(0, np.int64)] * 3, 1.0))
    assert [picture.lines()[1] for picture in empty] == ["  none"] * 4
    shown = SamplesProfile(
        {"2025-03-08": 50}, {"2025-03-08": 5}, np.array([0, 0, 5]), np.array([25, 25])
    )
    assert samples_bars(shown)[1].rows == [("2025-03-08", 0.1, "10.00%")]


def test_commands_draw_and_write_a_page(root, monkeypatch, capsys):
    assert uic(monkeypatch, "log", "show", "-w", root, "--html", root / "log.html") == 0
    said = capsys.readouterr().out
    assert "behaviours a day (events)" in said
    assert "time between two events of a user (gaps)" in said
    assert said.isascii()
    page = (root / "log.html").read_text()
    assert page.count("<figure id=") == 5
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)[^\"]+", page)
    days = ("--first", "2025-03-08", "--last", "2025-03-10")
    assert uic(monkeypatch, "samples", "--no-gates", *days, "-w", root) == 0
    capsys.readouterr()
    html = ("--html", root / "samples.html")
    assert uic(monkeypatch, "samples", "show", "default", "-w", root, *html) == 0
    said = capsys.readouterr().out
    assert "click rate a day (clicks of impressions)" in said
    assert (root / "samples.html").read_text().count("<figure id=") == 4


def test_what_is_not_there_is_one_line(tmp_path, monkeypatch, capsys):
    assert uic(monkeypatch, "log", "show", "-w", tmp_path) == 2
    assert "no event log; run `uic import`" in capsys.readouterr().err
    assert uic(monkeypatch, "samples", "show", "x", "-w", tmp_path) == 2
    assert "no such samples" in capsys.readouterr().err
