"""Exact parts through plain Feast: named numbers of users and of candidates, as of the read."""

import json
import os
from collections.abc import Iterator

import numpy as np
import pytest
from feast import FeatureStore

from uic.feature_repo.features import state_views
from uic.feature_repo.plugin.repository import apply_definitions, open_feature_store
from uic.feature_repo.store.opened import open_memories
from uic.jobs.workspace.workspace import Workspace
from uic.models.records.record import parts_view
from uic.models.state.part import Asked

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
