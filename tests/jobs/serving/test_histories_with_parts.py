"""Rankers that read histories, served with a record's exact parts beside them."""

import json
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.jobs.serving.running import running_service
from uic.feature_repo.store.opened import open_memories
from uic.jobs.stream.fold.worker import make_fold_function
from uic.jobs.stream.run.planner import Planner, RunOptions
from uic.jobs.stream.topics.event_files import LoggedPayload, write_event_file
from uic.jobs.stream.topics.produce import payload_of
from uic.jobs.workspace.workspace import Workspace
from uic.models.bundles.bundle import load_bundle
from uic.models.features.definition import Owner
from uic.models.records.positions import EventBatch
from uic.models.samples.batch import Encoder
from uic.models.samples.groups import GroupBatch, offsets_of
from uic.models.state.part import Asked
from uic.pipelines.log.columns import FOLDED_COLUMNS, event_batch
from uic.pipelines.log.event_log import EventLog

pytestmark = pytest.mark.slow

FIRST, LAST = "2025-01-06", "2025-01-09"
SETTINGS = {"log_features": "true"}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A simulated log, two rankers trained on the parts' features, histories in the store."""
    folder = tmp_path_factory.mktemp("parts") / "var"
    folder.mkdir()
    (folder / "uic.yaml").write_text(
        f"stream: {{source: files, files: {folder.parent / 'events'}, sequences: true}}"
    )
    made = Workspace(folder)
    made.simulate(users=60, days=10, items=300, seed=3)
    made.state.init()
    made.samples(FIRST, LAST, gates=False)
    for model in ("din", "mimn"):
        made.train(model, epochs=1, test_days=1)
    made.store.start()
    made.store.fill_sequences()
    yield made
    made.store.stop()


def go_live(workspace: Workspace, bundle: str) -> int:
    """Build memories of a bundle and make them live; the generation."""
    snapshot = workspace.build_memories(bundle, "2025-01-10")
    workspace.load()
    time.sleep(workspace.switch(snapshot.generation))  # until then readers read the one before
    return snapshot.generation


def events_of(workspace: Workspace, user: int) -> EventBatch:
    """All events of a user in the order of the log."""
    found = []
    for file in EventLog(workspace.context.log).behavior_files():
        table = pq.ParquetFile(file.path).read(columns=list(FOLDED_COLUMNS))
        found.append(table.filter(np.equal(table["user_id"].to_numpy(), user)))
    return event_batch(pa.concat_tables(found), np.array([user]))


def joined(*batches: EventBatch) -> EventBatch:
    """Events of one user, one batch after the other."""
    columns = [field.name for field in fields(EventBatch) if field.name != "columns"]
    return EventBatch(
        **{name: np.concatenate([getattr(one, name) for one in batches]) for name in columns}
    )


def offline(workspace, bundle, user, item_ids, moment_ms, *, events=None) -> np.ndarray:
    """Probabilities by the path of samples: events of the log, parts folded from them."""
    events = events_of(workspace, user) if events is None else events
    table = pq.read_table(EventLog(workspace.context.log).items_file())
    category = dict(
        zip(*(table[name].to_pylist() for name in ("item_id", "category_id")), strict=True)
    )
    shown = np.array(item_ids)
    kinds = np.array([category[item] for item in item_ids])
    count = len(shown)
    asked = Asked(np.zeros(count, np.int64), np.full(count, moment_ms), shown, kinds)
    told = bundle.state.as_of(events, asked, np.full(count, len(events)))
    names = [one.name for one in bundle.state.described]
    features = {f"state.{name}": told[:, at] for at, name in enumerate(names)}
    batch = GroupBatch(
        user_ids=np.array([user]),
        days=np.array(["2025-01-11"], "datetime64[D]"),
        history_offsets=np.array([0, len(events)]),
        history_item_ids=events.item_ids,
        history_category_ids=events.category_ids,
        history_behaviors=events.behaviors,
        history_times_ms=events.event_times_ms,
        impression_offsets=offsets_of(np.array([count])),
        item_ids=shown,
        category_ids=kinds,
        event_times_ms=np.full(count, moment_ms, np.int64),
        labels=np.zeros(count, np.bool_),
        history_lengths=np.full(count, len(events)),
        features=features,
    )
    with torch.no_grad():
        return bundle.model(Encoder(bundle.vocabulary).encode(batch)).sigmoid().numpy()


