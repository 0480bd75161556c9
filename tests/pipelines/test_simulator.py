"""The simulator: same seed, same rows, and what is built into the rows."""

import tracemalloc
from dataclasses import fields
from datetime import date

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uic.pipelines.log.events import EventParser
from uic.pipelines.log.schemas import BEHAVIORS
from uic.pipelines.settings import LogSettings
from uic.pipelines.simulator.days import DayChunk
from uic.pipelines.simulator.generator import (
    SIMULATED_BEHAVIORS,
    SIMULATED_IMPRESSIONS,
    Simulation,
    behaviors_table,
    impressions_table,
)
from uic.pipelines.simulator.oracle import BestAuc
from uic.pipelines.simulator.plan import SimulationPlan
from uic.pipelines.simulator.world import BLOCK_USERS, INTERESTS, Catalogue, UserBlock

SALE = date(2025, 1, 11)
PLAN = SimulationPlan(users=500, items=400, days=20, seed=7, sale_days=(SALE,))


def rows(simulation: Simulation, day: int, block: int = 0) -> dict[str, np.ndarray]:
    chunk = simulation.chunk(day, block)
    return {field.name: getattr(chunk, field.name) for field in fields(DayChunk)}


def same(one: dict[str, np.ndarray], two: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(one[name], two[name]) for name in one)


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return Simulation(PLAN)


@pytest.fixture(scope="module")
def chunks(simulation) -> list[DayChunk]:
    return [chunk for day in range(PLAN.days) for chunk in simulation.chunks(day)]


def test_the_same_seed_gives_the_same_rows(simulation):
    assert same(rows(simulation, 3), rows(Simulation(PLAN), 3))


def test_another_seed_gives_other_rows(simulation):
    other = Simulation(PLAN.model_copy(update={"seed": 8}))
    assert not same(rows(simulation, 3), rows(other, 3))


def test_days_and_blocks_do_not_depend_on_their_order():
    plan = SimulationPlan(users=BLOCK_USERS + 50, items=200, days=3, visits_per_user_day=0.3)
    forwards, backwards = Simulation(plan), Simulation(plan)
    assert forwards.blocks == 2
    places = [(day, block) for day in range(3) for block in range(2)]
    first = {place: rows(forwards, *place) for place in places}
    second = {place: rows(backwards, *place) for place in reversed(places)}
    assert all(same(first[place], second[place]) for place in places)
    assert not same(first[0, 0], first[1, 0])


def test_the_last_block_holds_the_users_that_are_left():
    plan = SimulationPlan(users=BLOCK_USERS + 50, items=200, days=2)
    catalogue = Catalogue.of(plan)
    first, last = (UserBlock.of(plan, catalogue, number) for number in (0, 1))
    assert first.user_ids.tolist() == list(range(1, BLOCK_USERS + 1))
    assert last.user_ids.tolist() == list(range(BLOCK_USERS + 1, BLOCK_USERS + 51))
    # Blocks of one size hold other people, too.
    plan = SimulationPlan(users=2 * BLOCK_USERS, items=200, days=2)
    first, second = (UserBlock.of(plan, catalogue, number) for number in (0, 1))
    assert not np.array_equal(first.weights, second.weights)


@given(
    items=st.integers(100, 3000),
    seed=st.integers(0, 2**63 - 1),
    zone=st.sampled_from(["UTC", "America/New_York", "Asia/Shanghai"]),
    first_day=st.dates(date(2020, 1, 1), date(2030, 1, 1)),
)
@settings(max_examples=30, deadline=None)
def test_every_row_is_of_its_day_and_ids_are_of_the_plan(items, seed, zone, first_day):
    plan = SimulationPlan(
        users=40, items=items, days=2, seed=seed, time_zone=zone, first_day=first_day,
        sale_days=(first_day,),
    )  # fmt: skip
    for day in range(2):
        start, end = plan.day_interval_ms(day)
        chunk = Simulation(plan).chunk(day, 0)
        for times in (chunk.log_times_ms, chunk.impression_times_ms):
            assert ((times >= start) & (times < end)).all()
            assert (np.diff(times) >= 0).all()
        for users in (chunk.user_ids, chunk.impression_user_ids):
            assert ((users >= 1) & (users <= 40)).all()
        for ids in (chunk.item_ids, chunk.impression_item_ids):
            assert ((ids >= 1) & (ids <= items)).all()
        assert ((chunk.behaviors >= 0) & (chunk.behaviors < len(BEHAVIORS))).all()
        assert ((chunk.click_probability > 0) & (chunk.click_probability < 1)).all()


