"""Taking a day out of the log, and the day in order: nothing lost, nothing twice."""

import itertools
import json
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.pipelines.memories.conftest import FIRST, random_behaviors
from uic.jobs.replay.day import open_day
from uic.jobs.replay.hold_back import ReplayError, hold_back
from uic.jobs.replay.reset import plan_reset, undo
from uic.jobs.stream.topics.produce import write_files
from uic.models.features.event_columns import EventColumn
from uic.models.features.feature_file import load_features
from uic.models.hashing import stable_hash
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.publication import BackfillError
from uic.pipelines.log.writer import LogWriter, Part

LAST = FIRST + timedelta(days=3)


@pytest.fixture
def log(tmp_path):
    """Four days of behaviours in three partitions; an impression of each on the last two."""
    behaviors = random_behaviors(days=4, events=400, users=30)
    first = np.datetime64(LAST - timedelta(days=1), "ms")
    shown = behaviors.filter(behaviors.column("event_time").to_numpy() >= first)
    impressions = shown.select(["user_id", "item_id", "category_id", "event_time"])
    clicked = pa.array(np.arange(len(shown)) % 3 == 0)
    impressions = impressions.append_column("page", shown.column("item_id").cast(pa.string()))
    log = EventLog(tmp_path / "log")
    prices = pa.array(behaviors.column("item_id").to_numpy() * 0.5)
    with LogWriter(log, Part("test"), time_zone="UTC", partitions=3) as writer:
        writer.add_behaviors(behaviors.append_column("event.price", prices))
        writer.note_columns([EventColumn(name="price", kind="number", field="price")])
        writer.add_impressions(impressions.append_column("clicked", clicked))
        writer.publish()
    return log


def rows(files):
    return sum(file.rows for file in files)


def test_the_log_ends_at_midnight_and_its_positions_with_it(log, tmp_path):
    before = {file.dt: file.rows for file in log.behavior_files()}
    held = hold_back(log.root, tmp_path / "replay", LAST)
    assert held.events == before[LAST]
    assert {file.dt for file in log.behavior_files()} == set(before) - {LAST}
    [epoch] = log.epochs()
    ends = {}
    for file in log.behavior_files():
        table = pq.read_table(file.path, columns=["partition", "offset"])
        for partition, offset in zip(
            *(column.to_pylist() for column in table.columns), strict=True
        ):
            ends[partition] = max(offset, ends.get(partition, -1))
    assert epoch.last_offsets == ends
    assert rows(log.impression_files(LAST, LAST)) == held.events


def test_holding_the_same_day_back_again_changes_nothing(log, tmp_path):
    first = hold_back(log.root, tmp_path / "replay", LAST)
    names = sorted(path.name for path in log.root.rglob("*"))
    assert hold_back(log.root, tmp_path / "replay", LAST) == first
    assert sorted(path.name for path in log.root.rglob("*")) == names


def test_a_day_that_the_log_does_not_have_is_refused(log, tmp_path):
    with pytest.raises(ReplayError, match="no behaviours on 2030-01-01; it has"):
        hold_back(log.root, tmp_path / "replay", date(2030, 1, 1))


def test_a_log_with_a_topic_is_not_held_back(log, tmp_path):
    log.append_epoch(kind="topic", name="live", partitions=1, first_offsets={0: 0})
    with pytest.raises(ReplayError, match="has 2 epochs; a day is held back from a single import"):
        hold_back(log.root, tmp_path / "replay", LAST)


def test_the_stretches_of_a_day_hold_every_event_and_impression_once_and_in_order(log, tmp_path):
    hold_back(log.root, tmp_path / "replay", LAST)
    day = open_day(log.root, tmp_path / "replay")
    pieces = day.stretches(8, 3)
    assert (pieces[0][0], pieces[-1][1]) == (day.start_ms, day.end_ms)
    assert all(first[1] == second[0] for first, second in itertools.pairwise(pieces))
    sent = [batch for piece in pieces for batch in day.events(*piece)]
    assert sum(len(batch.payloads) for batch in sent) == day.behaviors.num_rows
    events = [json.loads(payload) for batch in sent for payload in batch.payloads]
    assert all(event["price"] == event["item_id"] * 0.5 for event in events)
    times = np.concatenate([batch.log_times_ms for batch in sent])
    assert (np.diff(times) >= 0).all()
    seen = [len(day.impressions.between(*piece)) for piece in pieces]
    assert sum(seen) == len(day.impressions)


def test_impressions_have_what_the_request_said_where_it_is_declared(log, tmp_path):
    hold_back(log.root, tmp_path / "replay", LAST)
    assert open_day(log.root, tmp_path / "replay").impressions.context is None
    file = tmp_path / "features.yaml"
    file.write_text("version: 1\ncontext:\n  page: {type: categorical}\n  hour: {type: number}\n")
    day = open_day(log.root, tmp_path / "replay", load_features(file))
    told = day.impressions.context.to_pylist()
    assert told == [{"page": f"{item}"} for item in day.impressions.item_ids.tolist()]
    noon = (day.start_ms + day.end_ms) // 2
    half = day.impressions.between(day.start_ms, noon)
    assert half.context.num_rows == len(half) < len(day.impressions)


def test_the_first_stretch_has_an_event_for_every_partition(log, tmp_path):
    hold_back(log.root, tmp_path / "replay", LAST)
    day = open_day(log.root, tmp_path / "replay")
    pieces = day.stretches(2000, 3)
    [first] = list(day.events(*pieces[0]))
    assert set((stable_hash(first.user_ids) % np.uint64(3)).tolist()) == {0, 1, 2}
    assert len(pieces) < 2000
    assert write_files(day.events(*pieces[0]), tmp_path / "events", 3) == len(first.payloads)


