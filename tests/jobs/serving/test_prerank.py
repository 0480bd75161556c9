"""Pre-rank and funnel on a real Redis: the model's own scores, two stages, bad input, swaps."""

import asyncio

import numpy as np
import pytest

from tests.jobs.serving.image_shop import IDS_ALONE
from tests.jobs.serving.prerank_shop import (
    ITEMS,
    LENGTHS,
    RING,
    UNKNOWN,
    Running,
    offline,
    scored,
)
from tests.jobs.serving.shop import (
    FIRST_ITEM,
    ITEM_COUNT,
    Shop,
    random_events,
)
from uic.feature_repo.store.connection import connect, resolve_address
from uic.feature_repo.store.item_vectors import packed_item_vectors
from uic.jobs.serving.http.answers import probabilities
from uic.jobs.serving.read.reasons import DegradedReason
from uic.jobs.serving.score.items import ItemTable
from uic.jobs.serving.score.prerank import PrerankScorer
from uic.models.bundles.documents import BundleError
from uic.pipelines.images.embed import embedded


@pytest.fixture
def running(shop: Shop):
    with connect(resolve_address(shop.settings, shop.workspace)) as client:
        yield Running(shop, client)


def test_served_scores_are_those_of_the_model_and_follow_an_event_at_once(running: Running):
    bundle = running.publish(1)
    stage = running.stage(bundle.path)
    shown = [*ITEMS[::-1].tolist(), UNKNOWN]
    clicked = random_events(LENGTHS + 1, seed=9)

    async def scores():
        before = [await stage.prerank(user, shown) for user in range(1, 5)]
        again = await stage.prerank(4, shown)
        running.write(clicked)
        after = await stage.prerank(4, shown)
        await running.close()
        return before, again, after

    before, again, after = asyncio.run(scores())
    for user, found in enumerate(before, start=1):
        expected = offline(bundle, running.features, user, shown)
        np.testing.assert_allclose(found.logits, expected, rtol=2e-6, atol=1e-5)
        assert found.known.tolist() == [True] * ITEM_COUNT + [False]
        assert (np.diff(found.logits[found.best]) <= 0).all()
        expected_reasons = {DegradedReason.UNKNOWN_ITEM} | (
            {DegradedReason.UNKNOWN_USER} if user == 1 else set()
        )
        assert set(found.reasons) == expected_reasons
    np.testing.assert_array_equal(again.logits, before[3].logits)
    expected = offline(bundle, running.features, 4, shown, clicked)
    np.testing.assert_allclose(after.logits, expected, rtol=2e-6, atol=1e-5)
    assert np.abs(after.logits - before[3].logits).max() > 1e-3


def test_ids_of_images_are_served_without_an_image_embedding(running: Running):
    bundle = running.publish(1, **IDS_ALONE)
    scorer = running.loader.prerank(bundle.path, running.table)
    ring = RING.append(RING.empty(4), random_events(LENGTHS))[2].tobytes()
    found = scored(scorer, ITEMS, ring)
    assert found.reasons == ()
    expected = offline(bundle, running.features, 3, ITEMS)
    np.testing.assert_allclose(found.logits, expected, rtol=2e-6, atol=1e-5)


