"""Exact parts through plain Feast: named numbers of users and of candidates, as of the read."""

import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from feast import FeatureStore, RepoConfig

from uic.feature_repo.features import state_views
from uic.feature_repo.plugin.repository import apply_definitions, open_feature_store
from uic.feature_repo.snapshots.published_values import point_live_to
from uic.feature_repo.store.opened import open_memories
from uic.jobs.workspace.workspace import Workspace
from uic.models.records.record import parts_view
from uic.models.state.part import Asked
from uic.pipelines.state.feast_store import StateHistoryError
from uic.pipelines.state.rows import RowsError

USERS = [1, 2, 3, 4]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A simulated log's records of exact parts alone, loaded into a store of their own."""
    made = Workspace(tmp_path_factory.mktemp("feast") / "var")
    made.simulate(users=30, days=8, items=200, seed=2)
    made.state.publish()
    made.build_memories("state", "2025-01-08")
    made.store.start()
    try:
        made.load()
        made.switch(1)
        yield made
    finally:
        made.store.stop()


@pytest.fixture
def feast(workspace: Workspace) -> FeatureStore:
    return workspace.state.feast()


def test_features_by_name_are_what_the_record_says(workspace, feast) -> None:
    state = workspace.state.read()
    with open_memories(workspace.config.store, workspace.path) as store:
        live = store.generations.live()
        records, found = store.memories.read(live, np.array(USERS), 44 + state.bytes)
    assert found.all()
    states = np.ascontiguousarray(parts_view(records, state.bytes))
    items = np.array([5, 6, 7, 8])
    ago = Asked(np.arange(4), np.full(4, 2**41), items, items % 3)  # later than any event
    told = state.features(states, ago)
    rows = [
        {"user_id": user, "candidate_item_id": int(item), "candidate_category_id": int(item % 3)}
        for user, item in zip(USERS, items, strict=True)
    ]
    names = [one.name for one in state.described]
    wanted = ["items.distinct", "items.count", "categories.count"]
    references = [
        f"{'candidate' if state.described[names.index(name)].of_candidate else 'user'}_state:"
        f"{name.replace('.', '_')}"
        for name in wanted
    ]
    answer = feast.get_online_features(references, rows).to_dict()
    for name in wanted:
        own = told[:, names.index(name)].tolist()
        assert answer[name.replace(".", "_")] == own
    assert max(answer["items_distinct"]) > 1


def test_an_unknown_user_has_none_and_a_memory_is_not_made_up(feast) -> None:
    answer = feast.get_online_features(["user_state:items_distinct"], [{"user_id": 999}]).to_dict()
    assert answer["items_distinct"] == [None]
    decoded = feast.get_online_features(
        ["user_interest_decoded:slots", "user_interest_decoded:events"], [{"user_id": 1}]
    ).to_dict()
    assert decoded["slots"] == [[]]
    assert decoded["events"][0] > 0


def test_a_user_of_a_generation_without_a_memory_is_shown(workspace: Workspace) -> None:
    shown = workspace.user(1)
    assert shown.view.channels is None
    assert shown.nearest is None
    state = workspace.state.read()
    assert list(shown.view.parts) == [x.name for x in state.described if not x.of_candidate]
    assert shown.view.parts["items.distinct"] > 1