def files_of(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def replayed(log, tmp_path):
    """What a replay leaves: an epoch of its topic, event files, the stream's state."""
    log.append_epoch(
        kind="topic", name="files.events", partitions=3, first_offsets=dict.fromkeys(range(3), 0)
    )
    names = ("events/partition=00000-00000000000000000000.jsonl.gz", "events/mine.jsonl.gz",
             "stream/generation=001/run.json", "stream/mine.txt")  # fmt: skip
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("x")


def test_a_reset_says_what_goes_and_leaves_the_log_as_it_was_held_back(log, tmp_path):
    hold_back(log.root, tmp_path / "replay", LAST)
    before = (log.epochs(), [file.path for file in log.behavior_files()])
    replayed(log, tmp_path)
    plan = plan_reset(tmp_path, tmp_path / "replay")
    assert plan.lines() == [
        f"1 event files of {tmp_path / 'events'}",
        f"{tmp_path / 'stream' / 'generation=001'}",
        f"epoch 2 (files.events) of {tmp_path / 'log'}",
    ]
    assert len(log.epochs()) == 2
    plan.carry_out()
    assert (log.epochs(), [file.path for file in log.behavior_files()]) == before
    assert [path.name for path in (tmp_path / "events").iterdir()] == ["mine.jsonl.gz"]
    assert [path.name for path in (tmp_path / "stream").iterdir()] == ["mine.txt"]
    assert plan_reset(tmp_path, tmp_path / "replay").lines() == []


def test_a_workspace_without_a_replay_is_not_reset(log, tmp_path):
    replayed(log, tmp_path)
    before = files_of(tmp_path)
    with pytest.raises(ReplayError, match="no day is held back here"):
        plan_reset(tmp_path, tmp_path / "replay")
    assert files_of(tmp_path) == before


def test_nothing_is_imported_while_a_day_is_held_back(log, tmp_path):
    hold_back(log.root, tmp_path / "replay", LAST)
    before = files_of(tmp_path)
    with (
        pytest.raises(BackfillError, match=r"later days are held back .* `uic replay undo`"),
        LogWriter(log, Part("later"), time_zone="UTC", partitions=3),
    ):
        pass
    assert files_of(tmp_path) == before | {Path("log/.lock"): b""}


def test_an_import_after_the_day_was_held_back_is_never_removed(log, tmp_path):
    """Version 0.1 let one in: its logs do not say that a day is held back."""
    hold_back(log.root, tmp_path / "replay", LAST)
    path = log.root / "epochs.json"
    document = json.loads(path.read_text())
    assert document.pop("held_back") == str(LAST)
    path.write_text(json.dumps(document))
    with LogWriter(log, Part("later"), time_zone="UTC", partitions=3) as writer:
        writer.add_behaviors(random_behaviors(days=1, events=10, users=3))
        writer.publish()
    before = files_of(tmp_path)
    with pytest.raises(ReplayError, match=r"epoch 2 \(later\) was imported after the day"):
        plan_reset(tmp_path, tmp_path / "replay")
    assert files_of(tmp_path) == before


def test_a_second_day_is_not_held_back_beside_the_first(log, tmp_path):
    hold_back(log.root, tmp_path / "replay", LAST)
    before = files_of(tmp_path)
    with pytest.raises(ReplayError, match=f"{LAST} is held back; `uic replay undo` gives it back"):
        hold_back(log.root, tmp_path / "replay", LAST - timedelta(days=1))
    assert files_of(tmp_path) == before


def test_what_was_held_back_comes_back_to_the_byte(log, tmp_path):
    before = files_of(log.root)
    held = hold_back(log.root, tmp_path / "replay", LAST - timedelta(days=1))
    assert held.later > 0
    replayed(log, tmp_path)
    with pytest.raises(ReplayError, match="`uic replay reset` removes them first"):
        undo(tmp_path, tmp_path / "replay")
    plan_reset(tmp_path, tmp_path / "replay").carry_out()
    assert undo(tmp_path, tmp_path / "replay") == held.events + held.later
    assert files_of(log.root) == before
    assert not (tmp_path / "replay").exists()


def test_a_day_without_impressions_is_not_held_back(log, tmp_path):
    before = files_of(tmp_path)
    with pytest.raises(ReplayError, match="so there is nothing to rank"):
        hold_back(log.root, tmp_path / "replay", FIRST)
    assert files_of(tmp_path) == before


def test_a_replay_without_a_held_back_day_says_what_to_do(log, tmp_path):
    with pytest.raises(ReplayError, match="run `uic replay hold-back DAY` first"):
        open_day(log.root, tmp_path / "replay")


def test_impressions_that_were_imported_alone_stay_through_a_replay(log, tmp_path):
    more = pa.table(
        {
            "user_id": [1],
            "item_id": [2],
            "category_id": [0],
            "event_time": pa.array([np.datetime64(LAST, "ms")]),
            "clicked": [True],
        }
    )

    def show(name):
        part = Part(name)
        with LogWriter(log, part, time_zone="UTC", impressions_only=True) as writer:
            writer.add_impressions(more)
            writer.publish()

    show("before")
    behaviors = [file.path for file in log.behavior_files()]
    held = hold_back(log.root, tmp_path / "replay", LAST)
    show("since")
    assert undo(tmp_path, tmp_path / "replay") == held.events + held.later
    assert [file.path for file in log.behavior_files()] == behaviors
    assert [manifest["name"] for manifest in log.manifests()] == ["test", "before", "since"]
    assert len(log.impression_files(LAST, LAST)) == 3
