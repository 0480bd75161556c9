"""Lists of what was shown: in the log, and in each fold of it."""

import json
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.pipelines.test_shown_wire import NOW, click, parse, shown
from uic.jobs.checks.user_view import view_record
from uic.models.bundles.bundle import load_bundle
from uic.models.bundles.saving import save_state
from uic.models.memory.fold import MemoryFolder
from uic.models.records.positions import PLACE, REQUEST
from uic.models.records.record import header_view, parts_view
from uic.models.state.definition import StateDefinition
from uic.models.state.part import Asked
from uic.pipelines.importers.run import run_import
from uic.pipelines.importers.table import TableColumns, TableImporter
from uic.pipelines.importers.times import TimeUnit
from uic.pipelines.log.columns import event_batch
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.events import EventParser
from uic.pipelines.log.shown import event_files
from uic.pipelines.log.writer import LogWriter, Part
from uic.pipelines.memories.build import MemoriesRequest, build_memories
from uic.pipelines.settings import LogSettings, MemoriesSettings, SaleSettings
from uic.pipelines.state.asof import AsOfRequest, features_as_of

FIRST = date(2026, 3, 1)
STATE = StateDefinition.of_document(
    {
        "version": 1,
        "parts": {
            "clicked": {"kind": "rates", "by": "item", "exposures": ["shown"],
                        "successes": ["click"], "half_life": "7d", "size": 32},
            "some": {"kind": "rates", "exposures": ["shown"], "successes": ["click"],
                     "sample": 0.25},
            "items": {"kind": "counts", "size": 8},
            "seen": {"kind": "recent", "size": 4, "behaviors": ["shown", "buy"]},
        },
    },
    "test",
)  # fmt: skip
WITHOUT = StateDefinition.of_document(
    {"version": 1, "parts": {"items": {"kind": "counts", "size": 8}}}, "test"
)


def random_payloads(seed: int, count: int = 60) -> list[bytes]:
    draw = np.random.default_rng(seed)
    found = []
    for at in range(count):
        user, time = int(draw.integers(1, 5)), NOW + at * 3_600_000
        if draw.random() < 0.4:
            items = draw.integers(0, 20, int(draw.integers(1, 6))).tolist()
            found.append(shown(user_id=user, event_time=time, item_ids=items, request_id=at,
                               category_ids=[item % 3 for item in items]))  # fmt: skip
        else:
            item = int(draw.integers(0, 20))
            kind = ["click", "buy"][int(draw.integers(0, 2))]
            found.append(click(user_id=user, item_id=item, category_id=item % 3, behavior=kind,
                               event_time=time))  # fmt: skip
    return found


def log_of(payloads: list[bytes], root, repeats: int = 0) -> EventLog:
    """A topic's log: two partitions by user, each payload a position; the last are read twice."""
    log = EventLog(root)
    epoch = log.append_epoch(
        kind="topic", name="t", partitions=2, first_offsets={0: 0, 1: 0}, offset_gaps=True
    )
    times = NOW + 3_600_000 * np.arange(len(payloads))
    parsed = EventParser(LogSettings(), lists=True).parse(payloads, times)
    table = pa.table(
        {
            "user_id": parsed.user_ids, "item_id": parsed.item_ids,
            "category_id": parsed.category_ids, "behavior": parsed.behaviors,
            "event_time": pa.array(parsed.event_times_ms).cast(pa.timestamp("ms")),
            "log_time": pa.array(times[parsed.index]).cast(pa.timestamp("ms")),
            "partition": (parsed.user_ids % 2).astype(np.int32), "offset": parsed.index,
            f"event.{PLACE}": parsed.columns[PLACE], f"event.{REQUEST}": parsed.columns[REQUEST],
        }
    )  # fmt: skip
    last = table.filter(pa.array(parsed.index >= len(payloads) - repeats))
    with LogWriter(log, Part("t"), time_zone="UTC", topic=epoch) as writer:
        writer.add_behaviors(table)
        writer.add_behaviors(last)
        writer.publish()
    return log