@given(items=st.integers(100, 50_000))
@settings(max_examples=30, deadline=None)
def test_every_item_has_one_category_of_at_least_two_items(items):
    catalogue = Catalogue.of(SimulationPlan(items=items))
    sizes = np.diff(catalogue.category_starts)
    assert sizes.sum() == items
    assert sizes.min() >= 2
    assert np.array_equal(np.bincount(catalogue.category_of_row), sizes)
    assert np.array_equal(np.sort(catalogue.item_ids), np.arange(1, items + 1))
    assert catalogue.categories % INTERESTS == 0


def test_the_tables_have_their_schemas(simulation):
    chunk = simulation.chunk(3, 0)
    assert behaviors_table(chunk).schema == SIMULATED_BEHAVIORS
    assert impressions_table(chunk).schema == SIMULATED_IMPRESSIONS
    behaviors_table(chunk).validate(full=True)
    assert set(behaviors_table(chunk)["behavior"].unique().to_pylist()) == set(BEHAVIORS)


def test_every_clicked_impression_becomes_a_click_within_three_seconds(chunks):
    for chunk in chunks:
        clicks = chunk.behaviors == BEHAVIORS.index("click")
        places = set(zip(chunk.user_ids[clicks], chunk.item_ids[clicks], strict=True))
        for at in np.flatnonzero(chunk.clicked):
            user, item = chunk.impression_user_ids[at], chunk.impression_item_ids[at]
            assert (user, item) in places
            mine = clicks & (chunk.user_ids == user) & (chunk.item_ids == item)
            delay = chunk.log_times_ms[mine] - chunk.impression_times_ms[at]
            assert ((delay >= 1000) & (delay < 3000)).any()


def test_carts_favourites_and_buys_follow_a_click_on_the_item(chunks):
    chunk = chunks[2]
    click, cart, favourite, buy = (chunk.behaviors == code for code in range(4))
    assert click.sum() > cart.sum() > buy.sum() > 0
    assert favourite.sum() > 0
    for later, delay_ms in ((cart, 8_000), (favourite, 8_000), (buy, 30_000)):
        clicked_at = set(
            zip(
                chunk.user_ids[click],
                chunk.item_ids[click],
                chunk.log_times_ms[click] + delay_ms,
                strict=True,
            )
        )
        follow = zip(
            chunk.user_ids[later], chunk.item_ids[later], chunk.log_times_ms[later], strict=True
        )
        assert set(follow) <= clicked_at


def test_clicks_are_as_frequent_as_their_probability(chunks):
    probability = np.concatenate([chunk.click_probability for chunk in chunks]).astype(float)
    clicked = np.concatenate([chunk.clicked for chunk in chunks])
    for low, high in ((0.0, 0.1), (0.1, 0.3), (0.3, 0.6), (0.6, 1.0)):
        chosen = (probability >= low) & (probability < high)
        deviation = np.sqrt((probability[chosen] * (1 - probability[chosen])).sum())
        assert abs(clicked[chosen].sum() - probability[chosen].sum()) < 4 * deviation


def test_popularity_within_a_category_is_that_of_zipf(simulation):
    catalogue = simulation.catalogue
    start, size = catalogue.category_starts[3], np.diff(catalogue.category_starts)[3]
    draws = catalogue.popular_rows(np.random.default_rng(1), np.full(50_000, 3)) - start
    shares = np.bincount(draws, minlength=size) / len(draws)
    ranks = np.arange(1, size + 1)
    expected = (np.log(ranks + 1) - np.log(ranks)) / np.log(size + 1)
    assert shares == pytest.approx(expected, abs=0.01)


