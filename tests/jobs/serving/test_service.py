"""The service over HTTP: scores, marked answers, refusals, OpenAPI."""

import json
import re
import subprocess
from collections.abc import Iterator
from html import unescape

import numpy as np
import pytest
import torch

from tests.jobs.serving.running import RunningService, running_service
from tests.jobs.serving.shop import (
    EVENT_TIME_MS,
    FIRST_ITEM,
    ITEM_COUNT,
    USER_COUNT,
    Shop,
    categories_of,
)
from uic.feature_repo.store.opened import open_memories
from uic.models.memory.state import MemoryState

LENGTHS = np.random.default_rng(3).integers(1, 120, USER_COUNT)
FOREIGN_USER = 900
OTHER_BUNDLE_USER = 901


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple]:
    """(shop, bundle, records, service) that no test of this module changes."""
    shop = Shop.open(tmp_path_factory.mktemp("shop"))
    try:
        bundle = shop.bundle("0001")
        records = shop.generation(1, bundle, LENGTHS)
        with open_memories(shop.settings, shop.workspace) as store:
            prefix = store.memories.keys.prefix(1)
            store.client.set(prefix + FOREIGN_USER.to_bytes(8, "big"), b"not a memory")
            other = records[0].copy()
            other[36:44] = 7
            store.client.set(prefix + OTHER_BUNDLE_USER.to_bytes(8, "big"), other.tobytes())
        arguments = {"max_body_bytes": "20000", "max_candidates": "300"}
        with running_service(shop.workspace, **arguments) as service:
            yield shop, bundle, records, service
    finally:
        shop.stop()


@pytest.fixture(scope="module")
def service(served) -> RunningService:
    return served[3]


def offline(bundle, record, item_ids):
    """What the model says outside of the service."""
    state = MemoryState.unpack(record, bundle.memory.layout)
    vectors = bundle.embed(np.asarray(item_ids), categories_of(item_ids))
    with torch.no_grad():
        logits = bundle.model.readout(state, torch.zeros(len(item_ids), dtype=torch.int64), vectors)
    return torch.sigmoid(logits.double()).numpy()


# Scores


def test_a_served_score_is_the_offline_score_over_thousands_of_impressions(served):
    _, bundle, records, service = served
    random = np.random.default_rng(0)
    compared = 0
    for user in range(1, USER_COUNT + 1):
        items = random.choice(np.arange(FIRST_ITEM, FIRST_ITEM + ITEM_COUNT), 100, replace=False)
        expected = offline(bundle, records[user - 1 : user], items)
        found = service.probabilities(user, items.tolist())
        np.testing.assert_allclose([found[item] for item in items.tolist()], expected, atol=1e-5)
        compared += len(items)
    assert compared >= 5000
    assert np.ptp(list(found.values())) > 1e-3  # not one number for all


def test_requests_scored_together_have_the_scores_that_they_have_alone(served):
    _, _, _, service = served
    requests = [
        {"user_id": user, "item_ids": list(range(FIRST_ITEM, FIRST_ITEM + 3 + user % 5))}
        for user in range(1, 41)
    ]
    answer = service.client.post("/v1/rank:batch", json={"requests": requests}).json()
    for request, together in zip(requests, answer["answers"], strict=True):
        alone = service.rank(request["user_id"], request["item_ids"])
        assert together["user_id"] == request["user_id"]
        for one, other in zip(together["items"], alone["items"], strict=True):
            assert one["item_id"] == other["item_id"]
            assert one["probability"] == pytest.approx(other["probability"], abs=1e-6)


def test_answers_are_in_order_and_cut_at_k(service):
    answer = service.rank(5, [1001, 1002, 1003, 1004], k=2)
    probabilities = [item["probability"] for item in answer["items"]]
    assert len(probabilities) == 2
    assert probabilities == sorted(probabilities, reverse=True)
    everything = service.rank(5, [1001, 1002, 1003, 1004])["items"]
    assert answer["items"] == everything[:2]


def test_an_answer_says_what_it_was_scored_with(served):
    _, bundle, _, service = served
    answer = service.rank(5, [1001])
    assert answer["bundle"] == "mimn/0001"
    assert answer["memory_bundle"] == bundle.hash8.hex()
    assert (answer["generation"], answer["memory_events"]) == (1, LENGTHS[4])
    last_event_ms = EVENT_TIME_MS + (int(LENGTHS[:5].sum()) - 1) * 1000
    assert answer["memory_age_seconds"] == pytest.approx(
        service.ready()["now"] - last_event_ms / 1000, abs=60
    )
    assert (answer["degraded"], answer["reasons"], answer["duplicates"]) == (False, [], 0)


def test_explain_gives_the_score_without_memory(served):
    _, bundle, _, service = served
    item = service.rank(5, [1001], explain=True)["items"][0]
    nobody = service.rank(10**9, [1001])["items"][0]
    said = item["explanation"]
    assert said["probability_without_memory"] == pytest.approx(nobody["probability"], abs=1e-6)
    assert said["probability_without_memory"] != pytest.approx(item["probability"], abs=1e-4)
    assert sum(said["slot_weights"]) == pytest.approx(1.0, abs=1e-5)
    assert len(said["slot_weights"]) == bundle.memory.config.slots


