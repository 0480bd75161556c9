"""From imported history to a topic, and from one bundle to the next: nothing lost or doubled."""

from datetime import date

import numpy as np
import pyarrow as pa
import pytest

from uic.feature_repo.plugin.repository import materialize_memories
from uic.feature_repo.snapshots.published_values import load_values
from uic.feature_repo.snapshots.snapshots import Snapshot
from uic.feature_repo.store.opened import open_memories
from uic.jobs.drills.log import batch_fold
from uic.jobs.drills.trial import untrained_bundle
from uic.jobs.stream.fold.fold_function import FoldFunction
from uic.jobs.stream.fold.worker import make_fold_function
from uic.jobs.stream.run.planner import Planner, RunOptions
from uic.jobs.stream.run.start_positions import StartPositionError
from uic.jobs.stream.run.upgrade import UpgradeOptions, upgrade
from uic.jobs.stream.topics.event_files import LoggedPayload, read_lines, write_event_file
from uic.jobs.stream.topics.produce import payload_of
from uic.models.bundles.bundle import load_bundle
from uic.models.hashing import stable_hash
from uic.models.memory.fold import EventBatch, MemoryFolder
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.writer import LogWriter, Part
from uic.pipelines.memories.build import MemoriesRequest, build_memories

DAY_MS = 1_772_323_200_000  # 2026-03-01
USERS, ITEMS = 40, 50


def _import(context, days: int) -> list[tuple[int, int, int]]:
    """One event a user and day, at noon; (user, item, time)."""
    events = [
        (user, (7 * user + day) % ITEMS, DAY_MS + 86_400_000 * day + 43_200_000 + user)
        for day in range(days)
        for user in range(USERS)
    ]
    table = pa.table(
        {
            "user_id": pa.array([user for user, _, _ in events], pa.int64()),
            "item_id": pa.array([item for _, item, _ in events], pa.int64()),
            "category_id": pa.array([item % 10 for _, item, _ in events], pa.int64()),
            "behavior": pa.array([0] * len(events), pa.int8()),
            "event_time": pa.array([time for _, _, time in events]).cast(pa.timestamp("ms")),
        }
    )
    log = EventLog(context.log)
    with LogWriter(log, Part("history"), time_zone="UTC", partitions=3) as writer:
        writer.add_behaviors(table)
        writer.publish()
    return events


def _built(context, bundle, until: date, generation: int, start=None):
    return build_memories(
        MemoriesRequest(
            log=context.log,
            memories=context.memories,
            bundle=bundle,
            until=until,
            time_zone="UTC",
            memories_settings=context.config.memories,
            sale=context.config.sale,
            generation=generation,
            start=start,
        ),
        "DirectRunner",
        [],
    )


def _write_topic(folder, first_ms: int) -> None:
    """The topic that follows: other partitions than the import's, five events a user."""
    for partition in range(2):
        rows = []
        for turn in range(5):
            for user in range(USERS):
                if user % 2 == partition:
                    time = first_ms + 1000 * turn
                    payload = payload_of(user, (user + turn) % ITEMS, 1, "click", time)
                    rows.append(LoggedPayload(payload, partition, len(rows), time))
        write_event_file(folder / f"{partition}.jsonl.gz", rows)


def _stream(function: FoldFunction, folder) -> None:
    for path in sorted(folder.glob("*.gz")):
        rows = list(read_lines(path))
        for at in range(0, len(rows), 30):
            part = rows[at : at + 30]
            function(
                [row.payload for row in part],
                np.array([row.partition for row in part], np.int64),
                np.array([row.offset for row in part], np.int64),
                np.array([row.log_time_ms for row in part], np.int64),
            )


@pytest.fixture
def history(trial, tmp_path):
    """Two imported days, and a folder of events that follow."""
    context = trial(source="files", files=tmp_path / "events")
    events = _import(context, days=2)
    _write_topic(tmp_path / "events", DAY_MS + 2 * 86_400_000)
    return context, events


def test_an_import_is_followed_by_a_topic(history):
    context, events = history
    bundle = context.bundles / "mimn" / "untrained"
    with open_memories(context.config.store, context.workspace) as store:
        short = _built(context, bundle, date(2026, 3, 1), generation=2)
        load_values(short, store.memories, store.generations)
        # The snapshot ends a day before the import does: that day would never be folded.
        with pytest.raises(StartPositionError, match=r"epoch 1 \(history\).*is folded up to"):
            Planner(context, RunOptions(generation=2)).plan(2, 1)

        whole = _built(context, bundle, date(2026, 3, 2), generation=3)
        load_values(whole, store.memories, store.generations)
        plan, starts = Planner(context, RunOptions(generation=3)).plan(3, 1)
        assert plan.epoch == 2
        assert [start.offset for start in starts] == [0, 0]
        assert "earliest" in starts[0].why
        _stream(make_fold_function(plan), context.config.stream.files)

        folder = MemoryFolder(load_bundle(bundle), 3)
        expected = _batch(folder, events, context)
        records, found = store.memories.read(3, np.arange(USERS), folder.record_bytes)
    assert found.all()
    assert (records == expected).all()


