"""Signals of the simulator: what each is worth, that it looks back only, and how it is drawn."""

import tracemalloc
from dataclasses import fields, replace
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uic.pipelines.log.event_log import EventLog
from uic.pipelines.settings import LogSettings
from uic.pipelines.simulator import (
    BestAuc,
    DayChunk,
    Simulation,
    SimulationPlan,
    SimulationPlanError,
    oracle_impressions,
)
from uic.pipelines.simulator.ceilings import EVERYTHING, Ceilings, knowledge_of
from uic.pipelines.simulator.days import KNOWLEDGE
from uic.pipelines.simulator.plan import SIGNALS
from uic.pipelines.simulator.signals.own_acts import OwnActs
from uic.pipelines.simulator.signals.past import Past
from uic.pipelines.simulator.signals.rules import Rules
from uic.pipelines.simulator.signals.shown import Mind
from uic.pipelines.simulator.visits import Acts
from uic.pipelines.simulator.world import BLOCK_USERS, Catalogue
from uic.pipelines.simulator.write import write_simulation

# What not knowing a signal costs at least, on the last days of a log that has it alone.
WORTH = {
    "order": 0.05, "session": 0.04, "ages": 0.03, "satiation": 0.03, "return": 0.025,
    "drift": 0.02, "pair": 0.05,
}  # fmt: skip
SALE = date(2025, 1, 31)


def plan_of(*signals: str, **fields: object) -> SimulationPlan:
    sizes = {"users": 400, "items": 1000, "days": 50, "impressions_per_user_day": 4.0}
    gains = {f"{name}_gain": 1.0 for name in signals}
    return SimulationPlan.of(**(sizes | gains | fields))


def last_days(plan: SimulationPlan, days: int = 10) -> list[DayChunk]:
    simulation = Simulation(plan)
    chunks = [chunk for day in range(plan.days) for chunk in simulation.chunks(day)]
    return chunks[-days * simulation.blocks :]


def losses(plan: SimulationPlan, chunks: list[DayChunk]) -> dict[str, float]:
    ceilings = Ceilings(plan)
    for chunk in chunks:
        ceilings.add(chunk)
    table = ceilings.table()
    return {name: table[EVERYTHING] - auc for name, auc in table.items()}


def auc(probability: np.ndarray, clicked: np.ndarray) -> float:
    best = BestAuc()
    best.add(probability, clicked)
    return best.auc()


def same(one: DayChunk, two: DayChunk) -> bool:
    names = [field.name for field in fields(DayChunk)]
    return all(np.array_equal(getattr(one, name), getattr(two, name)) for name in names)


@pytest.mark.parametrize("signal", SIGNALS)
def test_a_signal_is_worth_knowing_where_it_is_on_and_adds_nothing_where_it_is_off(signal):
    plan = plan_of(signal)
    chunks = last_days(plan)
    lost = losses(plan, chunks)
    assert lost[f"all but {signal}"] > WORTH[signal]
    assert knowledge_of(plan) == ("items", "interests", signal)
    for other in set(SIGNALS) - {signal}:
        assert not any(chunk.parts[:, KNOWLEDGE.index(other)].any() for chunk in chunks)
    clicked = np.concatenate([chunk.clicked for chunk in chunks])
    assert 0.1 < clicked.mean() < 0.3
    # It is shown on and off.
    part = np.concatenate([chunk.parts[:, KNOWLEDGE.index(signal)] for chunk in chunks])
    assert 0.05 < (part > (part.min() + part.max()) / 2).mean() < 0.95


def test_all_signals_together_are_each_worth_something():
    plan = plan_of(*SIGNALS, users=800)
    chunks = last_days(plan)
    lost = losses(plan, chunks)
    assert min(lost[f"all but {signal}"] for signal in SIGNALS) > 0.005
    assert lost["interests only"] > 0.12
    clicked = np.concatenate([chunk.clicked for chunk in chunks])
    assert 0.1 < clicked.mean() < 0.3


@pytest.mark.parametrize("preset", ["signals", "public"])
def test_a_preset_has_a_high_ceiling_that_interests_alone_are_far_below(preset):
    plan = SimulationPlan.preset(preset, users=600)
    chunks = last_days(plan)
    lost = losses(plan, chunks)
    assert lost["everything"] == 0
    assert 0.2 < lost["interests only"] < 0.3
    assert min(lost[f"all but {signal}"] for signal in plan.signals) > 0.007
    best = oracle_impressions(plan, plan.days - 10)
    assert auc(best.full, best.labels) > 0.88
    assert 0.1 < best.labels.mean() < 0.3


def test_the_preset_of_the_demo_is_of_order_and_sessions():
    plan = SimulationPlan.preset("sessions", users=300)
    lost = losses(plan, last_days(plan))
    assert plan.signals == ("order", "session")
    assert lost["everything"] == 0
    assert min(lost["all but order"], lost["all but session"]) > 0.05
    assert 0.15 < lost["interests only"] < 0.3


