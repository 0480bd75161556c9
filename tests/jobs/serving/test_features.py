"""Features beside ids in requests: what is served is what the model says of the same raw values."""

import json
import time
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.jobs.serving.running import running_service
from tests.jobs.serving.shop import FIRST_ITEM, ITEM_COUNT, Shop, offline_logits, random_events
from uic.feature_repo.plugin.user_rows import load_user_rows, push_user_row
from uic.feature_repo.store.layout import NO_GENERATION, SEQUENCE, ViewKeys
from uic.feature_repo.store.opened import open_memories
from uic.feature_repo.store.packed import PackedStore
from uic.jobs.stream.fold.sequence_fill import fill_sequences
from uic.models.features.dated import DatedTable
from uic.models.features.definition import Owner, load_features
from uic.models.features.fitted import fit_features
from uic.models.features.raw import missing_values, raw_values
from uic.models.records.sequence_ring import SequenceRing
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.writer import LogWriter, Part

pytestmark = pytest.mark.slow

FILE = """\
version: 1
sources:
  user: {file: users.parquet, id: user_id, valid_from: since}
  item: {file: items.parquet, id: item_id, valid_from: since}
user:
  band: {type: categorical, min_count: 1}
  balance: {type: number, scale: log}
  likes: {type: categories, most: 3, min_count: 1}
item:
  price: {type: number, scale: buckets, buckets: 4}
  shop: {type: categorical, min_count: 1, width: 4}
  look: {type: embedding, width: 2}
context:
  tab: {type: categorical, min_count: 1, default: home}
  position: {type: number}
  words: {type: categories, most: 2, min_count: 1}
"""
LENGTHS = np.array([5, 0, 30, 12, 7])
USERS = np.arange(1, len(LENGTHS) + 1)
WITHOUT_ROW = 4  # has a memory
SHOWN = [1003, 1001, 1400, 1499, 1250]
ITEM_WITHOUT_ROW = 1400
POSITIONS = [1, 2, 3, 4, 5]
CONTEXT = {"tab": "search", "position": POSITIONS, "words": ["red", "shoe", "dropped"]}
HISTORY_MODELS = ("din", "average_pooling")


def write_tables(folder, *, balance=10.0):
    """Users and items with a row of the past, of now, and one of a day that is to come."""
    draw = np.random.default_rng(2)
    days = pd.to_datetime(["2023-01-01", "2023-06-01", "2100-01-01"])
    users = pd.DataFrame(
        [
            {
                "user_id": user,
                "since": day,
                "band": draw.choice(["young", "old"]),
                "balance": balance * user + at,
                "likes": draw.choice(["a", "b", "c"], at).tolist(),
            }
            for user in USERS.tolist()
            if user != WITHOUT_ROW
            for at, day in enumerate(days)
        ]
    )
    items = pd.DataFrame(
        [
            {
                "item_id": item,
                "since": day,
                "price": draw.exponential(),
                "shop": int(draw.integers(0, 9)),
                "look": draw.normal(size=2).astype("f4").tolist(),
            }
            for item in range(FIRST_ITEM, FIRST_ITEM + ITEM_COUNT)
            if item != ITEM_WITHOUT_ROW
            for day in days
        ]
    )
    for name, table in (("users", users), ("items", items)):
        arrow = pa.Table.from_pandas(table, preserve_index=False)
        pq.write_table(arrow, folder / f"{name}.parquet")
    (folder / "features.yaml").write_text(FILE)
    return load_features(folder / "features.yaml")


def tables_of(features):
    return {
        owner: DatedTable.read(features.folder / source.file, source, features.of(owner))
        for owner, source in (
            (Owner.USER, features.sources.user),
            (Owner.ITEM, features.sources.item),
        )
    }


