"""A snapshot is the fold of the log, however the log was cut into builds."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.pipelines.memories.conftest import untrained_bundle
from uic.feature_repo.snapshots.snapshots import Snapshot
from uic.models.bundles.bundle import load_bundle
from uic.models.errors import ManifestError
from uic.models.memory.fold import EventBatch, MemoryFolder
from uic.models.records.record import header_view
from uic.pipelines.importers.ali_brand import AliBrand
from uic.pipelines.importers.run import run_import
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.positions import LogGapError
from uic.pipelines.log.schemas import BEHAVIORS
from uic.pipelines.memories.build import MemoriesError, MemoriesRequest, build_memories
from uic.pipelines.memories.exclude import ExcludeRule, ExcludeRulesError
from uic.pipelines.memories.prune import prune_snapshots
from uic.pipelines.settings import MemoriesSettings, SaleSettings

Make = Callable[..., MemoriesRequest]
FIRST, LAST = date(2024, 3, 1), date(2024, 3, 6)


def memories_of(snapshot: Snapshot) -> dict[int, bytes]:
    return {
        int(user): record.tobytes()
        for users, records in snapshot.batches()
        for user, record in zip(users, records, strict=True)
    }


def folded_one_by_one(
    log: EventLog, bundle: Path, generation: int, until: date = date.max
) -> dict[int, bytes]:
    """The same with one call of the fold for each event, in the order of the log."""
    folder = MemoryFolder(load_bundle(bundle), generation)
    rows = pa.concat_tables([pq.read_table(file.path) for file in log.behavior_files()])
    events = rows.sort_by([("epoch", "ascending"), ("offset", "ascending")]).to_pylist()
    memories = {}
    for event in events:
        if event["event_time"].date() > until:
            continue
        record = memories.get(event["user_id"], folder.initial_records(1))
        times = (
            (event[name].replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC))
            // timedelta(milliseconds=1)
            for name in ("event_time", "log_time")
        )
        one = EventBatch(
            np.zeros(1, np.int64),
            np.array([event["item_id"]]),
            np.array([event["category_id"]]),
            np.array([BEHAVIORS.index(event["behavior"])], np.int8),
            *(np.array([time]) for time in times),
            np.array([event["epoch"]], np.int64),
            np.array([event["partition"]], np.int64),
            np.array([event["offset"]]),
        )
        memories[event["user_id"]] = folder.fold(record, one).records
    return {user: record.tobytes() for user, record in memories.items()}


@pytest.fixture(scope="module")
def chain(small_log: EventLog, request_for: Make) -> list[Snapshot]:
    """One build from nothing for the first day, then one on top of the other."""
    snapshots = [build_memories(request_for(FIRST, days=1))]
    while (day := date.fromisoformat(snapshots[-1].manifest["until"])) < LAST:
        snapshots.append(
            build_memories(request_for(day + timedelta(days=1), start=snapshots[-1].path))
        )
    return snapshots


def test_at_once_is_day_by_day_is_event_by_event(
    chain: list[Snapshot], small_log: EventLog, request_for: Make, bundle: Path, tmp_path: Path
) -> None:
    settings = MemoriesSettings(buckets=7)
    at_once = build_memories(request_for(LAST, memories=tmp_path, memories_settings=settings))
    daily = chain[-1]
    assert memories_of(daily) == memories_of(at_once) == folded_one_by_one(small_log, bundle, 1)
    assert daily.positions == at_once.positions
    assert daily.rows == len(memories_of(daily))
    assert sum(found.manifest["events"]["folded"] for found in chain) == 900


def test_the_same_input_gives_the_same_files(
    chain: list[Snapshot], request_for: Make, tmp_path: Path
) -> None:
    again = build_memories(request_for(FIRST, days=1, memories=tmp_path / "again"))
    first = chain[0]
    assert again.manifest == first.manifest
    assert (tmp_path / "again" / "current").resolve() == again.path.resolve()


def test_rows_have_one_timestamp_the_cut(chain: list[Snapshot]) -> None:
    table = pa.concat_tables([pq.read_table(path) for path in chain[1].path.glob("*.parquet")])
    stamps = set(table.column("event_timestamp").to_pylist())
    assert stamps == {datetime(2024, 3, 3, tzinfo=UTC)}


def test_a_gap_between_the_snapshot_and_the_log_is_refused(
    chain: list[Snapshot], request_for: Make, tmp_path: Path
) -> None:
    start = chain[0]
    positions = start.manifest["positions"]
    with pytest.raises(LogGapError, match=r"offset \d+ of partition 0 \(epoch 1\).*goes on at"):
        build_memories(
            request_for(LAST, start=_without_days(start, tmp_path), memories=tmp_path / "elsewhere")
        )
    assert not list((tmp_path / "elsewhere").glob("*/*/manifest.json"))
    assert positions["1"]


def _without_days(start: Snapshot, tmp_path: Path) -> Path:
    """A copy of a snapshot that claims to end three days later than it does."""
    copy = tmp_path / "claims" / "generation=001" / "dt=2024-03-04"
    shutil.copytree(start.path, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["until"] = "2024-03-04"
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


def test_a_rebuild_with_rules_is_a_new_generation_without_what_they_name(
    chain: list[Snapshot], small_log: EventLog, request_for: Make, bundle: Path, tmp_path: Path
) -> None:
    rule = ExcludeRule.model_validate(
        {"from": "2024-03-03T06:00:00Z", "until": "2024-03-05T00:00:00Z", "sources": ["app"]}
    )
    clean = chain[1]  # until 2024-03-02
    rebuilt = build_memories(
        request_for(LAST, start=clean.path, rules=(rule,), memories=tmp_path, generation=2)
    )
    assert rebuilt.generation == 2
    events = rebuilt.manifest["events"]
    assert 0 < events["excluded"] < events["new"]
    assert rebuilt.positions == chain[-1].positions
    generations = {int(header_view(records)["generation"][0]) for _, records in rebuilt.batches()}
    assert generations == {2}
    # As if the excluded events had never been in the log.
    other = replace(
        request_for(LAST), rules=(rule,), generation=2, memories=tmp_path / "from_nothing"
    )
    assert memories_of(build_memories(other)) == memories_of(rebuilt)
    assert memories_of(rebuilt) != memories_of(chain[-1])


def test_behaviours_of_sale_days_are_left_out(
    small_log: EventLog, request_for: Make, tmp_path: Path
) -> None:
    calendar = tmp_path / "sale.yaml"
    calendar.write_text(
        'time_zone: UTC\nsales:\n  - {name: "3.3", first: 2024-03-03, last: 2024-03-04}\n'
    )
    sale = SaleSettings(calendar=calendar)
    built = build_memories(request_for(LAST, sale=sale, memories=tmp_path))
    on_sale = sum(
        file.rows for file in small_log.behavior_files(date(2024, 3, 3), date(2024, 3, 4))
    )
    assert built.manifest["events"]["excluded"] == on_sale
    with pytest.raises(ExcludeRulesError, match="other sale days"):
        build_memories(request_for(date(2024, 3, 7), start=built.path))


def test_what_does_not_fit_is_refused_in_one_line(
    chain: list[Snapshot], request_for: Make, other_bundle: Path, tmp_path: Path
) -> None:
    last = chain[-1]
    with pytest.raises(MemoriesError, match="a new bundle starts from nothing"):
        build_memories(request_for(date(2024, 3, 7), start=last.path, bundle=other_bundle))
    with pytest.raises(MemoriesError, match="choose a later day"):
        build_memories(request_for(FIRST, start=last.path))
    with pytest.raises(MemoriesError, match="no behaviours from"):
        build_memories(request_for(date(2020, 1, 1)))
    with pytest.raises(MemoriesError, match="time_zone"):
        build_memories(request_for(LAST, time_zone="Asia/Shanghai"))
    with pytest.raises(MemoriesError, match="no event log"):
        build_memories(request_for(LAST, log=tmp_path / "nothing"))
    with pytest.raises(ManifestError, match=r"manifest\.json: missing"):
        build_memories(request_for(LAST, bundle=tmp_path / "bundles" / "mimn" / "9"))
    copy = tmp_path / "generation=001" / last.path.name
    shutil.copytree(last.path, copy)
    [damaged, *_] = copy.glob("*.parquet")
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(ManifestError, match="bytes are not those of its manifest"):
        build_memories(request_for(date(2024, 3, 7), start=copy))


def test_a_process_that_goes_on_folds_with_the_bundle_that_is_there_now(
    small_log: EventLog, request_for: Make, tmp_path: Path
) -> None:
    path, built = tmp_path / "mimn" / "1", []
    for seed in (0, 1):
        shutil.rmtree(path, ignore_errors=True)
        untrained_bundle(path, seed)
        request = request_for(FIRST, bundle=path, memories=tmp_path / str(seed))
        built.append(memories_of(build_memories(request)))
        assert built[-1] == folded_one_by_one(small_log, path, 1, until=FIRST)
    assert built[0] != built[1]


def test_prune_leaves_the_newest_and_the_current_one(chain: list[Snapshot], tmp_path: Path) -> None:
    memories = tmp_path / "memories"
    shutil.copytree(chain[0].path.parent.parent, memories, symlinks=True)
    removed = prune_snapshots(memories, keep=2)
    assert [found.name for found in removed] == [found.name for found in chain[:-2]]
    left = sorted(path.name for path in (memories / "generation=001").glob("dt=*"))
    assert left == ["dt=2024-03-05", "dt=2024-03-06"]
    assert (memories / "current" / "manifest.json").exists()


def test_real_brand_behaviours_at_once_and_in_chained_builds(
    shared_data: Path, tmp_path: Path, bundle: Path, request_for: Make
) -> None:
    log = EventLog(tmp_path / "log")
    source = AliBrand(shared_data / "ali_brand_2013/behaviors.parquet", "Asia/Shanghai")
    run_import(source, log, time_zone="Asia/Shanghai", partitions=4)
    days = sorted({file.dt for file in log.behavior_files()})
    zone = {"time_zone": "Asia/Shanghai", "log": tmp_path / "log"}
    at_once = build_memories(request_for(days[-1], days=400, memories=tmp_path / "a", **zone))
    cuts = [days[len(days) * part // 6 - 1] for part in range(1, 7)]
    chained = build_memories(request_for(cuts[0], days=400, memories=tmp_path / "c", **zone))
    for cut in cuts[1:]:
        chained = build_memories(
            request_for(cut, start=chained.path, memories=tmp_path / "c", **zone)
        )
    assert memories_of(chained) == memories_of(at_once)
    assert chained.positions == at_once.positions
    assert at_once.manifest["events"]["folded"] == sum(file.rows for file in log.behavior_files())
