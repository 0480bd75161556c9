"""Visits and what is done in them: clicks on the topics of the day, and what clicks lead to.

Each visit has one topic, drawn by the strengths of the user's interests on that day, so a user's
recent visits show only the one or two interests that are awake. On a sale day there is no topic:
visits are many and go to bargains, drawn at random, the same for all users.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from uic.pipelines.simulator.plan import SimulationPlan
from uic.pipelines.simulator.world import (
    INTERESTS,
    Catalogue,
    Floats,
    Ints,
    Purpose,
    UserBlock,
    random_stream,
    uniform,
)

CLICK, CART, FAVOURITE, BUY = range(4)

# Visits: mean and largest number of clicks; seconds from one click to the next.
_MEAN_CLICKS: Final = 4
_MAX_CLICKS: Final = 20
CLICK_SECONDS: Final = 45
_JITTER_SECONDS: Final = 40
# A visit ends within an hour of its start, so that no event leaves its day.
_VISIT_MS: Final = 3_600_000
# Visits by hour: most at 0.85 of the day, a ninth of that half a day away.
_HOUR_AMPLITUDE: Final = 0.8
_PEAK_OF_DAY: Final = 0.85
# Clicks outside the topic, on whatever is popular.
_STRAY_SHARE: Final = 0.15
# Shares of clicks that are followed by a cart, a favourite; and of carts that become a buy.
_CART, _FAVOURITE, _BUY_OF_CARTS = 0.08, 0.04, 0.4
# Sale days: more visits, more carts, and a twentieth of the items are bargains.
_SALE_VISITS: Final = 3.0
_SALE_FUNNEL: Final = 2.0
_BARGAIN_SHARE: Final = 0.05
# How much the class of a photograph counts beside the style.
_LOOKS: Final = np.float32(1.5)


@dataclass(frozen=True)
class Visits:
    """The visits of a block on a day: user of the block, start, number of clicks."""

    users: Ints
    starts_ms: Ints
    clicks: Ints


@dataclass(frozen=True)
class Acts:
    """Things done, unordered: user of the block, row of the item, time."""

    users: Ints
    rows: Ints
    times_ms: Ints


@dataclass(frozen=True)
class Bargains:
    """What is on offer on one sale day: rows of items, and how deep each is cut."""

    rows: Ints
    depth: Floats

    @classmethod
    def on(cls, plan: SimulationPlan, catalogue: Catalogue, day: int) -> "Bargains | None":
        """The bargains of a sale day; None on another one."""
        return cls.of(plan, catalogue, day) if plan.day(day) in plan.sale_days else None

    @classmethod
    def of(cls, plan: SimulationPlan, catalogue: Catalogue, day: int) -> "Bargains":
        """Draw the bargains of a day, the same for all users."""
        stream = random_stream(plan.seed, 0, day, Purpose.BARGAINS)
        count = max(1, round(plan.items * _BARGAIN_SHARE))
        there = np.arange(len(catalogue.item_ids))
        if catalogue.gallery is not None:
            there = np.flatnonzero(catalogue.gallery.launch_day_of_row <= day)
        rows = stream.choice(there, min(count, len(there)), replace=False)
        return cls(rows.astype(np.int64), stream.standard_normal(len(rows), dtype=np.float32))


def visits_of_day(
    plan: SimulationPlan, block: UserBlock, stream: np.random.Generator, day: int, *, sale: bool
) -> Visits:
    """Draw the visits of a block on a day; more of them on a sale day."""
    gain = _SALE_VISITS if sale else 1.0
    counts = stream.poisson(block.activity * plan.visits_per_user_day * gain)
    users = np.repeat(np.arange(len(counts)), counts)
    start_ms, end_ms = plan.day_interval_ms(day)
    # u - a sin(2 pi u) / (2 pi) spends 1 - a cos(2 pi u) of the time at u, so it crowds at 0,
    # which is then turned to the peak of the day.
    draws = stream.random(len(users))
    crowded = draws - _HOUR_AMPLITUDE * np.sin(2 * np.pi * draws) / (2 * np.pi)
    part_of_day = (crowded + _PEAK_OF_DAY) % 1.0
    starts_ms = start_ms + (part_of_day * (end_ms - start_ms - _VISIT_MS)).astype(np.int64)
    clicks = np.minimum(stream.geometric(1 / _MEAN_CLICKS, len(users)), _MAX_CLICKS)
    return Visits(users, starts_ms, clicks)


def _click_times(visits: Visits, stream: np.random.Generator) -> tuple[Ints, Ints]:
    """For each click its visit, and its time."""
    visit = np.repeat(np.arange(len(visits.users)), visits.clicks)
    first = np.cumsum(visits.clicks) - visits.clicks
    place = np.arange(len(visit)) - first[visit]
    seconds = CLICK_SECONDS * place + _JITTER_SECONDS * uniform(stream, len(visit))
    return visit, visits.starts_ms[visit] + (seconds * 1000).astype(np.int64)


def interest_topics(
    block: UserBlock, strengths: Floats, visits: Visits, stream: np.random.Generator
) -> Ints:
    """One topic a visit, drawn by the strengths of interests: categories, (visits,), int64."""
    ladder = np.cumsum(strengths, axis=1)[visits.users]  # (visits, K)
    draws = uniform(stream, len(visits.users)) * ladder[:, -1]
    slots = np.minimum((ladder <= draws[:, None]).sum(axis=1), INTERESTS - 1)
    topics: Ints = block.interests[visits.users, slots]
    return topics


def topic_clicks(
    catalogue: Catalogue,
    block: UserBlock,
    topics: Ints,
    visits: Visits,
    stream: np.random.Generator,
) -> Acts:
    """Clicks on the topics of the visits, in the user's own style."""
    visit, times_ms = _click_times(visits, stream)
    users = visits.users[visit]
    stray = uniform(stream, len(visit)) < _STRAY_SHARE
    categories = np.where(stray, catalogue.popular_categories(stream, len(visit)), topics[visit])
    # Two popular items of the category are looked at, the one more to the user's taste clicked.
    one = catalogue.popular_rows(stream, categories)
    two = catalogue.popular_rows(stream, categories)
    second = style_match(catalogue, block, users, two) > style_match(catalogue, block, users, one)
    return Acts(users, np.where(second, two, one), times_ms)


