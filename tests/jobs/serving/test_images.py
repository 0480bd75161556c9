"""A ranker with precomputed image vectors: the scores of the model itself, swaps, new images."""

import asyncio
import os
import signal
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import redis

from tests.jobs.serving.image_shop import IDS_ALONE, SMALL, publish_features, publish_version
from tests.jobs.serving.shop import (
    FIRST_ITEM,
    ITEM_COUNT,
    Shop,
    offline_logits,
    random_events,
)
from uic.feature_repo.plugin.repository import open_feature_store
from uic.feature_repo.snapshots.published_values import load_values
from uic.feature_repo.store.connection import connect, resolve_address
from uic.feature_repo.store.item_store import ItemStore
from uic.feature_repo.store.item_vectors import packed_item_vectors
from uic.jobs.config.serve import ServeSettings
from uic.jobs.serving.follow.follower import (
    Follower,
    ItemTableProbe,
    ItemVersionProbe,
    PointerProbe,
)
from uic.jobs.serving.follow.loader import Loader
from uic.jobs.serving.read.reasons import DegradedReason
from uic.jobs.serving.score.asks import Ask
from uic.jobs.serving.score.item_vectors import ItemVectors
from uic.jobs.serving.score.items import ItemTable
from uic.jobs.serving.score.sequences import SequenceScorer
from uic.models.bundles.documents import BundleError
from uic.models.images.features import ImageFeatures
from uic.models.records.sequence_ring import SequenceRing
from uic.pipelines.images.embed import embedded
from uic.pipelines.log.event_log import EventLog

pytestmark = pytest.mark.slow

LENGTHS = np.array([0, 7, 60])
SHOWN = [1003, 1001, 1400, 1499, 1250]


@pytest.fixture
def store(shop: Shop):
    address = resolve_address(shop.settings, shop.workspace)
    with connect(address) as client:
        yield ItemStore.on(client, address, shop.settings)


@pytest.fixture
def loader(shop: Shop, store: ItemStore) -> Loader:
    feast = open_feature_store(shop.settings, shop.workspace)
    settings = ServeSettings(item_cache_items=300, breaker_open_seconds=0.05)
    return Loader(shop.shelf, EventLog(shop.workspace / "log"), feast, store, settings)


@pytest.fixture
def table(loader: Loader) -> ItemTable:
    return loader.table()[0]


def ring_of(user: int) -> bytes | None:
    events, ring = random_events(LENGTHS), SequenceRing()
    rings = ring.append(ring.empty(len(LENGTHS)), events)
    return rings[user].tobytes() if LENGTHS[user] else None


def offline(bundle, features: ImageFeatures, user: int, shown=SHOWN) -> np.ndarray:
    """Logits of the model's own path, embedding the images itself."""
    bundle.model.attach_images(features)
    return offline_logits(bundle, random_events(LENGTHS), user, user, shown)


def follow(shop: Shop, loader: Loader) -> Follower[SequenceScorer]:
    """A follower of the current dicm, without a server."""
    table, stamp = loader.table()

    def load(path, now: SequenceScorer) -> SequenceScorer:
        return loader.sequences(path, now.table, vectors_needed=True)

    probes = [
        ItemTableProbe(loader, SequenceScorer.with_table, stamp),
        PointerProbe(loader.pointer_of("dicm"), load, 0.0),
        ItemVersionProbe(loader),
    ]
    scorer = loader.sequences(loader.shelf.find("dicm"), table)
    return Follower(scorer, lambda _: None, probes, 1.0)


def test_served_scores_are_those_of_the_model_that_embeds_images_itself(
    shop: Shop, store: ItemStore, loader: Loader, table: ItemTable
):
    features = publish_features(shop)
    for seed, switches in enumerate(({}, {"aggregator": "sum"}, IDS_ALONE)):
        bundle = shop.bundle(f"000{seed}", seed, model="dicm", **switches, **SMALL)
        version = publish_version(shop, bundle, features, seed + 1)
        load_values(version, store.vectors, store.versions)
        scorer = loader.sequences(bundle.path, table)
        scored = scorer.answer_now([Ask(SHOWN, ring_of(user)) for user in range(3)])
        for user in range(3):
            expected = offline(bundle, features, user)
            np.testing.assert_allclose(scored[user].logits, expected, rtol=2e-6, atol=1e-5)
            assert scored[user].reasons == ()
        # Candidates and events whose item has no image, as the model itself counts them.
        assert scored[0].without_image > 3, switches
        assert scored[1].without_image == 0  # counted once a pass


