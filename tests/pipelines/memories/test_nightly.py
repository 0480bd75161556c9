"""What a nightly build goes on from: never past events that the log got later."""

from datetime import timedelta

import pytest

from tests.pipelines.memories.conftest import FIRST, random_behaviors, write_log
from uic.pipelines.log import older
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.memories.nightly import newest_before, outside_days

LAST = FIRST + timedelta(days=3)


class Snapshot:
    """The part of a snapshot that is looked at."""

    def __init__(self, until, positions):
        self.manifest = {"until": str(until), "first_day": str(until), "from": None}
        self.positions = positions


@pytest.fixture
def log(tmp_path):
    write_log(tmp_path / "log", random_behaviors(days=4, events=200, users=20))
    return EventLog(tmp_path / "log")


def whole(log):
    [epoch] = log.epochs()
    return {epoch.number: dict(epoch.last_offsets)}


def test_a_snapshot_that_holds_the_day_is_the_answer(log):
    last = Snapshot(LAST, whole(log))
    assert newest_before([Snapshot(LAST - timedelta(days=1), {}), last], LAST, log) is last


def test_a_snapshot_made_before_the_days_events_came_is_made_anew(log):
    before = Snapshot(LAST - timedelta(days=1), {})
    early = {number: dict.fromkeys(parts, 0) for number, parts in whole(log).items()}
    assert newest_before([before, Snapshot(LAST, early)], LAST, log) is before
    assert newest_before([Snapshot(LAST, early)], LAST, log) is None


def test_a_missed_night_goes_on_from_the_newest(log):
    old, newer = (Snapshot(LAST - timedelta(days=days), {}) for days in (3, 2))
    assert newest_before([newer, old], LAST, log) is newer


def test_older_events_and_the_logs_end_are_told(log):
    outside = outside_days(log, Snapshot(LAST, {}))
    rows = {file.dt: file.rows for file in log.behavior_files()}
    assert outside.older.events == sum(count for day, count in rows.items() if day < LAST)
    assert outside.last_day == max(rows)


def test_users_of_a_large_log_are_not_counted(log, monkeypatch):
    counted = outside_days(log, Snapshot(LAST, {})).older
    assert str(counted).endswith("have no others)")
    monkeypatch.setattr(older, "COUNTED_ROWS", 10)
    only_events = outside_days(log, Snapshot(LAST, {})).older
    assert str(only_events) == f"{counted.events:,} older events"