def test_without_signals_everything_is_interests_and_items():
    plan = plan_of()
    lost = losses(plan, last_days(plan))
    assert lost["interests only"] == 0
    assert lost["nothing of the user"] > 0.2
    assert set(lost) == {
        "everything", "all but items", "all but interests", "interests only",
        "nothing of the user",
    }  # fmt: skip


def test_the_parts_are_the_odds_of_the_probability():
    plan = plan_of(*SIGNALS, feature_gain=1.0, sale_days=(SALE,))
    chunks = last_days(plan, 25)
    for chunk in chunks:
        assert 1 / (1 + np.exp(-chunk.odds)) == pytest.approx(chunk.click_probability, abs=1e-6)
        base = chunk.odds - chunk.parts.sum(axis=1)
        assert base == pytest.approx(np.full(len(base), base[0]), abs=1e-4)


def test_days_and_blocks_of_a_log_with_signals_do_not_depend_on_their_order():
    plan = plan_of(
        *SIGNALS, users=BLOCK_USERS + 50, items=400, days=34, visits_per_user_day=0.3,
        impressions_per_user_day=1.0, late_share=0.1, sale_days=(date(2025, 1, 20),),
    )  # fmt: skip
    simulation = Simulation(plan)
    walk = {(day, block): c for day in range(34) for block, c in enumerate(simulation.chunks(day))}
    # Alone, backwards, and a jump ahead from a day that is kept.
    for places in ([(33, 1)], [(33, 0), (2, 0)], [(1, 1), (32, 1)], [(3, 0), (20, 0), (21, 0)]):
        other = Simulation(plan)
        assert all(same(other.chunk(*place), walk[place]) for place in places)


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_every_row_is_of_its_day_also_where_an_hour_is_left_out(zone):
    # In New York the clock goes forward on 9 March and back on 2 November.
    for first_day in (date(2025, 3, 8), date(2025, 11, 1)):
        plan = plan_of(*SIGNALS, users=300, days=3, time_zone=zone, first_day=first_day)
        for day in range(plan.days):
            start, end = plan.day_interval_ms(day)
            chunk = Simulation(plan).chunk(day, 0)
            for times in (chunk.log_times_ms, chunk.impression_times_ms):
                assert ((times >= start) & (times < end)).all()
                assert (np.diff(times) >= 0).all()


@pytest.fixture(scope="module")
def busy() -> tuple[Simulation, OwnActs, Mind]:
    """A day of a log with all signals, its own acts and what its users have in mind."""
    simulation = Simulation(plan_of(*SIGNALS, visits_per_user_day=6.0))
    block = simulation._users(0)
    own, mind = simulation.recollection.on(block, 45)
    return simulation, own, mind


def cut(own: OwnActs, kept: np.ndarray) -> OwnActs:
    acts = Acts(own.acts.users[kept], own.acts.rows[kept], own.acts.times_ms[kept])
    return replace(own, acts=acts, behaviors=own.behaviors[kept])


def asked(simulation: Simulation, chunk: DayChunk) -> tuple[np.ndarray, np.ndarray]:
    row_of_item = np.empty(simulation.plan.items + 1, dtype=np.int64)
    row_of_item[simulation.catalogue.item_ids] = np.arange(simulation.plan.items)
    return chunk.impression_user_ids - 1, row_of_item[chunk.impression_item_ids]


def test_nothing_after_an_impression_changes_its_probability(busy):
    simulation, own, mind = busy
    chunk = simulation.chunk(45, 0)
    users, rows = asked(simulation, chunk)
    changed = 0
    for at in np.linspace(0, len(users) - 1, 40).astype(int):
        time = chunk.impression_times_ms[at : at + 1]
        place = users[at : at + 1], rows[at : at + 1], time
        whole = mind.odds(*place)
        before = own.acts.times_ms < time
        strictly = Mind.of(mind.scene, mind.past, cut(own, before)).odds(*place)
        assert strictly == whole
        nothing = Mind.of(mind.scene, Past.none(45), cut(own, ~before)).odds(*place)
        changed += nothing != whole
        for name, part in whole.items():
            assert part == chunk.parts[at : at + 1, KNOWLEDGE.index(name)]
    assert changed > 30


def test_what_was_done_at_the_very_time_is_not_before_it(busy):
    _, own, mind = busy
    click = np.flatnonzero(own.behaviors == 0)[:1]
    place = own.acts.users[click], own.acts.rows[click]
    at, after = (mind.odds(*place, own.acts.times_ms[click] + late) for late in (0, 1))
    assert after["session"] > at["session"]


