"""Real data through the importers: every row arrives once, in order, with dense positions."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from uic.models.hashing import stable_hash
from uic.pipelines.importers.ali_brand import AliBrand
from uic.pipelines.importers.kuairand import KuaiRand
from uic.pipelines.importers.next_item import NextItemOptions
from uic.pipelines.importers.run import run_import
from uic.pipelines.log.event_log import EventLog

pytestmark = pytest.mark.slow

ZONE = "Asia/Shanghai"


@pytest.fixture(scope="module")
def kuairand(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> EventLog:
    log = EventLog(tmp_path_factory.mktemp("kuairand") / "log")
    importer = KuaiRand(shared_data / "kuairand_pure_14d")
    run_import(importer, log, time_zone=ZONE, partitions=4)
    return log


@pytest.fixture(scope="module")
def brands(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> EventLog:
    log = EventLog(tmp_path_factory.mktemp("brands") / "log")
    importer = AliBrand(shared_data / "ali_brand_2013/behaviors.parquet", ZONE)
    run_import(importer, log, time_zone=ZONE, partitions=4)
    return log


def tables(log: EventLog) -> Iterator[pa.Table]:
    for file in log.behavior_files():
        table = pq.read_table(file.path)
        assert table.num_rows == file.rows
        local = pc.assume_timezone(table["log_time"], "UTC").cast(pa.timestamp("ms", ZONE))
        days = pc.unique(pc.strftime(local, "%Y-%m-%d")).to_pylist()
        assert days == [file.dt.isoformat()]
        yield table


def check_positions(log: EventLog) -> None:
    (epoch,) = log.epochs()
    next_offset, last_time = dict.fromkeys(range(4), 0), dict.fromkeys(range(4), 0)
    for table in tables(log):
        users, partitions, offsets = (
            table[name].to_numpy() for name in ("user_id", "partition", "offset")
        )
        assert (partitions == (stable_hash(users) % np.uint64(4)).astype(np.int32)).all()
        assert (np.diff(partitions) >= 0).all()
        times = table["log_time"].to_numpy().view(np.int64)
        for partition in range(4):
            mine = partitions == partition
            if mine.any():
                first = next_offset[partition]
                assert (offsets[mine] == np.arange(first, first + mine.sum())).all()
                assert (np.diff(np.r_[last_time[partition], times[mine]]) >= 0).all()
                next_offset[partition] = first + int(mine.sum())
                last_time[partition] = int(times[mine][-1])
    assert epoch.last_offsets == {key: value - 1 for key, value in next_offset.items()}


def test_kuairand_positions_are_dense_and_time_never_falls(kuairand: EventLog) -> None:
    check_positions(kuairand)


def test_kuairand_has_every_click_and_every_earlier_video(
    kuairand: EventLog, shared_data: Path
) -> None:
    table = pa.concat_tables(tables(kuairand))
    assert table.num_rows == 817_187 + 100_900
    source = pq.read_table(shared_data / "kuairand_pure_14d/impressions.parquet")
    clicks = source.filter(pc.equal(source["is_click"], 1))
    found = table.filter(pc.equal(table["source"], "kuairand-log"))
    for ours, theirs in (("user_id", "user_id"), ("item_id", "video_id")):
        assert np.array_equal(np.sort(found[ours].to_numpy()), np.sort(clicks[theirs].to_numpy()))
    sequences = pq.read_table(shared_data / "kuairand_pure_14d/user_sequences.parquet")
    prior = table.filter(pc.equal(table["source"], "kuairand-prior"))
    order = np.lexsort((prior["offset"].to_numpy(), prior["user_id"].to_numpy()))
    by_user = sequences.sort_by("user_id")
    assert np.array_equal(
        prior["item_id"].to_numpy()[order], pc.list_flatten(by_user["watch_seq"]).to_numpy()
    )
    last = prior.group_by("user_id").aggregate([("event_time", "max")]).sort_by("user_id")
    assert last["event_time_max"].cast(pa.int64()).equals(by_user["last_time_ms"])


def test_kuairand_has_every_impression_on_its_day(kuairand: EventLog, shared_data: Path) -> None:
    source = pq.read_table(shared_data / "kuairand_pure_14d/impressions.parquet")
    # By time_ms: the set's own `date` column is a day off for some rows near midnight.
    times = source["time_ms"].cast(pa.timestamp("ms", "UTC")).cast(pa.timestamp("ms", ZONE))
    counted = pc.value_counts(pc.strftime(times, "%Y-%m-%d")).to_pylist()
    rows = {file.dt.isoformat(): file.rows for file in kuairand.impression_files()}
    assert rows == {entry["values"]: entry["counts"] for entry in counted}
    found = pa.concat_tables([pq.read_table(file.path) for file in kuairand.impression_files()])
    assert int(pc.sum(found["clicked"]).as_py()) == 100_900


def test_brands_keep_their_rows_in_order(brands: EventLog, shared_data: Path) -> None:
    check_positions(brands)
    source = pq.read_table(shared_data / "ali_brand_2013/behaviors.parquet")
    by_day = {file.dt: pq.read_table(file.path) for file in brands.behavior_files()}
    days = source["date"].to_numpy().astype("datetime64[D]").astype(object)
    names = np.array(["click", "buy", "favourite", "cart"])[source["type"].to_numpy()]
    for day, table in by_day.items():
        theirs = days == day
        order = np.argsort(table["log_time"].to_numpy(), kind="stable")
        for ours, column in (("user_id", "user_id"), ("item_id", "brand_id")):
            found = table[ours].to_numpy()[order]
            assert np.array_equal(found, source[column].to_numpy()[theirs])
        behaviors = np.array(table["behavior"].to_pylist())[order]
        assert np.array_equal(behaviors, names[theirs])
    assert sum(table.num_rows for table in by_day.values()) == 182_880


def test_brands_by_the_next_item_protocol(shared_data: Path, tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log")
    importer = AliBrand(shared_data / "ali_brand_2013/behaviors.parquet", ZONE)
    options = NextItemOptions(min_length=20, truncate=100)
    summary = run_import(importer, log, time_zone=ZONE, partitions=4, next_item=options)
    assert summary.next_item is not None
    used = summary.next_item.users - summary.next_item.too_short
    assert summary.publication.impressions == 2 * used
    shown = pa.concat_tables([pq.read_table(file.path) for file in log.impression_files()])
    events = pa.concat_tables([pq.read_table(file.path) for file in log.behavior_files()])
    target_times = dict(
        zip(shown["user_id"].to_pylist(), shown["event_time"].to_pylist(), strict=True)
    )
    last = events.group_by("user_id").aggregate([("log_time", "max"), ("log_time", "count")])
    for row in last.to_pylist():
        assert row["log_time_max"] < target_times[row["user_id"]]
        assert 19 <= row["log_time_count"] <= 100
