"""Features beside ids in requests: what is served is what the model says of the same raw values."""

import json
import time
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from tests.jobs.serving.feature_shop import (
    CONTEXT,
    ITEM_WITHOUT_ROW,
    LENGTHS,
    POSITIONS,
    SHOWN,
    USERS,
    WITHOUT_ROW,
    fitted,
    joined,
    write_sequences,
    write_tables,
)
from tests.jobs.serving.running import running_service
from tests.jobs.serving.shop import FIRST_ITEM, Shop, categories_of, offline_logits, random_events
from uic.feature_repo.plugin.packed_view import with_vector_headers
from uic.feature_repo.plugin.user_rows import load_user_rows, push_user_row
from uic.feature_repo.store.layout import NO_GENERATION, VECTOR, VECTOR_HEADER, ViewKeys
from uic.feature_repo.store.opened import open_memories
from uic.feature_repo.store.packed import PackedStore
from uic.jobs.serving.read.reasons import DegradedReason
from uic.jobs.serving.score.asks import FeatureFaults
from uic.models.features.definition import Feature, NamedFeature, Owner
from uic.models.features.fitted import FittedFeature
from uic.models.features.raw import missing_values
from uic.models.features.rows import RowLayout
from uic.models.memory.state import MemoryState
from uic.pipelines.audit.served import read_answers
from uic.pipelines.audit.served_features import logged_features
from uic.pipelines.audit.served_values import audit_features

pytestmark = pytest.mark.slow

HISTORY_MODELS = ("din", "average_pooling")


