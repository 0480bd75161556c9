"""One block of users on one day: behaviours and impressions by log time, as arrays."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from uic.pipelines.simulator.features import SimulatedFeatures
from uic.pipelines.simulator.impressions import Impressions, impression_clicks, impressions
from uic.pipelines.simulator.plan import SIGNALS, SimulationPlan
from uic.pipelines.simulator.signals.own_acts import OwnActs
from uic.pipelines.simulator.signals.shown import Mind
from uic.pipelines.simulator.visits import (
    Acts,
    Bargains,
    bargain_clicks,
    interest_topics,
    joined,
    topic_clicks,
    visits_of_day,
    with_funnel,
)
from uic.pipelines.simulator.world import (
    Catalogue,
    Floats,
    Ints,
    Purpose,
    UserBlock,
    random_stream,
    uniform,
)

# Late events were made up to six hours before the log got them; fast clocks run up to four
# minutes ahead: both inside the parser's default limits (7 days, 300 seconds).
_LATE_MS: Final = 6 * 3_600_000
FAST_MS: Final = 240_000
_FAST_PART_OF_LATE: Final = 0.2
# What there is to know of an impression: that its item is good, what the user likes for long, the
# features of both, and each signal.
KNOWLEDGE: Final = ("items", "interests", "features", *SIGNALS)


@dataclass(frozen=True)
class DayChunk:
    """The behaviours and impressions of one block on one day, each by log time.

    Args:
        user_ids, item_ids, category_ids: (behaviours,), int64.
        behaviors: (behaviours,), int8, index into `uic.pipelines.log.schemas.BEHAVIORS`.
        event_times_ms, log_times_ms: (behaviours,), int64.
        impression_user_ids, …_item_ids, …_category_ids, …_times_ms: (impressions,), int64.
        clicked: (impressions,), bool.
        click_probability: (impressions,), float32: the probability `clicked` was drawn with.
        unaided_probability: (impressions,), float32: the same without what features say.
        positions: (impressions,), int64, where each was shown; None without features.
        odds: (impressions,), float32, the log-odds of `click_probability`.
        parts: (impressions, KNOWLEDGE), float32: what each of `KNOWLEDGE` adds to `odds`.
    """

    user_ids: Ints
    item_ids: Ints
    category_ids: Ints
    behaviors: NDArray[np.int8]
    event_times_ms: Ints
    log_times_ms: Ints
    impression_user_ids: Ints
    impression_item_ids: Ints
    impression_category_ids: Ints
    impression_times_ms: Ints
    clicked: NDArray[np.bool_]
    click_probability: Floats
    unaided_probability: Floats
    positions: Ints | None
    odds: Floats
    parts: Floats


def day_chunk(
    plan: SimulationPlan,
    catalogue: Catalogue,
    block: UserBlock,
    day: int,
    bargains: Bargains | None,
    *,
    features: SimulatedFeatures | None = None,
) -> DayChunk:
    """Simulate one block on one day without signals; `bargains` on a sale day, else None."""
    stream = random_stream(plan.seed, block.number, day, Purpose.DAY)
    catalogue = catalogue.on(day)
    sale = bargains is not None
    visits = visits_of_day(plan, block, stream, day, sale=sale)
    strengths = block.strengths(day)
    if bargains is None:
        topics = interest_topics(block, strengths, visits, stream)
        clicks = topic_clicks(catalogue, block, topics, visits, stream)
    else:
        clicks = bargain_clicks(bargains, visits, stream)
    shown = impressions(
        plan,
        catalogue,
        block,
        strengths=strengths,
        visits=visits,
        bargains=bargains,
        stream=stream,
        features=None if features is None else features.on(plan, block, day),
        mind=None,
    )
    clicks = joined(clicks, impression_clicks(shown, stream))
    acts, codes = with_funnel(clicks, stream, sale=sale)
    return _chunk(catalogue, block, _Done.of(plan, acts, codes, stream), shown)


def signal_day_chunk(
    own: OwnActs,
    mind: Mind,
    bargains: Bargains | None,
    *,
    features: SimulatedFeatures | None = None,
) -> DayChunk:
    """Simulate what is shown to one block on a day, and put it beside what it does anyway."""
    plan, catalogue = mind.scene.rules.plan, mind.scene.catalogue
    block, day = mind.scene.block, mind.scene.day
    stream = random_stream(plan.seed, block.number, day, Purpose.SHOWN)
    shown = impressions(
        plan,
        catalogue,
        block,
        strengths=block.strengths(day),
        visits=own.visits,
        bargains=bargains,
        stream=stream,
        features=None if features is None else features.on(plan, block, day),
        mind=mind,
    )
    # No buys: what a user owns is decided by what they do of their own accord.
    sale = bargains is not None
    echo, codes = with_funnel(impression_clicks(shown, stream), stream, sale=sale, buys=False)
    acts, behaviors = joined(own.acts, echo), np.concatenate([own.behaviors, codes])
    return _chunk(catalogue, block, _Done.of(plan, acts, behaviors, stream), shown)


@dataclass(frozen=True)
class _Done:
    """What was done, by log time; `event_times_ms` is what clocks said."""

    acts: Acts
    behaviors: NDArray[np.int8]
    event_times_ms: Ints

    @classmethod
    def of(
        cls,
        plan: SimulationPlan,
        acts: Acts,
        behaviors: NDArray[np.int8],
        stream: np.random.Generator,
    ) -> "_Done":
        order = np.argsort(acts.times_ms, kind="stable")
        acts = Acts(acts.users[order], acts.rows[order], acts.times_ms[order])
        return cls(acts, behaviors[order], _event_times(plan, acts.times_ms, stream))


def _chunk(catalogue: Catalogue, block: UserBlock, done: _Done, shown: Impressions) -> DayChunk:
    """What was done and what was shown, with ids for places."""
    rows = done.acts.rows
    shown_order = np.argsort(shown.acts.times_ms, kind="stable")
    shown_rows = shown.acts.rows[shown_order]
    nothing = np.zeros(len(shown_rows), dtype=np.float32)
    parts = np.stack([shown.parts.get(name, nothing) for name in KNOWLEDGE], axis=1)
    return DayChunk(
        user_ids=block.user_ids[done.acts.users],
        item_ids=catalogue.item_ids[rows],
        category_ids=catalogue.category_of_row[rows] + 1,
        behaviors=done.behaviors,
        event_times_ms=done.event_times_ms,
        log_times_ms=done.acts.times_ms,
        impression_user_ids=block.user_ids[shown.acts.users[shown_order]],
        impression_item_ids=catalogue.item_ids[shown_rows],
        impression_category_ids=catalogue.category_of_row[shown_rows] + 1,
        impression_times_ms=shown.acts.times_ms[shown_order],
        clicked=shown.clicked[shown_order],
        click_probability=shown.probability[shown_order],
        unaided_probability=shown.unaided[shown_order],
        positions=None if shown.positions is None else shown.positions[shown_order],
        odds=shown.odds[shown_order],
        parts=parts[shown_order],
    )


def _event_times(plan: SimulationPlan, log_times_ms: Ints, stream: np.random.Generator) -> Ints:
    """Event times: the log time, but for a `late_share` of late arrivals and fast clocks."""
    if plan.late_share == 0:
        return log_times_ms
    count = len(log_times_ms)
    odd = uniform(stream, count) < plan.late_share
    fast = uniform(stream, count) < _FAST_PART_OF_LATE
    amount = stream.random(count)
    shift_ms = np.where(fast, amount * FAST_MS, -amount * _LATE_MS).astype(np.int64)
    event_times_ms: Ints = log_times_ms + np.where(odd, shift_ms, 0)
    return event_times_ms