def answers_of(workspace: Workspace):
    """Rows of the service's log, oldest first."""
    paths = sorted((workspace.path / "serving" / "features").glob("dt=*/*.parquet"))
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


@pytest.mark.parametrize("builds", ["din", "mimn"])
def test_scores_over_http_are_those_of_the_log_whichever_bundle_folds_the_parts(workspace, builds):
    number = go_live(workspace, builds)
    bundle = load_bundle(workspace.context.bundles / "din" / "0001")
    assert bundle.state is not None
    assert [one.named.owner for one in bundle.vocabulary.features.fitted].count(Owner.STATE) > 4
    items = bundle.vocabulary.item.ids[:30].tolist()
    users = [3, 7, 20]
    arguments = ("--bundle", "din", "--history-from", "log")
    before = len(answers_of(workspace))
    with running_service(workspace.path, *arguments, **SETTINGS) as service:
        answers = [service.rank(user, items) for user in users]
        unknown = service.rank(10**6, items)
    assert unknown["reasons"] == ["unknown_user"]
    rows = answers_of(workspace)[before:]
    for user, answer, row in zip(users, answers, rows, strict=False):
        assert answer["reasons"] == []
        assert answer["generation"] == row["generation"] == number
        moment = int(row["moment"].timestamp() * 1000)
        expected = offline(workspace, bundle, user, items, moment)
        found = {item["item_id"]: item["probability"] for item in answer["items"]}
        np.testing.assert_allclose([found[item] for item in items], expected, atol=1e-5)
    audit = workspace.audit().served
    assert audit.mismatches == 0
    assert audit.parts == audit.matched == len(users) * (1 if builds == "din" else 2)


def test_a_request_may_say_when_its_candidates_are_shown(workspace):
    """A record's ages are as of then: a replay of a past day ranks as that day did."""
    go_live(workspace, "din")
    bundle = load_bundle(workspace.context.bundles / "din" / "0001")
    items = bundle.vocabulary.item.ids[:30].tolist()
    days = (np.datetime64("2025-01-11", "ms"), np.datetime64("2025-01-16", "ms"))
    told = {}
    with running_service(
        workspace.path, "--bundle", "din", "--history-from", "log", **SETTINGS
    ) as service:
        for moment in (int(day.astype(np.int64)) for day in days):
            answer = service.rank(7, items, moment_ms=moment)
            told[moment] = [
                {item["item_id"]: item["probability"] for item in answer["items"]}[one]
                for one in items
            ]
        refused = service.client.post(
            "/v1/rank", json={"user_id": 7, "item_ids": items, "moment_ms": "today"}
        )
    assert (refused.status_code, refused.json()["field"]) == (422, "moment_ms")
    for moment, found in told.items():
        np.testing.assert_allclose(found, offline(workspace, bundle, 7, items, moment), atol=1e-5)
    near, far = told.values()
    assert not np.allclose(near, far)
    assert workspace.audit().served.mismatches == 0


