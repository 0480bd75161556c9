"""The other architecture: histories from the log into the store, and scores from them."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from tests.jobs.serving.shop import (
    EVENT_TIME_MS,
    Shop,
    categories_of,
    offline_logits,
    random_events,
    write_log,
)
from uic.feature_repo.plugin.repository import open_feature_store
from uic.feature_repo.sequences import (
    SEQUENCE_SERVICE,
    SEQUENCE_VIEW,
    apply_sequences,
)
from uic.feature_repo.store.layout import NO_GENERATION, SEQUENCE, ViewKeys
from uic.feature_repo.store.opened import open_memories
from uic.feature_repo.store.packed import PackedStore
from uic.jobs.serving.read.breaker import CircuitBreaker
from uic.jobs.serving.read.records import MemoryReader, packed_feature
from uic.jobs.serving.score.asks import Ask
from uic.jobs.serving.score.items import ItemTable
from uic.jobs.serving.score.sequences import SequenceScorer
from uic.jobs.stream.fold.sequence_fill import fill_from_log, fill_sequences
from uic.models.rankers.catalogue import MODELS, model_kind
from uic.models.records.sequence_ring import SequenceRing
from uic.pipelines.importers.run import run_import
from uic.pipelines.importers.table import TableColumns, TableImporter
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.text_ids import category_number_of

pytestmark = pytest.mark.slow

LENGTHS = np.array([0, 1, 7, 60])
SHOWN = [1003, 1001, 1400, 1499, 1250]
SHOWN_AT_MS = EVENT_TIME_MS + 3_600_000
# Everything that needs neither a memory nor pictures.
WITH_A_HISTORY = sorted(set(MODELS) - {"mimn", "dicm", "prerank"})
SMALL = {"history_limit": 50, "lmn_keys": 8, "lmn_top_k": 4}


def offline(bundle, user: int) -> np.ndarray:
    """Logits of the model's own path from samples."""
    events = random_events(LENGTHS)
    return offline_logits(bundle, events, user - 1, user, SHOWN, at_ms=SHOWN_AT_MS)


def test_a_history_from_the_store_has_the_scores_of_the_log(shop: Shop):
    write_log(shop, LENGTHS)
    feast = open_feature_store(shop.settings, shop.workspace)
    apply_sequences(feast, shop.workspace)
    feature = packed_feature(feast, SEQUENCE_SERVICE, SEQUENCE_VIEW)
    reader = MemoryReader(feast, feature, CircuitBreaker(3, 1.0), timeout_seconds=30)
    log, ring = EventLog(shop.workspace / "log"), SequenceRing()
    with open_memories(shop.settings, shop.workspace) as store:
        keys = ViewKeys.of_sequences(shop.settings.project)
        packed = PackedStore(store.client, keys, layout=SEQUENCE)
        users = np.arange(1, 5)
        assert fill_sequences(log, packed, ring, users) == 3  # user 1 has no event
        assert fill_sequences(log, packed, ring, users) == 3  # again changes nothing

    async def fetch():
        found = await reader.fetch([1, 2, 3, 4])
        await feast._get_provider().online_store.close()  # its connection belongs to this loop
        return found

    fetched = asyncio.run(fetch())
    assert [value is None for value in fetched.values] == [True, False, False, False]
    table = ItemTable.load(log.items_file())
    for model in WITH_A_HISTORY:
        known = model_kind(model).settings.model_fields
        small = {name: value for name, value in SMALL.items() if name in known}
        bundle = shop.bundle("0001", model=model, **small)
        scorer = SequenceScorer(bundle, table)
        asks = [
            Ask(SHOWN, value, moment_ms=SHOWN_AT_MS, user_id=user)
            for user, value in enumerate(fetched.values, start=1)
        ]
        for user, scored in enumerate(scorer.answer_now(asks), start=1):
            found, expected = scored.logits, offline(bundle, user)
            np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=f"{model}, user {user}")
        assert scorer.choose(fetched.values[1]) is scorer
        assert scorer.choose(b"UM something else") is None
    facts = scorer.facts(fetched.values[3])
    assert facts.events == 60
    assert facts.last_event_time_ms == pytest.approx(EVENT_TIME_MS + 67_000, abs=1000)


def test_a_log_with_text_categories_has_its_histories_served(shop: Shop, tmp_path):
    events = random_events(LENGTHS)
    rows = zip(
        events.user_index + 1, events.item_ids, events.category_ids, events.event_times_ms,
        strict=True,
    )  # fmt: skip
    table = tmp_path / "clicks.csv"
    lines = [f"{user},{item},shoes {category},{time}" for user, item, category, time in rows]
    table.write_text("\n".join(["user,item,category,time", *lines]))
    columns = TableColumns(
        "user", "item", "time", category_id="category", string_ids=frozenset({"category"})
    )
    log, ring = EventLog(tmp_path / "log"), SequenceRing()
    run_import(TableImporter(table, columns), log, time_zone="UTC", partitions=2)
    apply_sequences(open_feature_store(shop.settings, shop.workspace), shop.workspace)
    with open_memories(shop.settings, shop.workspace) as store:
        keys = ViewKeys.of_sequences(shop.settings.project)
        packed = PackedStore(store.client, keys, layout=SEQUENCE)
        assert fill_sequences(log, packed, ring, np.array([4])) == 1
        value = packed.read(NO_GENERATION, np.array([4]))[0][0].tobytes()[-ring.ring_bytes :]
    bundle = shop.bundle("0001", model="din")
    shown = np.unique(events.item_ids)[:5]
    numbers = [category_number_of(f"shoes {category}") for category in categories_of(shown)]
    numbered = [category_number_of(f"shoes {category}") for category in events.category_ids]
    expected = offline_logits(
        bundle, replace(events, category_ids=np.array(numbered)), 3, 4, shown,
        categories=np.array(numbers), at_ms=SHOWN_AT_MS,
    )  # fmt: skip
    scorer = SequenceScorer(bundle, ItemTable.load(log.items_file()))
    ask = Ask(shown.tolist(), value, moment_ms=SHOWN_AT_MS, user_id=4)
    np.testing.assert_allclose(scorer.answer_now([ask])[0].logits, expected, atol=1e-5)


def test_everybody_of_the_log_gets_a_history_but_who_was_forgotten(shop: Shop):
    write_log(shop, LENGTHS)
    log, ring = EventLog(shop.workspace / "log"), SequenceRing()
    with open_memories(shop.settings, shop.workspace) as store:
        keys = ViewKeys.of_sequences(shop.settings.project)
        packed = PackedStore(store.client, keys, layout=SEQUENCE)
        store.generations.forget(3)
        # Users 2 and 4 of the log above, and the one who clicked when the shop was made.
        assert fill_from_log(log, shop.settings, shop.workspace) == 3
        values, found = packed.read(0, [1, 2, 3, 4, 10**6])
        assert found.tolist() == [False, True, False, True, True]
        rings = values[:, -ring.ring_bytes :]
        assert ring.header(rings[[1, 3, 4]])["appended"].tolist() == [1, 60, 1]
        store.generations.forget(4)
        fill_from_log(log, shop.settings, shop.workspace)
        assert packed.read(0, [3, 4])[1].tolist() == [False, False]