def _batch(folder: MemoryFolder, events, context) -> np.ndarray:
    """Import and topic in one fold: epoch 1, then epoch 2."""
    offsets = dict.fromkeys(range(3), 0)
    partitions, places = [], []
    for user, _, _ in events:
        partition = int(stable_hash([user])[0] % 3)
        partitions.append(partition)
        places.append(offsets[partition])
        offsets[partition] += 1
    users = np.array([user for user, _, _ in events])
    items = np.array([item for _, item, _ in events])
    first = folder.fold(
        folder.initial_records(USERS),
        EventBatch(
            user_index=users,
            item_ids=items,
            category_ids=items % 10,
            behaviors=np.zeros(len(users), np.int8),
            event_times_ms=np.array([time for _, _, time in events]),
            log_times_ms=np.array([time for _, _, time in events]),
            epochs=np.ones(len(users), np.int64),
            partitions=np.array(partitions),
            offsets=np.array(places),
        ),
    ).records
    paths = sorted(context.config.stream.files.glob("*.gz"))
    rows = (row for path in paths for row in read_lines(path))
    start = dict(enumerate(first))
    final = batch_fold(rows, folder, context.config.log, epoch=2, start=start)
    return np.stack([final.memories[user] for user in range(USERS)])


def test_an_upgrade_builds_loads_and_switches_and_can_be_repeated(history):
    context, _ = history
    new = untrained_bundle(context.bundles / "mimn" / "next", items=30, categories=5)
    said: list[str] = []
    assert upgrade(context, UpgradeOptions(new.path), said.append) == 2
    with open_memories(context.config.store, context.workspace) as store:
        assert store.generations.live() == 2
        found = store.generations.get(2)
    assert (found.bundle, found.rows) == (new.hash8, USERS)
    assert "generation 1 does not stream, so there is nothing to catch up with" in said
    from uic.models.errors import BadInputError

    with pytest.raises(BadInputError, match="generation 2, which is live, is of this bundle"):
        upgrade(context, UpgradeOptions(new.path), said.append)


def test_an_upgrade_that_was_cut_off_goes_on(history):
    context, _ = history
    new = untrained_bundle(context.bundles / "mimn" / "next", items=30, categories=5)
    with open_memories(context.config.store, context.workspace) as store:
        built = _built(context, new.path, date(2026, 3, 2), generation=5)
        load_values(built, store.memories, store.generations)
    said: list[str] = []
    assert upgrade(context, UpgradeOptions(new.path), said.append) == 5
    assert said[:2] == [f"snapshot {built.name} is built already", "generation 5 is loaded already"]


def _next_day(context, bundle):
    """Generation 2, live at the first day; and its snapshot of the second day, not loaded."""
    first = _built(context, bundle, date(2026, 3, 1), generation=2)
    with open_memories(context.config.store, context.workspace) as store:
        load_values(first, store.memories, store.generations)
        store.generations.switch(2, 0.0)
    return _built(context, bundle, date(2026, 3, 2), generation=2, start=first.path)


def test_a_later_snapshot_moves_a_live_generation_on(history):
    context, _ = history
    later = _next_day(context, context.bundles / "mimn" / "untrained")
    with open_memories(context.config.store, context.workspace) as store:
        with pytest.raises(StartPositionError, match="is folded up to"):
            Planner(context, RunOptions()).plan(2, 1)
        loaded = load_values(later, store.memories, store.generations)
        assert loaded.landed == USERS
        assert loaded.generation.snapshot == "generation=002/dt=2026-03-02"
        assert store.generations.markers(2)[1] == later.positions[1]
        assert Planner(context, RunOptions()).plan(2, 1)[0].epoch == 2
        # An older one changes nothing.
        older = Snapshot.open(context.memories / "generation=002" / "dt=2026-03-01")
        assert load_values(older, store.memories, store.generations).landed == 0
        assert store.generations.get(2).snapshot == later.name
        assert store.generations.markers(2)[1] == later.positions[1]


def test_a_start_notices_what_feast_has_materialized(history):
    context, _ = history
    later = _next_day(context, context.bundles / "mimn" / "untrained")
    materialize_memories(context.config.store, context.workspace, later)
    assert Planner(context, RunOptions()).plan(2, 1)[0].epoch == 2
    with open_memories(context.config.store, context.workspace) as store:
        assert store.generations.get(2).snapshot == later.name
        assert store.generations.markers(2)[1] == later.positions[1]


def test_memories_beyond_the_topic_are_no_start(history):
    context, _ = history
    bundle = context.bundles / "mimn" / "untrained"
    with open_memories(context.config.store, context.workspace) as store:
        whole = _built(context, bundle, date(2026, 3, 2), generation=2)
        load_values(whole, store.memories, store.generations)
        Planner(context, RunOptions(generation=2)).plan(2, 1)
        log = EventLog(context.log)
        log.append_epoch(kind="topic", name="later.x", partitions=1, first_offsets={0: 0})
        # A later epoch that no memory has folded stands in nobody's way.
        Planner(context, RunOptions(generation=2)).plan(2, 2)
        folder = MemoryFolder(load_bundle(bundle), 2)
        two = np.array([3, 5])
        records, _ = store.memories.read(2, two, folder.record_bytes)
        ones = np.ones(2, np.int64)
        event = EventBatch(
            user_index=np.arange(2),
            item_ids=ones,
            category_ids=ones,
            behaviors=np.zeros(2, np.int8),
            event_times_ms=DAY_MS * ones,
            log_times_ms=DAY_MS * ones,
            epochs=3 * ones,
            partitions=0 * ones,
            offsets=np.arange(2),
        )
        store.memories.write(2, two, folder.fold(records, event).records)
    with pytest.raises(StartPositionError, match=r"2 memories lie in epoch 3 \(later.x\), the sou"):
        Planner(context, RunOptions(generation=2)).plan(2, 3)
