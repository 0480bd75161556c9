"""Feast's offline side on a workspace: a plain `feast materialize`, memories of another time."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from feast import FeatureStore

from tests.feature_repo.test_loading import CUT_MS, records_of, write_snapshot
from uic.feature_repo.plugin.repository import apply_definitions
from uic.feature_repo.snapshots.published_values import point_current_to
from uic.feature_repo.snapshots.snapshots import SNAPSHOT, Snapshot
from uic.feature_repo.store.generations import Generations, State
from uic.feature_repo.store.layout import ViewKeys
from uic.models.published import file_entry, publish_manifest

IDS = np.arange(50)
CUT = datetime.fromtimestamp(CUT_MS / 1000, UTC)
DAY = timedelta(days=1)
# Feast's offline store: dask and pandas deprecations, on-demand views experimental.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def feast(feast: FeatureStore, workspace: Path) -> FeatureStore:
    """The repository applied in this workspace, which has neither memories nor images yet."""
    apply_definitions(feast, workspace)
    return feast


@pytest.fixture
def generations(redis_server: redis.Redis) -> Generations:
    return Generations(redis_server, ViewKeys.of_memories("uic"))


def test_a_plain_materialize_into_an_empty_store_ends_readable(
    feast: FeatureStore, workspace: Path, generations: Generations
) -> None:
    """No item images in the workspace, and no generation in the store."""
    snapshot = write_snapshot(workspace, IDS)
    point_current_to(snapshot.path)
    feast.materialize(CUT - DAY, CUT)
    assert generations.get(1).state is State.LIVE
    answer = feast.get_online_features(
        ["user_interest:memory", "item_image:embedding"], [{"user_id": 7, "item_id": 1}]
    ).to_dict()
    assert answer["memory"] == [records_of(IDS[7:8], 100).tobytes()]
    assert answer["embedding"] == [None]


def test_an_incremental_materialize_ends_readable(
    feast: FeatureStore, workspace: Path, generations: Generations
) -> None:
    """Feast's first incremental one begins a year before now."""
    snapshot = write_snapshot(workspace, IDS)
    now = datetime.now(UTC).replace(microsecond=0)
    with_cut(snapshot, now)
    point_current_to(snapshot.path)
    generations.forget(3)
    feast.materialize_incremental(now)
    assert generations.live() == 1
    assert generations.get(1).rows == 49


def test_a_later_generation_waits_for_its_switch_and_says_so(
    feast: FeatureStore,
    workspace: Path,
    generations: Generations,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for number in (1, 2):
        point_current_to(write_snapshot(workspace, IDS, generation=number).path)
        feast.materialize(CUT - DAY, CUT)
    assert generations.live() == 1
    assert generations.get(2).state is State.READY
    assert "generation 2 is loaded and ready, readers still read 1" in caplog.text
    assert "uic memories switch 2" in caplog.text


def test_a_part_of_a_snapshot_is_not_live(
    feast: FeatureStore, workspace: Path, generations: Generations
) -> None:
    point_current_to(write_snapshot(workspace, IDS).path)
    rows = pd.DataFrame(
        {
            "user_id": IDS[:49],
            "event_timestamp": CUT,
            "memory": [record.tobytes() for record in records_of(IDS[:49], 100)],
        }
    )
    feast.write_to_online_store("user_interest", rows)
    assert generations.get(1).state is State.LOADING


def with_cut(snapshot: Snapshot, cut: datetime) -> None:
    """Rewrite a snapshot's rows to another cut, as its manifest has it."""
    path = snapshot.path / "a.parquet"
    table = pq.read_table(path)
    times = np.full(table.num_rows, int(cut.timestamp() * 1000))
    at = SNAPSHOT.get_field_index("event_timestamp")
    pq.write_table(
        table.set_column(at, SNAPSHOT.field(at), [pa.array(times, SNAPSHOT.field(at).type)]), path
    )
    manifest = dict(snapshot.manifest) | {"cut_ms": int(cut.timestamp() * 1000)}
    manifest["files"] = [file_entry(snapshot.path, path, table.num_rows)]
    (snapshot.path / "manifest.json").unlink()
    publish_manifest(snapshot.path, manifest)


def test_history_answers_from_the_last_cut_before_each_row_and_drops_none(
    feast: FeatureStore, workspace: Path, caplog: pytest.LogCaptureFixture
) -> None:
    yesterday = write_snapshot(workspace, IDS[:10], offset=50, day="2024-03-05")
    with_cut(yesterday, CUT - DAY)
    point_current_to(write_snapshot(workspace, IDS, offset=100).path)
    hour = timedelta(hours=1)
    rows = pd.DataFrame(
        [
            (1, CUT + hour),  # today's
            (1, CUT - hour),  # yesterday's
            (1, CUT - 2 * DAY),  # before every cut
            (20, CUT - hour),  # a user who is new today
            (20, CUT + hour),
            (99, CUT),  # a user whom nobody knows
        ],
        columns=["user_id", "event_timestamp"],
    )
    job = feast.get_historical_features(
        rows, ["user_interest:memory", "user_interest_decoded:offset"]
    )
    answer = job.to_df()
    assert list(answer.columns) == ["user_id", "event_timestamp", "memory", "offset"]
    assert answer["user_id"].tolist() == [1, 1, 1, 20, 20, 99]
    assert [None if pd.isna(offset) else offset for offset in answer["offset"]] == [
        100,
        50,
        None,
        None,
        100,
        None,
    ]
    assert answer["memory"][1] == records_of(IDS[1:2], 50).tobytes()
    assert answer["memory"][2] is None
    assert "2 of 6 rows are of users without a memory" in caplog.text


def test_history_is_of_the_live_generation_and_not_of_a_trial_built_since(
    feast: FeatureStore, workspace: Path
) -> None:
    point_current_to(write_snapshot(workspace, IDS).path)
    feast.materialize(CUT - DAY, CUT)
    point_current_to(write_snapshot(workspace, IDS[:3], offset=7, generation=6).path)
    rows = pd.DataFrame({"user_id": [20], "event_timestamp": [CUT + timedelta(hours=1)]})
    answer = feast.get_historical_features(rows, ["user_interest_decoded:offset"]).to_df()
    assert answer["offset"].tolist() == [100]


def test_images_are_materialized_once_they_are_there(feast: FeatureStore, workspace: Path) -> None:
    assert not feast.get_feature_view("item_image").online
    (workspace / "item_images" / "version=001").mkdir(parents=True)
    (workspace / "item_images" / "current").symlink_to("version=001")
    apply_definitions(feast, workspace)
    assert feast.get_feature_view("item_image").online