def test_ranker_and_vectors_are_swapped_as_one(shop: Shop, store: ItemStore, loader: Loader):
    features = publish_features(shop)
    old = shop.bundle("0001", 1, model="dicm", **SMALL)
    load_values(publish_version(shop, old, features, 1), store.vectors, store.versions)
    follower = follow(shop, loader)
    new = shop.bundle("0002", 2, model="dicm", **SMALL)

    # The new bundle is current, and has no vectors yet: the old ranker stays, with its own.
    errors = asyncio.run(follower.look())
    assert isinstance(errors["bundle"], BundleError)
    assert "no ready item version of dicm/0002" in str(errors["bundle"])
    [scored] = follower.current.answer_now([Ask(SHOWN, ring_of(2))])
    np.testing.assert_allclose(scored.logits, offline(old, features, 2), rtol=2e-6, atol=1e-5)

    load_values(publish_version(shop, new, features, 2), store.vectors, store.versions)
    assert asyncio.run(follower.look()) == {}
    current = follower.current
    assert current.label == "dicm/0002"
    assert current.images.source.version == 2
    [scored] = current.answer_now([Ask(SHOWN, ring_of(2))])
    np.testing.assert_allclose(scored.logits, offline(new, features, 2), rtol=2e-6, atol=1e-5)


def test_a_new_image_counts_at_once_and_a_newer_version_takes_over(
    shop: Shop, store: ItemStore, loader: Loader
):
    features = publish_features(shop)
    bundle = shop.bundle("0001", 1, model="dicm", **SMALL)
    load_values(publish_version(shop, bundle, features, 1), store.vectors, store.versions)
    follower = follow(shop, loader)

    def logits() -> list[float]:
        scorer = follower.current
        return scorer.answer_now([Ask([1002, 1001], None)])[0].logits.tolist()

    before = logits()  # 1002 has no image, and the cache knows it
    vector = embedded(bundle, features.features[:1])
    value = packed_item_vectors(1, bundle.hash8, 1_800_000_000_000, vector, [b"12345678"])
    store.add(1, [1002], value)
    assert asyncio.run(follower.look()) == {}
    after = logits()
    assert after[0] != before[0]
    assert after[1] == before[1]

    load_values(publish_version(shop, bundle, features, 2), store.vectors, store.versions)
    store.versions.switch(2, 0)
    assert asyncio.run(follower.look()) == {}
    assert follower.current.images.source.version == 2
    assert logits() == pytest.approx(before)


def test_an_item_that_the_log_names_from_now_on_has_its_category(
    shop: Shop, store: ItemStore, loader: Loader
):
    features = publish_features(shop)
    bundle = shop.bundle("0001", 1, model="dicm", **SMALL)
    load_values(publish_version(shop, bundle, features, 1), store.vectors, store.versions)
    follower = follow(shop, loader)
    new = FIRST_ITEM + ITEM_COUNT + 1

    def scored():
        return follower.current.answer_now([Ask([new, 1001], None)])[0]

    before = scored()
    assert before.known.tolist() == [False, True]
    shop.write_items(ITEM_COUNT + 10, name="more")
    assert asyncio.run(follower.look()) == {}
    after = scored()
    assert after.known.tolist() == [True, True]
    expected = offline(bundle, features, 0, [new, 1001])
    np.testing.assert_allclose(after.logits, expected, rtol=2e-6, atol=1e-5)
    assert before.logits[0] != after.logits[0]


def test_without_a_version_items_have_the_default_image_and_the_answer_says_so(
    shop: Shop, store: ItemStore, loader: Loader, table: ItemTable
):
    publish_features(shop)
    bundle = shop.bundle("0001", 1, model="dicm", **SMALL)
    [scored] = loader.sequences(bundle.path, table).answer_now([Ask(SHOWN, None)])
    assert scored.reasons == (DegradedReason.NO_ITEM_VERSION,)
    assert scored.without_image == len(SHOWN)


def test_a_vector_of_another_bundle_is_marked_and_not_used(
    shop: Shop, store: ItemStore, loader: Loader, redis_client: redis.Redis, table: ItemTable
):
    features = publish_features(shop)
    bundle = shop.bundle("0001", 1, model="dicm", **SMALL)
    load_values(publish_version(shop, bundle, features, 1), store.vectors, store.versions)
    foreign = packed_item_vectors(1, b"another!", 1_900_000_000_000, np.ones((1, 4)))
    [key] = store.versions.keys.entities(1, [1001])
    redis_client.set(key, foreign[0].tobytes())
    scorer = loader.sequences(bundle.path, table)
    [scored] = scorer.answer_now([Ask([1001, 1003], None)])
    assert scored.reasons == (DegradedReason.FOREIGN_ITEM_VECTOR,)
    [plain] = scorer.answer_now([Ask([1003], None)])
    assert plain.reasons == ()
    assert plain.logits[0] == pytest.approx(scored.logits[1], abs=1e-6)