def joined(features, user, context):
    """Raw values of `SHOWN`, joined as samples join them, of the moment."""
    now = np.full(len(SHOWN), time.time_ns() // 1_000_000)
    raw = {}
    for owner, table in tables_of(features).items():
        ids = np.full(len(SHOWN), user) if owner is Owner.USER else np.array(SHOWN)
        rows = table.as_of(ids, now)
        raw |= {named.key: table.take(named, rows) for named in table.features}
    for named in features.of(Owner.CONTEXT):
        if named.name not in context:
            raw[named.key] = missing_values(named.feature, len(SHOWN))
            continue
        given = context[named.name]
        values = given if named.name == "position" else [given] * len(SHOWN)
        raw[named.key] = raw_values(named.feature, values, named.key)
    return raw


def fitted(features):
    batches = [joined(features, user, CONTEXT) for user in USERS.tolist()]
    return fit_features(features, batches)


def write_sequences(shop):
    events = random_events(LENGTHS)
    table = pa.table(
        {
            "user_id": events.user_index + 1,
            "item_id": events.item_ids,
            "category_id": events.category_ids,
            "behavior": pa.array(events.behaviors),
            "event_time": pa.array(events.event_times_ms, pa.timestamp("ms")),
        }
    )
    log = EventLog(shop.workspace / "log")
    with LogWriter(log, Part("events"), time_zone="UTC", partitions=2, again=True) as writer:
        writer.add_behaviors(table)
        writer.publish()
    with open_memories(shop.settings, shop.workspace) as store:
        keys = ViewKeys.of_sequences(shop.settings.project)
        packed = PackedStore(store.client, keys, layout=SEQUENCE)
        fill_sequences(log, packed, SequenceRing(), USERS)


@pytest.fixture(scope="module")
def stocked(tmp_path_factory) -> Iterator[tuple]:
    """(shop, features, bundles) with memories, sequences, and rows of features in the store."""
    shop = Shop.open(tmp_path_factory.mktemp("shop"))
    try:
        write_sequences(shop)
        features = write_tables(shop.workspace)
        bundles = {
            model: shop.bundle("0001", seed=3, model=model, features=fitted(features))
            for model in ("mimn", *HISTORY_MODELS)
        }
        shop.generation(1, bundles["mimn"], LENGTHS)
        load_user_rows(shop.settings, shop.workspace, features)
        yield shop, features, bundles
    finally:
        shop.stop()


@pytest.fixture(scope="module")
def served(stocked) -> Iterator[tuple]:
    shop, features, bundles = stocked
    with running_service(shop.workspace, log_features="true") as service:
        yield features, bundles["mimn"], service, shop


def offline(bundle, features, user, context):
    """Probabilities of `SHOWN` of the model's own path from samples."""
    raw = joined(features, user, context)
    logits = offline_logits(
        bundle, random_events(LENGTHS), user - 1, user, SHOWN, at_ms=1, features=raw
    )
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


def of_shown(answer):
    by_item = {item["item_id"]: item["probability"] for item in answer["items"]}
    return [by_item[item] for item in SHOWN]


def test_served_scores_with_features_are_the_offline_scores(served):
    features, bundle, service, _ = served
    answers = []
    for user in USERS.tolist():
        answer = service.rank(user, SHOWN, context=CONTEXT)
        expected = offline(bundle, features, user, CONTEXT)
        np.testing.assert_allclose(of_shown(answer), expected, atol=1e-5)
        answers.append(answer)
    # One item has no row, and one user none.
    assert {tuple(answer["reasons"]) for answer in answers} == {("feature_missing",)}
    known = [item for item in SHOWN if item != ITEM_WITHOUT_ROW]
    context = {**CONTEXT, "position": POSITIONS[:4]}
    assert service.rank(1, known, context=context)["reasons"] == []
    assert service.rank(WITHOUT_ROW, known, context=context)["reasons"] == ["feature_missing"]
    assert service.ready()["features"]["warnings"] == []


@pytest.mark.parametrize("model", HISTORY_MODELS)
def test_rankers_of_histories_are_served_the_same_features(stocked, model):
    shop, features, bundles = stocked
    arguments = ("--bundle", model, "--history-from", "log")
    with running_service(shop.workspace, *arguments) as service:
        for user in USERS.tolist():
            answer = service.rank(user, SHOWN, context=CONTEXT)
            expected = offline(bundles[model], features, user, CONTEXT)
            np.testing.assert_allclose(of_shown(answer), expected, atol=1e-5)


def test_every_kind_of_feature_moves_the_scores(served):
    features, bundle, _, _ = served
    raw = joined(features, 1, CONTEXT)
    events = random_events(LENGTHS)
    before = offline_logits(bundle, events, 0, 1, SHOWN, features=raw)
    for named in features:
        other = {**raw, named.key: missing_values(named.feature, len(SHOWN))}
        after = offline_logits(bundle, events, 0, 1, SHOWN, features=other)
        assert np.abs(after - before).max() > 1e-3, named.key


def test_what_a_request_does_not_say_takes_its_default_and_a_reason(served):
    features, bundle, service, _ = served
    key = 'uic_serve_feature_defaults_total{feature="context.tab",reason="missing"}'
    before = service.metric(key)
    answer = service.rank(1, SHOWN, context={"position": POSITIONS})
    expected = offline(bundle, features, 1, {"position": POSITIONS})
    np.testing.assert_allclose(of_shown(answer), expected, atol=1e-5)
    assert answer["reasons"] == ["feature_missing"]
    assert service.metric(key) == before + 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"position": "third"},
        {"position": [1, 2]},
        {"position": [1, 2, 3, 4, "five"]},
        {"tab": 1.5},
        {"words": "red"},
        {"position": [[1], [2], [3], [4], [5]]},
    ],
)
def test_a_value_of_another_type_takes_the_default_and_is_said(served, wrong):
    features, bundle, service, _ = served
    context = {**CONTEXT, **wrong}
    (name,) = wrong
    key = f'uic_serve_feature_defaults_total{{feature="context.{name}",reason="invalid"}}'
    before = service.metric(key)
    answer = service.rank(1, SHOWN, context=context)
    del context[name]
    expected = offline(bundle, features, 1, context)
    np.testing.assert_allclose(of_shown(answer), expected, atol=1e-5)
    assert "feature_invalid" in answer["reasons"]
    assert service.metric(key) == before + 1