@pytest.mark.parametrize("repeats", [0, 1, 9])
def test_lists_lie_apart_in_the_log_in_the_same_positions(tmp_path, repeats) -> None:
    log = log_of(random_payloads(1), tmp_path / "log", repeats)
    behaviors, lists = (
        pa.concat_tables([pq.ParquetFile(file.path).read() for file in files])
        for files in (log.behavior_files(), log.shown_files())
    )
    assert set(behaviors["behavior"].to_pylist()) == {"click", "buy"}
    assert set(lists["behavior"].to_pylist()) == {"shown"}
    assert f"event.{PLACE}" not in behaviors.column_names
    parser = EventParser(LogSettings(), lists=True)
    parsed = parser.parse(random_payloads(1), NOW + 3_600_000 * np.arange(60))
    assert behaviors.num_rows + lists.num_rows == len(parsed.index)
    offsets = set(behaviors["offset"].to_pylist()) | set(lists["offset"].to_pylist())
    assert offsets == set(range(60))
    assert event_files(log, shown=False) == log.behavior_files()
    assert len(event_files(log, shown=True)) == len(log.behavior_files()) + len(log.shown_files())


@pytest.mark.parametrize("slice_rows", [3, 5, 7, 24])
def test_a_list_that_a_crowded_moment_would_cut_stays_whole(tmp_path, slice_rows) -> None:
    log = EventLog(tmp_path / "log")
    epoch = log.append_epoch(
        kind="topic", name="t", partitions=1, first_offsets={0: 0}, offset_gaps=True
    )
    parsed = parse([shown(item_ids=[1, 2, 3, 4], category_ids=[1] * 4)] * 6)
    now = pa.array(np.full(24, NOW)).cast(pa.timestamp("ms"))
    table = pa.table(
        {
            "user_id": parsed.user_ids, "item_id": parsed.item_ids,
            "category_id": parsed.category_ids, "behavior": parsed.behaviors,
            "event_time": now, "log_time": now,
            "partition": np.zeros(24, np.int32), "offset": parsed.index,
            f"event.{PLACE}": parsed.columns[PLACE], f"event.{REQUEST}": parsed.columns[REQUEST],
        }
    )  # fmt: skip
    writer = LogWriter(log, Part("t"), time_zone="UTC", topic=epoch, slice_rows=slice_rows)
    with writer:
        writer.add_behaviors(table)
        writer.publish()
    [file] = log.shown_files()
    rows = pq.ParquetFile(file.path).read()
    assert rows["offset"].to_pylist() == np.repeat(np.arange(6), 4).tolist()
    assert rows[f"event.{PLACE}"].to_pylist() == [0, 1, 2, 3] * 6


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    root = tmp_path_factory.mktemp("bundles") / "state"
    save_state(root / "1", STATE, ())
    save_state(root / "2", WITHOUT, ())
    return root


def folded(folder: MemoryFolder, payloads: list[bytes], pieces: int, *, lists=True):
    """Records of users 1 to 4 after the payloads, one batch after the other, some sent twice."""
    records = folder.initial_records(4)
    parser = EventParser(LogSettings(), lists=lists)
    times = NOW + 3_600_000 * np.arange(len(payloads))
    for at in np.array_split(np.arange(len(payloads)), pieces):
        again = np.concatenate([at, at[-2:]]) if len(at) else at
        parsed = parser.parse([payloads[row] for row in again], times[again])
        table = {
            "user_id": parsed.user_ids, "item_id": parsed.item_ids,
            "category_id": parsed.category_ids, "behavior": parsed.behaviors,
            "event_time": parsed.event_times_ms, "log_time": times[again][parsed.index],
            "epoch": np.ones(len(parsed.index), np.int64),
            "partition": parsed.user_ids % 2, "offset": again[parsed.index],
        } | {f"event.{name}": values for name, values in parsed.columns.items()}  # fmt: skip
        batch = event_batch(pa.table(table), np.arange(1, 5))
        records = folder.fold(records, batch).records
    return records