def test_popularity_is_skewed(chunks):
    items = np.concatenate([chunk.item_ids for chunk in chunks])
    counts = np.sort(np.bincount(items, minlength=PLAN.items + 1)[1:])[::-1]
    assert counts[: PLAN.items // 10].sum() > 0.25 * counts.sum()


def test_visits_are_short_and_on_one_or_two_topics(simulation):
    block = UserBlock.of(PLAN, simulation.catalogue, 0)
    strengths = block.strengths(5)
    shares = np.sort(strengths / strengths.sum(axis=1, keepdims=True), axis=1)[:, ::-1]
    # The two strongest of eight interests get three quarters of a day's visits.
    assert shares[:, :2].sum(axis=1).mean() > 0.75
    # And they are others a month later.
    later = block.strengths(35)
    assert (strengths.argmax(axis=1) != later.argmax(axis=1)).mean() > 0.6


def test_an_interest_comes_back(simulation):
    block = UserBlock.of(PLAN, simulation.catalogue, 0)
    waves = np.stack([block.strengths(day) / block.weights for day in range(120)])
    awake = waves > 0.5
    assert 0.15 < awake.mean() < 0.25
    wakes = (awake[1:] & ~awake[:-1]).sum(axis=0)
    assert (wakes >= 1).all()
    assert (wakes >= 2).mean() > 0.8


def test_the_style_of_what_is_clicked_is_to_the_users_taste(simulation, chunks):
    catalogue = simulation.catalogue
    block = UserBlock.of(PLAN, catalogue, 0)
    row_of_item = np.empty(PLAN.items + 1, dtype=np.int64)
    row_of_item[catalogue.item_ids] = np.arange(PLAN.items)
    chunk = chunks[0]
    taste = block.taste[chunk.user_ids - 1]
    styles = catalogue.styles[row_of_item[chunk.item_ids]]
    match = (taste * styles).sum(axis=1)
    strangers = (taste[::-1] * styles).sum(axis=1)
    assert match.mean() > strangers.mean() + 0.3


def test_on_a_sale_day_behaviour_is_unlike_the_user(simulation, chunks):
    catalogue = simulation.catalogue
    block = UserBlock.of(PLAN, catalogue, 0)
    sale = (SALE - PLAN.first_day).days

    def interest_share(chunk: DayChunk) -> float:
        weight = block.long_term_weight(chunk.user_ids - 1, chunk.category_ids - 1)
        return float((weight > 0).mean())

    # Drawn at random an item is of an interest in 8 of 16 categories.
    ordinary, bargains = interest_share(chunks[sale - 1]), interest_share(chunks[sale])
    assert catalogue.categories == 16
    assert ordinary > 0.9
    assert 0.3 < bargains < 0.7
    # Many more behaviours, of few items.
    assert len(chunks[sale].user_ids) > 2 * len(chunks[sale - 1].user_ids)
    assert len(np.unique(chunks[sale].item_ids)) <= PLAN.items // 20
    # The probability of a click is the item's: one for each item, whoever looks.
    pairs = np.stack([chunks[sale].impression_item_ids, chunks[sale].click_probability])
    assert np.unique(pairs, axis=1).shape[1] == len(np.unique(chunks[sale].impression_item_ids))


def test_late_events_and_fast_clocks_stay_within_the_parsers_limits():
    plan = PLAN.model_copy(update={"late_share": 0.3})
    chunk = Simulation(plan).chunk(4, 0)
    on_time = Simulation(PLAN).chunk(4, 0)
    assert np.array_equal(chunk.log_times_ms, on_time.log_times_ms)
    assert np.array_equal(on_time.event_times_ms, on_time.log_times_ms)
    ahead_ms = chunk.event_times_ms - chunk.log_times_ms
    assert 0.25 < (ahead_ms != 0).mean() < 0.35
    limits = LogSettings()
    assert 0 < ahead_ms.max() <= limits.max_clock_skew_seconds * 1000
    assert -limits.max_event_age_days * 86_400_000 < ahead_ms.min() < -3_600_000


def test_payloads_are_the_events_of_the_wire_in_log_time_order():
    plan = SimulationPlan(users=BLOCK_USERS + 10, items=200, days=2, visits_per_user_day=0.2)
    batches = list(Simulation(plan).payload_batches(1000))
    assert {len(batch.payloads) for batch in batches[:2]} == {1000}
    times = np.concatenate([batch.log_times_ms for batch in batches])
    assert (np.diff(times) >= 0).all()
    simulation = Simulation(plan)
    total = sum(len(c.user_ids) for day in range(2) for c in simulation.chunks(day))
    assert sum(len(batch.payloads) for batch in batches) == total
    event = msgspec.json.decode(batches[0].payloads[0])
    assert list(event) == ["user_id", "item_id", "category_id", "behavior", "event_time"]
    assert event["user_id"] == batches[0].user_ids[0]
    assert event["event_time"] == batches[0].log_times_ms[0]
    assert event["behavior"] in BEHAVIORS


def test_the_parser_accepts_every_payload_late_ones_too():
    plan = PLAN.model_copy(update={"late_share": 0.5})
    parser = EventParser(LogSettings())
    for batch in Simulation(plan).payload_batches(5000, first_day=2, last_day=3):
        parsed = parser.parse(batch.payloads, batch.log_times_ms)
        assert parsed.reasons == [None] * len(batch.payloads)
        assert np.array_equal(parsed.user_ids, batch.user_ids)


def test_a_plan_by_size_gives_about_so_many_rows():
    simulation = Simulation(SimulationPlan.sized(60_000, 15_000, days=30))
    chunks = [chunk for day in range(30) for chunk in simulation.chunks(day)]
    assert sum(len(c.user_ids) for c in chunks) == pytest.approx(60_000, rel=0.1)
    assert sum(len(c.clicked) for c in chunks) == pytest.approx(15_000, rel=0.1)


def test_the_best_auc_of_four_impressions():
    best = BestAuc()
    best.add(np.array([0.9, 0.1], np.float32), np.array([True, False]))
    best.add(np.array([0.4, 0.6], np.float32), np.array([True, False]))
    # Pairs: 0.9 > 0.1, 0.9 > 0.6, 0.4 > 0.1; 0.4 < 0.6.
    assert best.auc() == 0.75
    assert (best.impressions, best.clicks) == (4, 2)


def test_ties_count_half_and_one_kind_alone_has_no_auc():
    best = BestAuc()
    best.add(np.array([0.5, 1.0], np.float32), np.array([True, True]))
    assert best.auc() is None
    best.add(np.array([0.5], np.float32), np.array([False]))
    assert best.auc() == 0.75


@given(st.lists(st.tuples(st.integers(0, 1000), st.booleans()), min_size=2, max_size=60))
def test_the_best_auc_is_the_share_of_pairs_in_order(draws):
    probabilities = np.array([p / 1000 for p, _ in draws], np.float32)
    clicked = np.array([c for _, c in draws])
    best = BestAuc()
    best.add(probabilities, clicked)
    wins = [(p > q) + (p == q) / 2 for p in probabilities[clicked] for q in probabilities[~clicked]]
    assert best.auc() == (pytest.approx(np.mean(wins)) if wins else None)


def test_memory_does_not_grow_with_the_days():
    def peak(days: int) -> int:
        simulation = Simulation(SimulationPlan(users=3000, items=500, days=days))
        tracemalloc.start()
        try:
            for day in range(days):
                for chunk in simulation.chunks(day):
                    behaviors_table(chunk)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(2)  # what the first use of a library keeps is not the days'
    assert peak(16) < 1.3 * peak(4)