@pytest.fixture(scope="module")
def stocked(tmp_path_factory) -> Iterator[tuple]:
    """(shop, features, bundles) with memories, sequences, and rows of features in the store."""
    shop = Shop.open(tmp_path_factory.mktemp("shop"))
    try:
        write_sequences(shop)
        features = write_tables(shop.workspace)
        bundles = {
            model: shop.bundle("0001", seed=3, model=model, features=fitted(features))
            for model in ("mimn", "prerank", *HISTORY_MODELS)
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


def test_the_pre_rank_is_served_the_features_of_both_towers(stocked):
    shop, features, bundles = stocked
    arguments = ("--bundle", "din", "--history-from", "log", "--prerank-bundle", "prerank")
    whole = [3, 1, 4, 1, 5]  # one place a candidate, so a vector of the user for each
    with running_service(shop.workspace, *arguments) as service:
        for user in USERS.tolist():
            for position in (POSITIONS, whole):
                context = {**CONTEXT, "position": position}
                asked = {"user_id": user, "item_ids": SHOWN, "context": context}
                answer = service.client.post("/v1/prerank", json=asked).json()
                scores = {one["item_id"]: one["score"] for one in answer["items"]}
                raw = joined(features, user, context)
                expected = offline_logits(
                    bundles["prerank"], random_events(LENGTHS), user - 1, user, SHOWN, features=raw
                )
                np.testing.assert_allclose([scores[item] for item in SHOWN], expected, atol=1e-5)
                assert "feature_missing" in answer["reasons"]  # of the item without a row
        known = [item for item in SHOWN if item != ITEM_WITHOUT_ROW]
        for_all = {"tab": "search", "position": 2, "words": ["red"]}
        asked = {"user_id": 1, "item_ids": known, "context": for_all}
        assert service.client.post("/v1/prerank", json=asked).json()["reasons"] == []
        funnel = service.client.post("/v1/funnel", json={**asked, "keep": 2}).json()
        assert [stage["reasons"] for stage in funnel["stages"]] == [[], []]
        odd = {**asked, "context": {**for_all, "tab": 1.5}}
        answer = service.client.post("/v1/prerank", json=odd).json()
        assert answer["reasons"] == ["feature_invalid"]
        invalid = 'uic_serve_feature_defaults_total{feature="context.tab",reason="invalid"}'
        assert service.metric(invalid) == 1


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


def test_a_category_that_training_did_not_have_is_counted(served):
    _, _, service, _ = served
    shown = [item for item in SHOWN if item != ITEM_WITHOUT_ROW]
    context = {**CONTEXT, "position": 1, "words": ["red", "never"]}
    counted = 'uic_serve_feature_defaults_total{feature="context.words",reason="unseen"}'
    before = service.metric(counted)
    assert service.rank(1, shown, context=context)["reasons"] == []  # a long tail is usual
    assert service.metric(counted) == before + 1
    others = [item for item in range(FIRST_ITEM, FIRST_ITEM + 100) if item not in SHOWN]
    known = {**context, "words": ["red"]}
    assert service.rank(1, shown, context=known)["reasons"] == []
    assert service.metric(counted) == before + 1
    # Shops of items that were not shown in training.
    assert service.rank(1, others, context=known)["reasons"] == []
    of_shops = 'uic_serve_feature_defaults_total{feature="item.shop",reason="unseen"}'
    assert service.metric(of_shops) > 0


def test_a_category_that_values_do_not_name_is_a_reason():
    def fitted(**values):
        tab = Feature.model_validate({"type": "categorical", **values})
        named = NamedFeature(Owner.CONTEXT, "tab", tab)
        return FittedFeature(named, np.empty(0, np.int64), np.empty(0, np.float32))

    faults = FeatureFaults()
    faults.add_unseen(fitted())
    assert list(faults.reasons()) == []
    faults.add_unseen(fitted(values=("home", "search")))
    assert list(faults.reasons()) == [DegradedReason.FEATURE_UNSEEN]
    assert faults.unseen == ["context.tab", "context.tab"]


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
    assert "feature_invalid" in answer["reasons"]
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


def test_the_feature_log_has_the_raw_values_and_gives_the_scores_again(served):
    features, bundle, service, shop = served
    service.rank(1, SHOWN, context=CONTEXT)
    folder = shop.workspace / "serving" / "features"
    service.wait_until(lambda: logged(folder, 1, CONTEXT) is not None, 30)
    row = logged(folder, 1, CONTEXT)
    values = json.loads(row["features"])
    for key, raw in joined(features, 1, CONTEXT).items():
        shown = raw.astype(object)
        if raw.dtype.kind == "f":
            shown[np.isnan(raw)] = None
        expected = shown.tolist()
        if not key.startswith("item.") and key != "context.position":
            expected = expected[:1]
        assert values[key] == expected, key
    record = np.frombuffer(row["memory"], np.uint8).reshape(1, -1).copy()
    beside = logged_features(bundle, [row["features"]], np.array([len(SHOWN)]))
    with torch.no_grad():
        state = MemoryState.unpack(record, bundle.memory.layout)
        vectors = bundle.embed(np.array(SHOWN), categories_of(SHOWN))
        logits = bundle.model.readout(state, torch.zeros(len(SHOWN), dtype=int), vectors, beside)
    np.testing.assert_allclose(logits.sigmoid().numpy(), row["probabilities"], atol=1e-5)


def logged(folder, user, context):
    """The first row of an answer to a user in a context."""
    for path in sorted(folder.glob("dt=*/*.parquet")):
        for row in pq.read_table(path).to_pylist():
            asked = row["user_id"], row["context"], row["item_ids"]
            if asked == (user, json.dumps(context), SHOWN):
                return row
    return None


def test_an_audit_of_the_log_finds_a_wrong_stored_row_and_knows_a_pushed_one(served):
    features, _, service, shop = served
    context = {**CONTEXT, "tab": "audited"}
    push_user_row(shop.settings, shop.workspace, features, 2, {"balance": 77.0})
    with open_memories(shop.settings, shop.workspace) as store:
        keys = ViewKeys.of_user_features(shop.settings.project)
        rows = PackedStore(store.client, keys, layout=VECTOR)
        layout = RowLayout(features.of(Owner.USER))
        stored = store.client.get(keys.entities(NO_GENERATION, np.array([3]))[0])
        row = layout.read([stored[VECTOR_HEADER.itemsize :]])
        values = {one.key: row[one.key].copy() for one in layout.features}
        values["user.balance"] += 1
        wrong = layout.pack(values, row["valid_from_ms"])
        later = with_vector_headers(wrong, [time.time_ns() // 1_000_000 + 1])
        assert rows.write(NO_GENERATION, np.array([3]), later).all()
    for user in (1, 2, 3):
        service.rank(user, SHOWN, context=context)
    folder = shop.workspace / "serving" / "features"
    service.wait_until(lambda: logged(folder, 3, context) is not None, 30)
    files = sorted(folder.glob("dt=*/*.parquet"))
    asked = pa.concat_tables(pq.read_table(path, columns=["context"]) for path in files)
    chosen = pc.equal(asked["context"], json.dumps(context))
    answers = pa.concat_tables(map(read_answers, files)).filter(chosen)
    tally = audit_features(answers, features)
    assert (tally.rows, tally.pushed, tally.differing) == (3 * (1 + len(SHOWN)), 1, 1)
    assert tally.matched + tally.missing == tally.rows - 2
    assert "user 3 at" in tally.examples[0]
    assert "user.balance" in tally.examples[0]