@given(seed=st.integers(0, 10**6), pieces=st.integers(1, 12))
@settings(max_examples=25, deadline=None)
def test_in_pieces_at_once_and_with_repeats_the_bytes_are_the_same(bundles, seed, pieces) -> None:
    folder = MemoryFolder(load_bundle(bundles / "1"), 1)
    payloads = random_payloads(seed)
    whole = folded(folder, payloads, 1)
    assert whole.tobytes() == folded(folder, payloads, pieces).tobytes()


def test_a_build_has_the_records_of_the_stream(bundles, tmp_path) -> None:
    payloads = random_payloads(3)
    log = log_of(payloads, tmp_path / "log", repeats=5)
    for version, lists in (("1", True), ("2", False)):
        request = MemoriesRequest(
            log=log.root, memories=tmp_path / version, bundle=bundles / version,
            until=FIRST + timedelta(days=4), time_zone="UTC",
            memories_settings=MemoriesSettings(buckets=2), sale=SaleSettings(),
        )  # fmt: skip
        snapshot = build_memories(request)
        streamed = folded(MemoryFolder(load_bundle(bundles / version), 1), payloads, 7, lists=lists)
        built = {
            user: bytes(record)
            for users, records in snapshot.batches()
            for user, record in zip(users.tolist(), records, strict=True)
        }
        for user in range(1, 5):
            assert built[user] == streamed[user - 1].tobytes()


def test_parts_that_read_lists_are_taken_over_and_folded_on(bundles, tmp_path) -> None:
    document = STATE.document()
    document["parts"]["items"]["size"] = 9
    save_state(tmp_path / "3", StateDefinition.of_document(document, "test"), ())
    log = log_of(random_payloads(6), tmp_path / "log", repeats=5)
    size = StateDefinition.of_document(document, "test").bytes
    made, parts = [], []
    for bundle, days, memories in (
        (bundles / "1", 1, "both"),
        (tmp_path / "3", 4, "both"),
        (tmp_path / "3", 4, "alone"),
    ):
        request = MemoriesRequest(
            log=log.root, memories=tmp_path / memories, bundle=bundle,
            until=FIRST + timedelta(days=days), time_zone="UTC",
            memories_settings=MemoriesSettings(buckets=2), sale=SaleSettings(),
        )  # fmt: skip
        made.append(build_memories(request))
        parts.append(
            {
                user: record[-size:].tobytes()
                for users, records in made[-1].batches()
                for user, record in zip(users.tolist(), records, strict=True)
            }
        )
    assert made[1].manifest["taken"]["parts"] == ["clicked", "seen", "some"]
    assert made[2].manifest["taken"] is None
    assert parts[1] == parts[2]
    assert len(parts[1]) == 4


def test_a_user_to_whom_things_were_only_shown_has_a_record(bundles) -> None:
    folder = MemoryFolder(load_bundle(bundles / "1"), 1)
    [record, *_] = folded(folder, [shown()], 1)
    header = header_view(record[None])
    assert (int(header["events"][0]), int(header["epoch"][0])) == (0, 1)
    column = np.zeros(2, np.int64)
    asked = Asked(column, column + NOW + 1, np.array([5, 8]), column)
    said = STATE.features(parts_view(record[None], folder.parts_bytes), asked)
    names = [one.name for one in STATE.described]
    assert said[:, names.index("clicked.exposures")].tolist() == [1, 0]
    assert said[0, names.index("items.distinct")] == 0
    assert view_record(record[None], None).last_event is None