def test_definitions_are_applied_whatever_the_environment_says(
    workspace: Workspace, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UIC_WORKSPACE", str(tmp_path))
    store = open_feature_store(workspace.config.store, workspace.path)
    apply_definitions(store, workspace.path)
    assert os.environ["UIC_WORKSPACE"] == str(tmp_path)
    assert store.get_on_demand_feature_view("user_state").features


def test_a_candidate_that_is_none_has_none_and_others_their_numbers(feast: FeatureStore) -> None:
    rows = [
        {"user_id": 1, "candidate_item_id": item, "candidate_category_id": 1} for item in (5, None)
    ]
    answer = feast.get_online_features(["candidate_state:items_count"], rows).to_dict()
    first, second = answer["items_count"]
    assert first is not None
    assert second is None


@pytest.mark.parametrize(
    ("parts", "names"),
    [
        ({"a": {"kind": "aggregate", "windows": ["1d"]}}, ["user_state"]),
        ({"r": {"kind": "rates", "by": "item"}}, ["candidate_state"]),
    ],
)
def test_a_view_is_made_only_where_it_has_features(tmp_path, parts, names) -> None:
    current = tmp_path / "memories" / "current"
    current.mkdir(parents=True)
    document = {"version": 1, "parts": parts}
    manifest = {"bundle_hash8": "00", "state": [], "parts": document}
    (current / "manifest.json").write_text(json.dumps(manifest))
    assert [view.name for view in state_views(tmp_path)] == names


@pytest.fixture
def rows() -> pd.DataFrame:
    """Moments of the log's days and after them, some twice; users 31 and 32 are in no log."""
    draw = np.random.default_rng(5)
    day = pd.Timestamp("2025-01-01", tz="UTC")
    return pd.DataFrame(
        {
            "user_id": draw.integers(1, 33, 200),
            "event_timestamp": day + pd.to_timedelta(draw.integers(0, 9 * 86_400, 200), unit="s"),
            "candidate_item_id": draw.integers(1, 200, 200),
            "candidate_category_id": draw.integers(0, 5, 200),
        },
        index=np.arange(200)[::-1],
    )


def told_by(workspace: Workspace, rows: pd.DataFrame, folder: Path, **options) -> pd.DataFrame:
    """What `uic features asof` says of the rows."""
    named = {"event_timestamp": "time"} | {
        f"candidate_{name}": name for name in ("item_id", "category_id")
    }
    rows.rename(columns=named).to_parquet(folder / "rows.parquet", index=False)
    workspace.state.as_of(folder / "rows.parquet", folder / "out.parquet", **options)
    return pq.read_table(folder / "out.parquet").to_pandas()


def test_history_is_what_asof_says_byte_for_byte(workspace, feast, rows, tmp_path) -> None:
    described = workspace.state.read().described
    references = [
        f"{'candidate' if one.of_candidate else 'user'}_state:{one.name.replace('.', '_')}"
        for one in described
    ]
    found = feast.get_historical_features(rows, references).to_df()
    expected = told_by(workspace, rows, tmp_path)
    assert found["user_id"].tolist() == rows["user_id"].tolist()
    for one in described:
        own = found[one.name.replace(".", "_")].to_numpy().astype(np.float32)
        assert own.tobytes() == expected[one.name].to_numpy().tobytes(), one.name
    assert (expected["items.count"] > 0).sum() > 5
    assert expected["items.age"].isna().any()


def test_history_beside_other_views_has_full_names_and_no_candidate(feast, rows) -> None:
    few = rows.head(3).assign(candidate_item_id=[5, None, 6])
    references = ["user_interest_decoded:events", "candidate_state:items_count"]
    found = feast.get_historical_features(few, references, full_feature_names=True).to_df()
    assert found["candidate_state__items_count"].isna().tolist() == [False, True, False]
    assert "user_interest_decoded__events" in found.columns


def test_history_leaves_out_what_the_generation_leaves_out(
    workspace, feast, rows, tmp_path
) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("- {users: [1, 2, 3], until: 2025-01-05T00:00:00Z}")
    feature = "user_state:items_distinct"
    before = feast.get_historical_features(rows, [feature]).to_df()["items_distinct"]
    built = workspace.build_memories("state", "2025-01-08", exclude=rules)
    point_live_to(workspace.context.memories, built.generation)
    try:
        found = feast.get_historical_features(rows, [feature]).to_df()["items_distinct"]
    finally:
        point_live_to(workspace.context.memories, 1)
    expected = told_by(workspace, rows, tmp_path, exclude=rules)["items.distinct"]
    assert found.tolist() == expected.tolist() != before.tolist()


def test_history_without_rows_and_seconds_for_times_are_one_line(feast, rows) -> None:
    until = datetime(2025, 1, 8, tzinfo=UTC)
    with pytest.raises(StateHistoryError, match="user_state: needs rows, entity_df with user_id"):
        feast.get_historical_features(features=["user_state:items_distinct"], end_date=until)
    odd = rows.head(1).assign(event_timestamp=pd.to_datetime([1_736_000_000], unit="ms", utc=True))
    with pytest.raises(RowsError, match="entity_df: column time has 1736000000 in row 0"):
        feast.get_historical_features(odd, ["user_state:items_distinct"]).to_df()


def test_names_are_those_of_the_live_generation_not_of_what_was_built_last(tmp_path: Path) -> None:
    made = Workspace(tmp_path / "var")
    made.simulate(users=10, days=3, items=100)
    parts = "version: 1\nparts: {same: {kind: recent}, %s: {kind: counts, by: item}}"
    references = ["user_state:same_session", "user_state:old_distinct"]
    rows = [{"user_id": user} for user in range(1, 11)]
    made.store.start()
    try:
        for name in ("old", "new"):
            made.state.file.write_text(parts % name)
            made.state.publish()
            made.build_memories("state", "2025-01-03")
            made.load()
            if name == "old":
                made.switch(1)
        (made.context.memories / "live").unlink()  # the store knows it, too
        feast = made.state.feast()
        names = [field.name for field in feast.get_on_demand_feature_view("user_state").features]
        assert "old_distinct" in names
        assert "new_distinct" not in names
        served = feast.get_online_features(references, rows).to_dict()
        assert max(filter(None, served["old_distinct"])) > 0
        # What was applied stands until the next apply: what is no more is None, the rest goes on.
        made.switch(2)
        time.sleep(made.config.store.switch_delay_seconds + 1)
        turned = feast.get_online_features(references, rows).to_dict()
        assert set(turned["old_distinct"]) == {None}
        assert turned["same_session"] == served["same_session"]
        applied = made.state.feast().get_on_demand_feature_view("user_state").features
        assert "new_distinct" in [field.name for field in applied]
    finally:
        made.store.stop()
    # `feast apply` reads the same without a store; pruned or gone, what was built last stands.
    assert [one.name for one in state_views(made.path)] == ["user_state", "candidate_state"]
    assert "new_distinct" in [field.name for field in state_views(made.path)[0].features]
    point_live_to(made.context.memories, 1)
    assert "old_distinct" in [field.name for field in state_views(made.path)[0].features]
    point_live_to(made.context.memories, 77)
    assert not (made.context.memories / "live").exists()
    assert "new_distinct" in [field.name for field in state_views(made.path)[0].features]


def test_a_file_that_names_the_older_store_still_loads(tmp_path) -> None:
    older = "uic.feature_repo.plugin.offline_store.UicOfflineStore"
    config = RepoConfig(
        project="shop", provider="local", registry=str(tmp_path / "registry.db"),
        offline_store={"type": older}, online_store=None, entity_key_serialization_version=3,
    )  # fmt: skip
    assert config.offline_store.type == older