@pytest.mark.parametrize("capacity", [300, 3])  # the second has no room for a request
def test_what_the_cache_lacks_is_read_while_the_loop_goes_on(
    shop: Shop, store: ItemStore, loader: Loader, capacity: int, table: ItemTable
):
    features = publish_features(shop)
    bundle = shop.bundle("0001", 1, model="dicm", **SMALL)
    load_values(publish_version(shop, bundle, features, 1), store.vectors, store.versions)
    source = replace(
        loader.item_vectors(bundle, None, table).source, version=1, timeout_seconds=60.0
    )
    images = ItemVectors(bundle.model, source, capacity)
    scorer = SequenceScorer(bundle, table, images)
    asks = [Ask(SHOWN, ring_of(2))]

    async def answers():
        await images.read(np.array([FIRST_ITEM]))  # opens the connection
        pid = shop.server.start().pid
        os.kill(pid, signal.SIGSTOP)  # Redis takes its time
        try:
            task = asyncio.create_task(scorer.answer(asks))
            for _ in range(20):
                await asyncio.sleep(0)
            waits = not task.done()
        finally:
            os.kill(pid, signal.SIGCONT)
        found = [await task, await scorer.answer(asks)]
        await loader.store._get_provider().online_store.close()
        return waits, found

    waits, found = asyncio.run(answers())
    assert waits
    expected = offline(bundle, features, 2)
    for [scored] in found:
        assert scored.reasons == ()
        np.testing.assert_allclose(scored.logits, expected, rtol=2e-6, atol=1e-5)


def test_a_vector_that_changes_while_it_is_read_is_read_again(
    shop: Shop, store: ItemStore, loader: Loader, table: ItemTable
):
    features = publish_features(shop)
    bundle = shop.bundle("0001", 1, model="dicm", **SMALL)
    load_values(publish_version(shop, bundle, features, 1), store.vectors, store.versions)
    source = replace(loader.item_vectors(bundle, None, table).source, version=1)
    images = ItemVectors(bundle.model, source, 300)
    images.since = store.changes(1, None).last
    scorer = SequenceScorer(bundle, table, images)
    other = embedded(bundle, features.features[5:6])
    newer = packed_item_vectors(1, bundle.hash8, 1_800_000_000_000, other, [b"12345678"])

    reads = []

    async def with_an_addition(item_ids):
        values = await source.read_async(item_ids)
        reads.append(item_ids.tolist())
        if len(reads) == 1:  # an image is added and announced before the answer is there
            store.add(1, [1001], newer)
            await images.follow(store.changes(1, images.since))
        return values

    images.source = SimpleNamespace(
        version=1, bundle=bundle.hash8, read=source.read, read_async=with_an_addition
    )

    async def answers():
        await scorer.answer([Ask([1001], None)])
        await loader.store._get_provider().online_store.close()

    asyncio.run(answers())
    assert reads == [[1001], [1001]]
    [row] = images.cache.find([1001]).rows["vector"]
    np.testing.assert_allclose(row, other[0], atol=1e-6)


def test_while_the_store_is_away_known_items_keep_their_vectors(
    shop: Shop, store: ItemStore, loader: Loader, table: ItemTable
):
    features = publish_features(shop)
    bundle = shop.bundle("0001", 1, model="dicm", **SMALL)
    load_values(publish_version(shop, bundle, features, 1), store.vectors, store.versions)
    scorer = loader.sequences(bundle.path, table)
    cached = [1001, 1003]
    [before] = scorer.answer_now([Ask(cached, None)])
    shop.stop()
    [after] = scorer.answer_now([Ask(cached, None)])
    assert after.reasons == ()
    np.testing.assert_array_equal(after.logits, before.logits)
    for asked in (scorer.answer_now, lambda asks: asyncio.run(scorer.answer(asks))):
        [mixed] = asked([Ask([*cached, 10**7], None)])
        assert mixed.reasons == (DegradedReason.ITEM_VECTORS_UNAVAILABLE,)
        np.testing.assert_allclose(mixed.logits[:2], before.logits, atol=1e-6)


@pytest.fixture
def redis_client(shop: Shop):
    with connect(resolve_address(shop.settings, shop.workspace)) as client:
        yield client