def test_what_is_done_on_a_sale_day_is_not_remembered():
    plan = plan_of("session", "pair", "satiation", sale_days=(SALE,))
    simulation = Simulation(plan)
    day = (SALE - plan.first_day).days
    block = simulation._users(0)
    own, _ = simulation.recollection.on(block, day)
    _, later = simulation.recollection.on(block, day + 1)
    assert len(own.acts.users) > 0
    assert (
        max(last.times_ms.max() for last in later.past.last.values()) < plan.day_interval_ms(day)[0]
    )


def test_the_oracle_has_the_impressions_of_the_log():
    plan = plan_of("order", "session", days=12)
    known = oracle_impressions(plan, first_day=9, last_day=10)
    simulation = Simulation(plan)
    chunks = [chunk for day in (9, 10) for chunk in simulation.chunks(day)]
    assert np.array_equal(known.full, np.concatenate([c.click_probability for c in chunks]))
    assert np.array_equal(known.labels, np.concatenate([c.clicked for c in chunks]))
    assert set(known.without) == {"items", "interests", "order", "session"}
    assert not np.array_equal(known.without["order"], known.without["session"])


def test_the_oracle_of_a_manifest_is_that_of_its_log(tmp_path):
    plan = plan_of(*SIGNALS, users=100, days=34, sale_days=(SALE,), feature_gain=1.0)
    log = EventLog(tmp_path / "log")
    write_simulation(plan, log, LogSettings())
    again = SimulationPlan.of(**log.manifests()[0]["details"]["plan"])
    known = oracle_impressions(again, first_day=20)
    shown = pa.concat_tables(pq.read_table(file.path) for file in log.impression_files()[20:])
    written = [
        shown[name].cast(pa.int64()).to_numpy() for name in ("user_id", "item_id", "event_time")
    ]
    by_log = np.lexsort(written)
    by_oracle = np.lexsort([known.user_ids, known.item_ids, known.times_ms])
    assert np.array_equal(shown["click_probability"].to_numpy()[by_log], known.full[by_oracle])
    assert np.array_equal(shown["clicked"].to_numpy()[by_log], known.labels[by_oracle])


def test_what_is_new_is_popular_and_grows_old():
    plan = plan_of("drift", users=1000)
    simulation = Simulation(plan)
    rules, catalogue = simulation.recollection.rules, simulation.catalogue
    clicks = {}
    for day in (0, 49):
        chunk = simulation.chunk(day, 0)
        newest = rules.catalogue_on(catalogue, day).newest
        ids = catalogue.item_ids[catalogue.category_starts[:-1] + newest]
        clicks[day] = np.isin(chunk.item_ids, ids).mean()
        clicks[day, "later"] = np.isin(simulation.chunk(49 - day, 0).item_ids, ids).mean()
    for day in (0, 49):
        assert clicks[day] > 2 * clicks[day, "later"]


@pytest.mark.parametrize("items", [100, 600, 2000, 30_000])
def test_rules_say_nothing_of_a_category_alone(items):
    plan = plan_of(*SIGNALS, items=items)
    catalogue = Catalogue.of(plan)
    rules = Rules.of(plan, catalogue)
    places = np.arange(catalogue.categories)
    assert np.array_equal(np.sort(rules.successors), places)
    assert (rules.successors != places).all()
    assert np.array_equal(rules.successors[rules.predecessors], places)
    # Each category goes with half of the durables.
    assert not rules.signs.sum(axis=0).any()
    assert set(np.unique(rules.signs)) == {-1, 1}
    assert rules.first_durable == catalogue.categories - len(rules.signs)


def test_a_user_is_silent_after_a_week_on_what_they_come_back_to():
    plan = plan_of("return", days=120)
    simulation = Simulation(plan)
    block = simulation._users(0)
    days = [simulation.recollection.rules.returns(block, day) for day in range(plan.days)]
    active = [np.unique(c.user_ids) - 1 for d in range(plan.days) for c in simulation.chunks(d)]
    back = {}
    for day, (found, users) in enumerate(zip(days, active, strict=True)):
        assert not found.silent[users].any()
        for user in np.flatnonzero(found.returning):
            back.setdefault(user, []).append((day, found.categories[user]))
    assert len(back) > 300
    for user, times in back.items():
        day, category = times[0]
        left = max(d for d in range(day) if days[d].leaving[user])
        assert days[left].categories[user] == category
        assert all(days[d].silent[user] for d in range(left + 1, day))


def test_the_past_takes_no_more_memory_than_its_days():
    def peak(days: int) -> int:
        simulation = Simulation(plan_of(*SIGNALS, users=1000, days=days))
        tracemalloc.start()
        try:
            for day in range(days):
                for _ in simulation.chunks(day):
                    pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(2)  # what the first use of a library keeps is not the days'
    assert peak(64) < 1.2 * peak(32)


def test_photographs_and_drift_do_not_go_together():
    with pytest.raises(SimulationPlanError, match="drift_gain does not go with photographs"):
        plan_of("drift", photographs=(10,))
