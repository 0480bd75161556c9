"""Files are handed to a watching job one after the other, since order holds only within one."""

from uic.jobs.stream.run.file_feed import FileFeed
from uic.jobs.stream.run.planner import Planner, RunOptions
from uic.jobs.stream.topics.event_files import LoggedPayload, scan_event_file, write_event_file


def _write(folder, first, count):
    rows = [
        LoggedPayload(b"{}", 0, offset, 1000 + offset) for offset in range(first, first + count)
    ]
    write_event_file(folder / f"{first:06d}.jsonl.gz", rows)


def _staged(plan):
    """(first, last) offset of each file that the job can see."""
    files = sorted(plan.staged_files.glob("*.jsonl.gz"), key=lambda path: path.stat().st_mtime_ns)
    found = [scan_event_file(path) for path in files]
    return [(file.first, file.last) for file in found]


def _set_marker(planner, offset):
    planner.client.hset(planner.keys.markers(1), "1:0", offset)


def _planned(trial, folder, **options):
    context = trial(source="files", files=folder, archive=False)
    planner = Planner(context, RunOptions(**options))
    plan, _ = planner.plan(1, 1)
    planner.stage(plan)
    return planner, plan


def test_a_watching_job_gets_the_next_file_when_the_one_before_is_folded(trial, tmp_path):
    folder = tmp_path / "events"
    _write(folder, 0, 10)
    _write(folder, 10, 10)
    planner, plan = _planned(trial, folder)
    feed = FileFeed(plan, planner)
    feed.hand_on()
    assert _staged(plan) == [(0, 9)]
    _set_marker(planner, 8)
    feed.hand_on()
    assert _staged(plan) == [(0, 9)]
    _set_marker(planner, 9)
    feed.hand_on()
    assert sorted(_staged(plan)) == [(0, 9), (10, 19)]
    _write(folder, 20, 5)
    _set_marker(planner, 19)
    feed.hand_on()
    assert sorted(_staged(plan)) == [(0, 9), (10, 19), (20, 24)]


def test_a_job_until_the_end_gets_everything_as_one_file(trial, tmp_path):
    folder = tmp_path / "events"
    _write(folder, 0, 10)
    _write(folder, 10, 10)
    planner, plan = _planned(trial, folder, until_end=True)
    assert _staged(plan) == [(0, 19)]
    assert plan.ends == {0: 20}
    # What arrives later is for another run.
    _write(folder, 20, 5)
    FileFeed(plan, planner).hand_on()
    assert _staged(plan) == [(0, 19)]


def test_what_is_folded_is_not_staged_again(trial, tmp_path):
    folder = tmp_path / "events"
    _write(folder, 0, 10)
    _write(folder, 10, 10)
    planner, _ = _planned(trial, folder)
    _set_marker(planner, 14)
    again, _ = planner.plan(1, 2)
    planner.stage(again)
    assert again.starts == {0: 15}
    assert _staged(again) == [(10, 19)]