def bargain_clicks(bargains: Bargains, visits: Visits, stream: np.random.Generator) -> Acts:
    """Clicks of a sale day: any bargain, the same for all users."""
    visit, times_ms = _click_times(visits, stream)
    rows = bargains.rows[stream.integers(len(bargains.rows), size=len(visit))]
    return Acts(visits.users[visit], rows, times_ms)


def style_match(catalogue: Catalogue, block: UserBlock, users: Ints, rows: Ints) -> Floats:
    """How well style and looks of each item fit the taste of each user, (users,), float32."""
    match: Floats = np.einsum("nd,nd->n", block.taste[users], catalogue.styles[rows])
    if catalogue.gallery is None:
        return match
    looks: Floats = block.class_taste[users, catalogue.gallery.class_of_row[rows]]
    return match + _LOOKS * looks


def joined(one: Acts, two: Acts) -> Acts:
    """One after the other."""
    return Acts(
        np.concatenate([one.users, two.users]),
        np.concatenate([one.rows, two.rows]),
        np.concatenate([one.times_ms, two.times_ms]),
    )


def with_funnel(
    clicks: Acts, stream: np.random.Generator, *, sale: bool, buys: bool = True
) -> tuple[Acts, NDArray[np.int8]]:
    """Clicks and what they lead to: carts, favourites, and `buys` of what is in the cart."""
    gain = _SALE_FUNNEL if sale else 1.0
    draws = uniform(stream, len(clicks.users)) / np.float32(gain)
    carts = np.flatnonzero(draws < _CART)
    favourites = np.flatnonzero((draws >= _CART) & (draws < _CART + _FAVOURITE))
    bought = np.flatnonzero(draws < (_CART * _BUY_OF_CARTS if buys else 0))
    sources = np.concatenate([np.arange(len(clicks.users)), carts, favourites, bought])
    counts = [len(clicks.users), len(carts), len(favourites), len(bought)]
    behaviors = np.repeat(np.array([CLICK, CART, FAVOURITE, BUY], dtype=np.int8), counts)
    # Seconds after the click: a cart or a favourite soon, a buy after the cart.
    delays_ms = np.repeat(np.array([0, 8_000, 8_000, 30_000]), counts)
    acts = Acts(clicks.users[sources], clicks.rows[sources], clicks.times_ms[sources] + delays_ms)
    return acts, behaviors
