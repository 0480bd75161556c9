"""Pre-rank and funnel on a real Redis: the model's own scores, two stages, bad input, swaps."""

import asyncio
from contextlib import asynccontextmanager

import httpx
import numpy as np
import pytest

from tests.jobs.serving.counting import METRICS
from tests.jobs.serving.shop import (
    FIRST_ITEM,
    ITEM_COUNT,
    Shop,
    categories_of,
    offline_logits,
    random_events,
)
from tests.jobs.serving.test_images import IDS_ALONE, SMALL, publish_features, publish_version
from uic.feature_repo.plugin.repository import open_feature_store
from uic.feature_repo.sequences import SEQUENCE_SERVICE, SEQUENCE_VIEW, apply_sequences
from uic.feature_repo.snapshots.published_values import load_values
from uic.feature_repo.store.connection import connect, resolve_address
from uic.feature_repo.store.item_store import ItemStore
from uic.feature_repo.store.item_vectors import packed_item_vectors
from uic.feature_repo.store.layout import SEQUENCE, ViewKeys
from uic.feature_repo.store.opened import open_memories
from uic.feature_repo.store.packed import PackedStore
from uic.jobs.config.serve import ServeSettings
from uic.jobs.serving.follow.follower import (
    Follower,
    ItemTableProbe,
    ItemVersionProbe,
    PointerProbe,
)
from uic.jobs.serving.follow.loader import Loader
from uic.jobs.serving.http.answers import probabilities
from uic.jobs.serving.http.app import create_app
from uic.jobs.serving.http.service import Service
from uic.jobs.serving.rank.engine import RankingEngine
from uic.jobs.serving.read.breaker import CircuitBreaker
from uic.jobs.serving.read.reasons import DegradedReason
from uic.jobs.serving.read.records import MemoryReader, packed_feature
from uic.jobs.serving.score.items import UNKNOWN_CATEGORY, ItemTable
from uic.jobs.serving.score.prerank import Preranked, PrerankScorer, PrerankStage
from uic.jobs.serving.score.sequences import SequenceScorer
from uic.jobs.stream.fold.sequence_fill import write_rings
from uic.models.bundles.documents import BundleError
from uic.models.records.sequence_ring import SequenceRing
from uic.pipelines.images.embed import embedded
from uic.pipelines.log.event_log import EventLog

LENGTHS = np.array([0, 7, 60, 130])
ITEMS = np.arange(FIRST_ITEM, FIRST_ITEM + ITEM_COUNT)
UNKNOWN = 77_777
RING = SequenceRing()
BUNDLE = {**SMALL, "history_limit": 50, "vector_width": 5}


def offline(bundle, features, user: int, item_ids, events=None) -> np.ndarray:
    """Logits of the model's own path from samples, embedding the images itself."""
    bundle.model.attach_images(features)
    events = random_events(LENGTHS) if events is None else events
    shown = np.asarray(item_ids)
    categories = np.where(shown == UNKNOWN, UNKNOWN_CATEGORY, categories_of(shown))
    return offline_logits(bundle, events, user - 1, user, shown, categories=categories)


class Running:
    """Everything of a service but its process: a pre-rank before DIN, on the shop's Redis."""

    def __init__(self, shop: Shop, client) -> None:
        self.shop = shop
        address = resolve_address(shop.settings, shop.workspace)
        self.items = ItemStore.on(client, address, shop.settings)
        self.feast = open_feature_store(shop.settings, shop.workspace)
        apply_sequences(self.feast, shop.workspace)
        self.feast.refresh_registry()
        self.features = publish_features(shop)
        self.settings = ServeSettings(
            store_timeout_ms=20_000,
            request_timeout_ms=60_000,
            max_prerank_candidates=600,
            prerank_keep=40,
            breaker_open_seconds=0.05,
            swap_delay_seconds=0.0,
        )
        log = EventLog(shop.workspace / "log")
        self.loader = Loader(shop.shelf, log, self.feast, self.items, self.settings)
        self.write(random_events(LENGTHS))

    def write(self, events) -> None:
        rings = RING.append(RING.empty(len(LENGTHS)), events)
        with open_memories(self.shop.settings, self.shop.workspace) as store:
            keys = ViewKeys.of_sequences(self.shop.settings.project)
            packed = PackedStore(store.client, keys, layout=SEQUENCE)
            write_rings(packed, RING, np.arange(2, 5), rings[1:])

    def publish(self, version: int, *, load: bool = True, **switches):
        settings = {**BUNDLE, **switches}
        bundle = self.shop.bundle(f"{version:04d}", version, model="prerank", **settings)
        if load:
            self.load(bundle, version)
        return bundle

    def load(self, bundle, version: int) -> None:
        images = publish_version(self.shop, bundle, self.features, version)
        load_values(images, self.items.vectors, self.items.versions)

    def reader(self) -> MemoryReader:
        feature = packed_feature(self.feast, SEQUENCE_SERVICE, SEQUENCE_VIEW)
        return MemoryReader(self.feast, feature, CircuitBreaker(3, 0.05), 60.0)

    @property
    def table(self) -> ItemTable:
        return self.loader.table()[0]

    def follower(self, path) -> Follower[PrerankScorer]:
        """A follower of the current prerank, which begins with the bundle at `path`."""

        def load(path, now: PrerankScorer) -> PrerankScorer:
            return self.loader.prerank(path, now.table, vectors_needed=True)

        probes = [
            ItemTableProbe(self.loader, self.loader.prerank_with, self.loader.table()[1]),
            PointerProbe(self.loader.pointer_of("prerank"), load, 0.0),
            ItemVersionProbe(self.loader),
        ]
        return Follower(self.loader.prerank(path, self.table), lambda _: None, probes, 1.0)

    def stage(self, path) -> PrerankStage:
        return PrerankStage(self.loader.prerank(path, self.table), self.reader(), METRICS, 40)

    @asynccontextmanager
    async def client(self, stage: PrerankStage):
        """HTTP to the application in this process."""
        din = self.shop.bundle("0001", model="din", history_limit=50)
        scorer = SequenceScorer(din, self.table)
        engine = RankingEngine(self.reader(), scorer, METRICS, pass_rows=64, timeout_seconds=60)
        service = Service(self.settings, engine, None, METRICS, self.feast, None, stage)
        app = create_app(service)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            client.service = service
            yield client
        await self.close()

    async def close(self) -> None:
        # Its connection belongs to this event loop.
        await self.feast._get_provider().online_store.close()


def scored(scorer: PrerankScorer, item_ids, record: bytes | None) -> Preranked:
    """What a scorer says, its images read at once."""
    history, candidates = scorer.history(record), scorer.find(item_ids)
    read = scorer.images.read_now(scorer.vectors_needed(candidates, history))
    return scorer.score(candidates, scorer.user_vector(history, read), read)


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