def test_interests_show_the_memory_as_numbers(served):
    _, bundle, records, service = served
    shown = service.client.get("/v1/users/7/interests").json()
    state = MemoryState.unpack(records[6:7], bundle.memory.layout)
    assert shown["events"] == LENGTHS[6]
    np.testing.assert_array_equal(np.float32(shown["state"]["M"]), state.M[0].numpy())
    np.testing.assert_array_equal(np.float32(shown["state"]["pool"]), state.pool[0].numpy())


# Marked answers


@pytest.mark.parametrize(
    ("user", "items", "reasons"),
    [
        (10**6, [1001], ["unknown_user"]),
        (5, [1001, 3], ["unknown_item"]),
        (5, [2**63 - 1], ["unknown_item"]),
        (2**63 - 1, [3], ["unknown_user", "unknown_item"]),
        (FOREIGN_USER, [1001], ["foreign_value"]),
        (OTHER_BUNDLE_USER, [1001], ["unknown_bundle"]),
    ],
)
def test_what_is_not_known_is_answered_and_marked(service, user, items, reasons):
    answer = service.rank(user, items)
    assert (answer["degraded"], answer["reasons"]) == (True, reasons)
    assert len(answer["items"]) == len(items)
    assert all(0 < item["probability"] < 1 for item in answer["items"])


def test_unknown_items_are_marked_one_by_one(service):
    items = service.rank(5, [1001, 3])["items"]
    assert {item["item_id"]: item["known"] for item in items} == {1001: True, 3: False}


def test_whoever_has_no_usable_memory_is_scored_as_somebody_new(service):
    nobody = service.probabilities(10**6, [1001, 1002])
    assert service.probabilities(FOREIGN_USER, [1001, 1002]) == nobody
    assert service.probabilities(OTHER_BUNDLE_USER, [1001, 1002]) == nobody


def test_a_foreign_value_costs_only_its_own_user_the_memory(served):
    _, _, _, service = served
    requests = [{"user_id": user, "item_ids": [1001]} for user in (5, FOREIGN_USER, 6)]
    answers = service.client.post("/v1/rank:batch", json={"requests": requests}).json()["answers"]
    assert [answer["reasons"] for answer in answers] == [[], ["foreign_value"], []]


def test_duplicate_candidates_are_answered_once_and_counted(service):
    answer = service.rank(5, [1001, 1002, 1001, 1001])
    assert sorted(item["item_id"] for item in answer["items"]) == [1001, 1002]
    assert answer["duplicates"] == 2


# Refusals


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"user_id": 5, "item_ids": []}, "item_ids"),
        ({"user_id": 5, "item_ids": list(range(301))}, "item_ids"),
        ({"user_id": 5}, "item_ids"),
        ({"item_ids": [1]}, "user_id"),
        ({"user_id": -1, "item_ids": [1]}, "user_id"),
        ({"user_id": 2**63, "item_ids": [1]}, "user_id"),
        ({"user_id": 5, "item_ids": [1, 2**63]}, "item_ids.1"),
        ({"user_id": 5, "item_ids": [1, -7]}, "item_ids.1"),
        ({"user_id": "5", "item_ids": [1]}, "user_id"),
        ({"user_id": 5.0, "item_ids": [1]}, "user_id"),
        ({"user_id": True, "item_ids": [1]}, "user_id"),
        ({"user_id": 5, "item_ids": ["1"]}, "item_ids.0"),
        ({"user_id": 5, "item_ids": [None]}, "item_ids.0"),
        ({"user_id": 5, "item_ids": 1}, "item_ids"),
        ({"user_id": 5, "item_ids": [1], "k": 0}, "k"),
        ({"user_id": 5, "item_ids": [1], "explain": "yes"}, "explain"),
        ({"user_id": 5, "item_ids": [1], "context": {"x": float("nan")}}, "context.x"),
        ({"user_id": 5, "item_ids": [1], "context": {"x": float("inf")}}, "context.x"),
        ({"user_id": 5, "item_ids": [1], "context": {"x": {"y": 1}}}, "context.x"),
        ({"user_id": 5, "item_ids": [1], "context": {"x": [1, {"y": 1}]}}, "context.x"),
        ({"user_id": 5, "item_ids": [1], "context": {"x": [[[1]]]}}, "context.x"),
        ({"user_id": 5, "item_ids": [1], "context": {"x": [1] * 2000}}, "context.x"),
        ({"user_id": 5, "item_ids": [1], "kk": 3}, "kk"),
        ([], "body"),
        (17, "body"),
    ],
)
def test_a_bad_field_is_a_422_that_names_it(service, body, field):
    answer = service.client.post(
        "/v1/rank", content=json.dumps(body), headers={"content-type": "application/json"}
    )
    assert answer.status_code == 422, answer.text
    found = answer.json()
    assert found["field"] == field, found
    assert "\n" not in found["detail"]


