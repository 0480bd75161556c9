"""What the users of a block do of their own accord on a day, shown or not, with signals on.

It is a function of (plan, block, day): no day before it is needed. Topics of visits are drawn by
interest, as without signals, then some of them are turned: to an intent of the moment, to where the
user's chain is, or, in the week before a silence, to the interest that the user will come back to.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from uic.pipelines.simulator.signals.rules import BlockDay
from uic.pipelines.simulator.visits import (
    BUY,
    CART,
    CLICK,
    Acts,
    Bargains,
    Visits,
    bargain_clicks,
    interest_topics,
    joined,
    topic_clicks,
    visits_of_day,
    with_funnel,
)
from uic.pipelines.simulator.world import Ints, Purpose, random_stream, uniform

# Shares of visits: with a passing intent, and on the chain; in the week before a silence, on the
# interest that the user comes back to.
_INTENT_SHARE, _CHAIN_SHARE, _LAST_WEEK_SHARE = 0.25, 0.3, 0.6
# Seconds after the click on something durable: into the cart, and bought.
_CART_MS, _BUY_MS = 8_000, 30_000
# A purchase begins an hour before the day ends or earlier, so that it does not leave its day.
_PURCHASE_SPAN_MS: Final = 3_600_000


@dataclass(frozen=True)
class OwnActs:
    """A day of a block.

    Args:
        visits: in which things are shown, too.
        acts: user of the block, row of the item, time; unordered.
        behaviors: (acts,), int8, index into `uic.pipelines.log.schemas.BEHAVIORS`.
        counted: whether signals follow from it: not from what is done on a sale day.
    """

    visits: Visits
    acts: Acts
    behaviors: NDArray[np.int8]
    counted: bool


def own_acts(scene: BlockDay, bargains: Bargains | None) -> OwnActs:
    """Draw what the users of a block do on a day; `bargains` on a sale day."""
    plan, block, catalogue = scene.rules.plan, scene.block, scene.catalogue
    stream = random_stream(plan.seed, block.number, scene.day, Purpose.OWN)
    visits = visits_of_day(plan, block, stream, scene.day, sale=bargains is not None)
    if scene.returns is not None:
        heard = ~scene.returns.silent[visits.users]
        visits = Visits(visits.users[heard], visits.starts_ms[heard], visits.clicks[heard])
    if bargains is not None:
        clicks = bargain_clicks(bargains, visits, stream)
        return OwnActs(visits, *with_funnel(clicks, stream, sale=True), counted=False)
    topics = interest_topics(block, block.strengths(scene.day), visits, stream)
    topics = _turned(scene, topics, visits.users, stream)
    clicks = topic_clicks(catalogue, block, topics, visits, stream)
    acts, behaviors = with_funnel(clicks, stream, sale=False)
    if plan.pair_gain:
        bought, codes = _purchases(scene, stream)
        acts, behaviors = joined(acts, bought), np.concatenate([behaviors, codes])
    return OwnActs(visits, acts, behaviors, counted=True)


def _turned(scene: BlockDay, topics: Ints, users: Ints, stream: np.random.Generator) -> Ints:
    """Topics of visits with what the signals make of them, (visits,), int64."""
    plan, draws = scene.rules.plan, uniform(stream, len(topics))
    if plan.session_gain:
        intents = scene.catalogue.popular_categories(stream, len(topics))
        topics = np.where(draws < _INTENT_SHARE, intents, topics)
    if plan.order_gain:
        chains = scene.rules.chain_categories(scene.block.user_ids, scene.day)
        topics = np.where(draws >= 1 - _CHAIN_SHARE, chains[users], topics)
    returns = scene.returns
    if returns is not None:
        last = returns.leaving[users] & (uniform(stream, len(topics)) < _LAST_WEEK_SHARE)
        topics = np.where(last, returns.categories[users], topics)
    return topics


def _purchases(scene: BlockDay, stream: np.random.Generator) -> tuple[Acts, NDArray[np.int8]]:
    """Something durable is looked at, put into the cart and bought."""
    users, categories = scene.rules.purchases(scene.block.user_ids, scene.day)
    if scene.returns is not None:
        heard = ~scene.returns.silent[users]
        users, categories = users[heard], categories[heard]
    rows = scene.catalogue.popular_rows(stream, categories)
    start_ms, end_ms = scene.rules.plan.day_interval_ms(scene.day)
    spans = end_ms - start_ms - _PURCHASE_SPAN_MS
    times_ms = start_ms + (stream.random(len(users)) * spans).astype(np.int64)
    times_ms = np.concatenate([times_ms, times_ms + _CART_MS, times_ms + _BUY_MS])
    codes = np.repeat(np.array([CLICK, CART, BUY], dtype=np.int8), len(users))
    return Acts(np.tile(users, 3), np.tile(rows, 3), times_ms), codes