def test_the_stream_keeps_history_and_parts_and_both_are_in_the_next_answer(workspace):
    number = go_live(workspace, "din")
    context = workspace.context
    bundle = load_bundle(context.bundles / "din" / "0001")
    items = bundle.vocabulary.item.ids[:30].tolist()
    user, first_ms = 9, int(np.datetime64("2025-01-12T08:00", "ms").astype(np.int64))
    rows = [
        LoggedPayload(payload_of(user, items[4], 1, "click", time), 0, at, time)
        for at, time in enumerate(range(first_ms, first_ms + 3000, 1000))
    ]
    write_event_file(workspace.path.parent / "events" / "0.jsonl.gz", rows)
    arguments = ("--bundle", "din", "--history-from", "log")
    with running_service(workspace.path, *arguments, **SETTINGS) as service:
        before = service.rank(user, items)
        plan, _ = Planner(context, RunOptions(generation=number)).plan(number, 1)
        function = make_fold_function(plan)
        zeros = np.zeros(3, np.int64)
        times = np.array([row.log_time_ms for row in rows])
        refused = function([row.payload for row in rows], zeros, np.arange(3), times)
        after = service.rank(user, items)
    assert refused == [None, None, None]
    assert before["reasons"] == after["reasons"] == []
    assert after["memory_events"] == before["memory_events"] + 3
    streamed = EventBatch(
        zeros, zeros + items[4], zeros + 1, zeros.astype(np.int8), times, times, zeros + 2, zeros,
        np.arange(3),
    )  # fmt: skip
    moment = int(answers_of(workspace)[-1]["moment"].timestamp() * 1000)
    events = joined(events_of(workspace, user), streamed)
    expected = offline(workspace, bundle, user, items, moment, events=events)
    found = {item["item_id"]: item["probability"] for item in after["items"]}
    np.testing.assert_allclose([found[item] for item in items], expected, atol=1e-5)
    told = json.loads(answers_of(workspace)[-1]["features"])["state.items.count"]
    assert told[4] >= 3


def test_parts_that_are_not_there_are_said_and_are_a_new_users(workspace):
    go_live(workspace, "din")
    bundle = load_bundle(workspace.context.bundles / "din" / "0001")
    items = bundle.vocabulary.item.ids[:5].tolist()
    other = workspace.state.publish(_other_parts(workspace))
    with running_service(workspace.path, "--bundle", "din", "--history-from", "log") as service:
        assert service.rank(3, items)["reasons"] == []
        with open_memories(workspace.config.store, workspace.path) as store:
            key = store.memories.keys.entities(store.live.resolve(), [3])[0]
            whole = store.client.get(key)
            store.client.delete(key)
            assert service.rank(3, items)["reasons"] == ["parts_missing"]
            store.client.set(key, b"something else")
            assert service.rank(3, items)["reasons"] == ["foreign_value"]
            store.client.set(key, whole)
        go_live(workspace, other)
        service.wait_until(lambda: service.rank(3, items)["reasons"] == ["unknown_bundle"])
        assert service.metric('uic_serve_degraded_total{reason="parts_missing"}') == 1


def _other_parts(workspace: Workspace) -> Path:
    file = workspace.path / "other.yaml"
    file.write_text("version: 1\nparts: {last: {kind: recent, size: 4}}\n")
    return file


@pytest.mark.parametrize(("model", "source"), [("din", "log"), ("mimn", "store")])
def test_an_explained_answer_shows_what_the_record_says(workspace, model, source):
    go_live(workspace, "mimn")
    bundle = load_bundle(workspace.context.bundles / "din" / "0001")
    items = bundle.vocabulary.item.ids[:130].tolist()
    events = events_of(workspace, 7)
    asked = {"bundle": model, "history_from": source}
    answer = workspace.rank(7, items, explain=True, **asked)
    assert answer.reasons == []
    assert answer.features["state.items.distinct"] == len(np.unique(events.item_ids))
    shown = [item.explanation.get("features") for item in answer.items]
    assert all(shown[:100])
    assert not any(shown[100:])
    for item, told in zip(answer.items[:100], shown, strict=False):
        assert told["state.items.count"] == (events.item_ids == item.item_id).sum()
        assert (told["state.items.age"] is None) == (told["state.items.count"] == 0)
        assert not told.keys() & answer.features.keys()
    best = workspace.rank(7, items, k=1, explain=True, **asked)
    assert [item.item_id for item in best.items] == [answer.items[0].item_id]
    assert best.items[0].explanation["features"] == shown[0]
    plain = workspace.rank(7, items, **asked)
    assert plain.features is None
    assert plain.items[0].explanation is None
    workspace.close()