def test_a_null_is_a_value_of_its_own(served):
    _, _, service, _ = served
    known = SHOWN[:2]
    context = {"tab": None, "position": [None, 1], "words": [["red"], None]}
    assert service.rank(1, known, context=context)["reasons"] == []


def test_a_repeated_candidate_has_the_context_of_its_first_place(served):
    _, _, service, _ = served
    context = {**CONTEXT, "position": [1, 9, 2]}
    repeated = service.rank(1, [1003, 1003, 1001], context=context)
    once = service.rank(1, [1003, 1001], context={**CONTEXT, "position": [1, 2]})
    assert repeated["items"] == once["items"]


def test_users_of_one_pass_have_their_own_features(served):
    _, _, service, _ = served
    requests = [
        {"user_id": user, "item_ids": SHOWN[: 2 + user % 3], "context": {"position": user}}
        for user in USERS.tolist()
    ]
    together = service.client.post("/v1/rank:batch", json={"requests": requests}).json()
    for request, answer in zip(requests, together["answers"], strict=True):
        alone = service.rank(request["user_id"], request["item_ids"], context=request["context"])
        for one, other in zip(answer["items"], alone["items"], strict=True):
            assert one["item_id"] == other["item_id"]
            assert one["probability"] == pytest.approx(other["probability"], abs=1e-6)


@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign", "unknown definitions", "empty"])
def test_a_damaged_row_costs_the_user_the_features_and_not_the_memory(served, damage):
    _, _, service, shop = served
    whole = service.rank(3, SHOWN, context=CONTEXT)
    with open_memories(shop.settings, shop.workspace) as store:
        keys = ViewKeys.of_user_features(shop.settings.project)
        (key,) = keys.entities(NO_GENERATION, [3])
        good = store.client.get(key)
        bad = {
            "cut": good[:-3],
            "flipped": good[:-1] + bytes([good[-1] ^ 1]),
            "foreign": b"nothing of ours",
            "unknown definitions": good[:20] + b"0123456789abcdef" + good[36:],
            "empty": good[:12],
        }[damage]
        store.client.set(key, bad)
        try:
            answer = service.rank(3, SHOWN, context=CONTEXT)
        finally:
            store.client.set(key, good)
    reason = "feature_missing" if damage == "empty" else "feature_invalid"
    assert reason in answer["reasons"]
    assert answer["memory_events"] == whole["memory_events"] == LENGTHS[2]
    assert of_shown(answer) != of_shown(whole)
    assert of_shown(service.rank(3, SHOWN, context=CONTEXT)) == of_shown(whole)


def test_a_pushed_row_is_served_at_once_and_stays_when_the_table_is_older(served):
    features, bundle, service, shop = served
    before = service.rank(5, SHOWN, context=CONTEXT)
    assert push_user_row(shop.settings, shop.workspace, features, 5, {"balance": 1e6})
    after = service.rank(5, SHOWN, context=CONTEXT)
    raw = joined(features, 5, CONTEXT)
    raw["user.balance"] = np.full(len(SHOWN), 1e6, np.float32)  # the others as they were
    logits = offline_logits(bundle, random_events(LENGTHS), 4, 5, SHOWN, features=raw)
    np.testing.assert_allclose(of_shown(after), 1 / (1 + np.exp(-logits)), atol=1e-5)
    assert of_shown(after) != of_shown(before)
    loaded = load_user_rows(shop.settings, shop.workspace, features)
    assert (loaded.newer, loaded.written, loaded.unchanged) == (1, 0, len(USERS) - 2)
    assert of_shown(service.rank(5, SHOWN, context=CONTEXT)) == of_shown(after)


def test_the_feature_log_has_the_raw_values(served):
    features, _, service, shop = served
    service.rank(1, SHOWN, context=CONTEXT)
    folder = shop.workspace / "serving" / "features"
    service.wait_until(lambda: _logged(folder, 1, CONTEXT) is not None, 30)
    logged = _logged(folder, 1, CONTEXT)
    for key, values in joined(features, 1, CONTEXT).items():
        shown = values.astype(object)
        if values.dtype.kind == "f":
            shown[np.isnan(values)] = None
        expected = shown.tolist()
        if not key.startswith("item.") and key != "context.position":
            expected = expected[:1]
        assert logged[key] == expected, key


def _logged(folder, user, context):
    for path in sorted(folder.glob("dt=*/*.parquet")):
        for row in pq.read_table(path).to_pylist():
            if (row["user_id"], row["context"], row["item_ids"]) == (
                user,
                json.dumps(context),
                SHOWN,
            ):
                return json.loads(row["features"])
    return None