def test_as_of_rows_the_exposures_are_those_before(tmp_path) -> None:
    payloads = random_payloads(4)
    log = log_of(payloads, tmp_path / "log")
    draw = np.random.default_rng(5)
    rows = {
        "user_id": draw.integers(1, 5, 50),
        "time": NOW + draw.integers(0, 60, 50) * 3_600_000 + draw.integers(0, 2, 50),
        "item_id": draw.integers(0, 20, 50),
        "category_id": draw.integers(0, 3, 50),
    }
    pq.write_table(pa.table(rows), tmp_path / "rows.parquet")
    out = tmp_path / "out.parquet"
    features_as_of(AsOfRequest(log.root, STATE), tmp_path / "rows.parquet", out)
    found = pq.read_table(out)
    events = [json.loads(payload) for payload in payloads]
    for row in found.to_pylist():
        times = [
            event["event_time"]
            for event in events
            for item in event.get("item_ids", ())
            if event["user_id"] == row["user_id"] and item == row["item_id"]
        ]
        ages = [row["time"] // 3_600_000 - at // 3_600_000 for at in times if at < row["time"]]
        exact = sum(0.5 ** (age / 168) for age in ages)
        assert row["clicked.exposures"] == pytest.approx(exact, abs=1e-3)


def test_a_sample_of_requests_is_as_heavy_as_all() -> None:
    sampled = STATE.parts[[part.name for part in STATE.parts].index("some")]
    whole = StateDefinition.of_document(
        {"version": 1, "parts": {"some": {"kind": "rates", "exposures": ["shown"],
                                          "successes": ["click"]}}}, "test",
    )  # fmt: skip
    payloads = [shown(request_id=f"r{at}") for at in range(4000)]
    parsed = parse(payloads)
    zeros = np.zeros(len(parsed.index), np.int64)
    table = {
        "user_id": zeros, "item_id": parsed.item_ids, "category_id": parsed.category_ids,
        "behavior": parsed.behaviors, "event_time": zeros + NOW, "log_time": zeros + NOW,
        "epoch": zeros + 1, "partition": zeros, "offset": parsed.index,
    } | {f"event.{name}": values for name, values in parsed.columns.items()}  # fmt: skip
    batch = event_batch(pa.table(table), np.array([0]))
    one = np.zeros(1, np.int64)
    asked = Asked(one, one + NOW, one, one)
    counted = []
    for state in (StateDefinition((sampled,)), whole):
        states = state.initial()[None].copy()
        state.fold(states, batch)
        counted.append(float(state.features(states, asked)[0, 0]))
    assert counted[1] == 12_000
    assert counted[0] == pytest.approx(12_000, rel=0.08)
    assert counted[0] != 12_000


def test_an_import_keeps_impressions_as_events_if_it_is_asked(tmp_path) -> None:
    (tmp_path / "shown.csv").write_text(
        "user,item,shelf,at,clicked\n"
        + "".join(f"{at % 3},{at},{at % 2},{NOW // 1000 + at // 2},{at % 2}\n" for at in range(12))
    )
    columns = TableColumns(
        user_id="user", item_id="item", category_id="shelf", event_time="at",
        time_unit=TimeUnit.SECONDS, clicked="clicked",
    )  # fmt: skip
    log = EventLog(tmp_path / "log")
    importer = TableImporter(tmp_path / "shown.csv", columns, "table", "UTC")
    summary = run_import(importer, log, time_zone="UTC", partitions=2, shown=True)
    assert (summary.publication.behaviors, summary.publication.shown) == (6, 12)
    rows = pa.concat_tables([pq.ParquetFile(file.path).read() for file in log.shown_files()])
    assert sorted(rows["item_id"].to_pylist()) == list(range(12))
    behaviors = pa.concat_tables([pq.ParquetFile(f.path).read() for f in log.behavior_files()])
    taken = [
        (row["partition"], row["offset"])
        for table in (rows, behaviors)
        for row in table.select(["partition", "offset"]).to_pylist()
    ]
    assert len(set(taken)) == 18
    assert datetime.fromtimestamp(NOW / 1000, UTC).date() == FIRST