def test_a_value_of_no_kind_is_told_all_kinds(service):
    context = {"x": {"of": "no kind"}}
    body = {"user_id": 5, "item_ids": [1], "context": context}
    found = service.client.post("/v1/rank", json=body).json()
    for kind in ("boolean", "integer", "number", "string", "list"):
        assert kind in found["detail"], found
    batch = service.client.post("/v1/rank:batch", json={"requests": [body]}).json()
    assert batch["field"] == "requests.0.context.x"


def test_a_bad_field_of_one_of_many_is_named_with_its_place(service):
    requests = [{"user_id": 5, "item_ids": [1]}, {"user_id": 5, "item_ids": []}]
    answer = service.client.post("/v1/rank:batch", json={"requests": requests})
    assert (answer.status_code, answer.json()["field"]) == (422, "requests.1.item_ids")


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"user_id": 5,}', b"\xff\xfe", b"[" * 15_000, b'{"user_id": 1e999}']
)
def test_a_body_that_is_not_a_request_is_refused(service, content):
    answer = service.client.post(
        "/v1/rank", content=content, headers={"content-type": "application/json"}
    )
    assert answer.status_code in (400, 422), answer.text
    assert answer.json()["detail"]


def test_text_that_is_no_unicode_is_refused_and_not_a_crash(service):
    body = b'{"user_id": "\\ud800", "item_ids": [1]}'
    answer = service.client.post(
        "/v1/rank", content=body, headers={"content-type": "application/json"}
    )
    assert (answer.status_code, answer.json()["field"]) == (422, "user_id")


def test_a_large_body_is_refused_before_it_is_read(service):
    answer = service.client.post("/v1/rank", content=b"x" * 30_000)
    assert (answer.status_code, answer.json()["field"]) == (413, "body")


def test_a_large_body_without_a_length_is_refused(service):
    def chunks():
        for _ in range(30):
            yield b"x" * 1000

    answer = service.client.post("/v1/rank", content=chunks())
    assert answer.status_code == 413


def test_interests_of_nobody_are_not_found(service):
    assert service.client.get("/v1/users/123456/interests").status_code == 404
    assert service.client.get("/v1/users/-1/interests").json()["field"] == "user_id"


def test_other_paths_and_methods_are_refused(service):
    assert service.client.get("/v1/rank").status_code == 405
    assert service.client.get("/nothing").status_code == 404


# Operation


def test_health_readiness_and_metrics(service):
    assert service.client.get("/healthz").json() == {"alive": True}
    ready = service.ready()
    assert (ready["ready"], ready["bundle"], ready["store"]) == (True, "mimn/0001", "answers")
    before = service.metric('uic_serve_degraded_total{reason="unknown_user"}')
    asked = service.metric('uic_serve_requests_total{path="/v1/rank",status="200"}')
    service.rank(10**6, [1001])
    assert service.metric('uic_serve_degraded_total{reason="unknown_user"}') == before + 1
    assert service.metric('uic_serve_requests_total{path="/v1/rank",status="200"}') == asked + 1
    assert service.metric('uic_serve_bundle_workers{bundle="mimn/0001"}') == 1
    assert service.metric('uic_serve_generation_workers{generation="1"}') == 1
    assert service.metric("uic_serve_item_cache_hits_total") > 0
    for stage in ("wait", "store", "score", "total"):
        assert service.metric(f'uic_serve_seconds_count{{stage="{stage}"}}') > 0


def test_the_page_of_docs_is_whole_and_names_no_other_host(service):
    answer = service.client.get("/docs")
    page, base = answer.text, str(service.client.base_url).rstrip("/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert set(re.findall(r"https?://[^/\s\"'<]+", page)) == {base}
    assert re.findall(r"(?:src|href)=\"([^\"]*)", page) == ["openapi.json"]
    assert "<script" not in page
    schema = service.client.get("/openapi.json").json()
    for path, operations in schema["paths"].items():
        for method in operations:
            assert f"<h2><code>{method.upper()} {path}</code></h2>" in page
    for name in schema["components"]["schemas"]["RankRequest"]["properties"]:
        assert f"<td><code>{name}</code>" in page
    assert "list of 1 to 300 of integer of 0 to 9223372036854775807" in page
    [line] = re.findall(r"<pre>(curl -s \S*/v1/rank .*)</pre>", page)
    done = subprocess.run(
        ["bash", "-c", unescape(line)], capture_output=True, text=True, check=True, timeout=60
    )
    assert [one["item_id"] for one in json.loads(done.stdout)["items"]] != []


def test_openapi_shows_limits_and_examples(service):
    schema = service.client.get("/openapi.json").json()
    body = schema["components"]["schemas"]["RankRequest"]
    assert body["properties"]["item_ids"]["maxItems"] == 300
    # Not 2^63, which a float makes of it, and which is refused.
    assert body["properties"]["user_id"]["maximum"] == 2**63 - 1
    assert body["properties"]["item_ids"]["items"]["maximum"] == 2**63 - 1
    assert service.client.post("/v1/rank", json=body["example"]).status_code == 200