def test_the_funnel_ranks_what_the_pre_rank_keeps(running: Running):
    bundle = running.publish(1)
    stage = running.stage(bundle.path)
    shown = ITEMS.tolist()
    bids = np.random.default_rng(0).uniform(0, 3, len(shown)).round(2).tolist()

    async def answers():
        async with running.client(stage) as client:
            body = {"user_id": 3, "item_ids": [*shown, shown[0]]}
            pre = await client.post("/v1/prerank", json={**body, "k": 40})
            plain = await client.post("/v1/funnel", json=body)
            paid = await client.post(
                "/v1/funnel", json={**body, "bids": [*bids, bids[0]], "keep": 30, "k": 10}
            )
            ranked = await client.service.engine.rank(3, shown)
            running.shop.server.stop()
            away = await client.post("/v1/funnel", json=body)
            document = (await client.get("/openapi.json")).json()
            return [one.json() for one in (pre, plain, paid, away)], ranked, document

    (pre, plain, paid, away), ranked, document = asyncio.run(answers())
    logits = offline(bundle, running.features, 3, shown)
    best = [shown[at] for at in np.argsort(-logits, kind="stable")[:40]]
    assert [item["item_id"] for item in pre["items"]] == best
    assert (pre["candidates"], pre["duplicates"], pre["degraded"]) == (ITEM_COUNT, 1, False)
    chance = dict(zip(shown, probabilities(ranked.scored.logits).tolist(), strict=True))
    by_chance = sorted(best, key=lambda item: -chance[item])
    assert [item["item_id"] for item in plain["items"]] == by_chance
    for item in plain["items"]:
        assert item["probability"] == pytest.approx(chance[item["item_id"]], abs=1e-6)
        assert item["value"] == item["probability"]
    counts = [(stage["stage"], stage["candidates"], stage["kept"]) for stage in plain["stages"]]
    assert counts == [("prerank", ITEM_COUNT, 40), ("rank", 40, 40)]
    assert [stage["bundle"] for stage in plain["stages"]] == ["prerank/0001", "din/0001"]
    bid = dict(zip(shown, bids, strict=True))
    by_value = sorted(best[:30], key=lambda item: -chance[item] * bid[item])[:10]
    assert [item["item_id"] for item in paid["items"]] == by_value
    assert all(item["bid"] == bid[item["item_id"]] for item in paid["items"])
    # Redis is gone: an answer without behaviours, which says so.
    assert away["degraded"] is True
    assert "store_unavailable" in away["reasons"]
    assert len(away["items"]) == 40
    for path in ("/v1/prerank", "/v1/funnel"):
        posted = document["paths"][path]["post"]
        named = posted["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        assert "example" in document["components"]["schemas"][named.rpartition("/")[2]]


BAD = [
    ("prerank", {"item_ids": []}, "item_ids"),
    ("prerank", {"item_ids": list(range(601))}, "item_ids"),
    ("prerank", {"item_ids": [1, -1]}, "item_ids.1"),
    ("prerank", {"item_ids": [1.5]}, "item_ids.0"),
    ("prerank", {"k": 0}, "k"),
    ("prerank", {"bids": [1.0]}, "bids"),
    ("prerank", {"user_id": 2**63}, "user_id"),
    ("funnel", {"user_id": None}, "user_id"),
    ("funnel", {"keep": 601}, "keep"),
    ("funnel", {"bids": [1.0]}, "bids"),
    ("funnel", {"bids": [1.0, -0.5]}, "bids.1"),
    ("funnel", {"bids": [1.0, "2"]}, "bids.1"),
    ("funnel", {"item_ids": [5, 5], "bids": [1.0, 2.0]}, "bids"),
]


def test_bad_input_is_refused_by_field_and_the_rest_is_answered(running: Running):
    stage = running.stage(running.publish(1, load=False).path)

    async def answers():
        async with running.client(stage) as client:
            good = {"user_id": 3, "item_ids": [1000, 1001]}
            found = [await client.post(f"/v1/{path}", json={**good, **bad}) for path, bad, _ in BAD]
            text = '{"user_id": 3, "item_ids": [1000], "bids": [%s]}'
            json_type = {"Content-Type": "application/json"}
            found += [
                await client.post("/v1/funnel", content=text % number, headers=json_type)
                for number in ("NaN", "Infinity", "1e999")
            ]
            return found, (await client.post("/v1/funnel", json=good)).json()

    found, good = asyncio.run(answers())
    fields = [*(field for _, _, field in BAD), *["bids.0"] * 3]
    assert [(one.status_code, one.json()["field"]) for one in found] == [
        (422, field) for field in fields
    ]
    assert "1 bids for 2 item_ids" in found[9].json()["detail"]
    # The store has no item version of the bundle: default images, and the answer says so.
    assert good["stages"][0]["reasons"] == ["no_item_version"]
    assert len(good["items"]) == 2


def test_scores_that_are_no_numbers_leave_the_order_of_the_request(running: Running):
    """A16: a NaN once sorted thousands of candidates at random, with status 200 and no reason."""
    stage = running.stage(running.publish(1).path)
    stage.scorer.matrix[:] = np.nan
    shown = ITEMS[::-1].tolist()

    async def answer():
        found = await stage.prerank(3, shown)
        await running.close()
        return found

    found = asyncio.run(answer())
    assert DegradedReason.NOT_FINITE in found.reasons
    assert np.isfinite(found.logits).all()
    assert found.item_ids[found.best].tolist() == shown


def test_a_bundle_is_swapped_with_all_its_vectors_or_not_at_all(running: Running):
    old = running.publish(1)
    follower = running.follower(old.path)
    first = follower.current
    new = running.publish(2, load=False)
    errors = asyncio.run(follower.look())
    assert isinstance(errors["bundle"], BundleError)
    assert "no ready item version of prerank/0002" in str(errors["bundle"])
    assert follower.current is first
    running.load(new, 2)
    assert asyncio.run(follower.look()) == {}
    assert follower.current.label == "prerank/0002"
    ring = RING.append(RING.empty(4), random_events(LENGTHS))[2].tobytes()
    found = scored(follower.current, ITEMS, ring)
    np.testing.assert_allclose(
        found.logits, offline(new, running.features, 3, ITEMS), rtol=2e-6, atol=1e-5
    )
    running.shop.write_items(ITEM_COUNT + 100, name="more")
    assert asyncio.run(follower.look()) == {}
    assert follower.current.matrix.shape == (ITEM_COUNT + 100 + 1, 5)


def test_a_new_image_makes_the_vector_of_its_item_again(running: Running):
    bundle = running.publish(1)
    follower = running.follower(bundle.path)
    ring = RING.append(RING.empty(4), random_events(LENGTHS))[3].tobytes()
    scorer = follower.current
    before = scored(scorer, ITEMS, None).logits
    with_events = scored(scorer, ITEMS, ring).logits
    matrix_row = scorer.matrix[2].copy()
    new = FIRST_ITEM + 2  # had no image
    vector = embedded(bundle, running.features.features[:1])
    value = packed_item_vectors(1, bundle.hash8, 1_800_000_000_000, vector, [b"12345678"])
    running.items.add(1, [new], value)
    assert asyncio.run(follower.look()) == {}
    renewed = follower.current
    after = scored(renewed, ITEMS, None).logits
    assert np.flatnonzero(after != before).tolist() == [2]
    assert scored(renewed, ITEMS, ring).logits[2] != with_events[2]
    # A request on its way still has the scorer that it began with.
    np.testing.assert_array_equal(scorer.matrix[2], matrix_row)


def test_another_model_is_refused(running: Running):
    bundle = running.shop.bundle("0001", model="din")
    with pytest.raises(BundleError, match="model din has no two towers"):
        PrerankScorer(bundle, ItemTable.load(None))
