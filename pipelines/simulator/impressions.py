"""Impressions: what is shown in visits, and the probability with which it is clicked.

The log-odds of a click are mostly the user's long-term weight of the item's category, awake or
dormant; then how well the item's style fits the user's taste, in any category; a little whether
the interest is awake; and the item's quality. On a sale day they depend on the item alone. With
features (`uic.pipelines.simulator.features`) these move the odds, too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from uic.pipelines.simulator.features import DayFeatures
from uic.pipelines.simulator.plan import SimulationPlan
from uic.pipelines.simulator.signals.shown import Mind, remembered_rows
from uic.pipelines.simulator.visits import CLICK_SECONDS, Acts, Bargains, Visits, style_match
from uic.pipelines.simulator.world import INTERESTS, Catalogue, Floats, Ints, UserBlock, uniform

# Impressions from the user's interests, awake or dormant; the rest is popular.
_INTEREST_SHARE: Final = 0.5
# With photographs: impressions of items that are new on the day, if there are any.
_ARRIVAL_SHARE: Final = 0.15
# Log-odds of a click: base, and the gain of each part.
_BASE, _LONG_TERM, _AWAKE, _STYLE, _QUALITY = -3.2, 3.2, 0.4, 0.8, 0.25
# Log-odds of every impression where interests move nothing: one click in six.
_EVEN: Final = -1.6
# Log-odds on a sale day: base, and the gain of how deep the price is cut.
_SALE_BASE, _SALE_DEPTH = -1.6, 0.5


@dataclass(frozen=True)
class Impressions:
    """What was shown, unordered.

    Args:
        acts: user of the block, row of the item, time.
        probability: (impressions,), float32, of a click.
        clicked: (impressions,), bool, drawn with `probability`.
        positions: (impressions,), int64, 1 to 10; None without features.
        unaided: (impressions,), float32, the probability without what features say.
        odds: (impressions,), float32, the log-odds of `probability`.
        parts: what each knowledge (`uic.pipelines.simulator.oracle`) adds to `odds`, each
            (impressions,), float32; what is left out adds nothing.
    """

    acts: Acts
    probability: Floats
    clicked: NDArray[np.bool_]
    positions: Ints | None
    unaided: Floats
    odds: Floats
    parts: Mapping[str, Floats]


def impressions(
    plan: SimulationPlan,
    catalogue: Catalogue,
    block: UserBlock,
    *,
    strengths: Floats,
    visits: Visits,
    bargains: Bargains | None,
    stream: np.random.Generator,
    features: DayFeatures | None,
    mind: Mind | None,
) -> Impressions:
    """Show items in the visits of a day and draw the clicks.

    Args:
        plan: what is simulated.
        catalogue: of the day.
        block: the users.
        strengths: of their interests on the day.
        visits: in which things are shown.
        bargains: on a sale day.
        stream: of random numbers.
        features: with features.
        mind: with signals.
    """
    per_visit = plan.impressions_per_user_day / plan.visits_per_user_day
    shown = np.repeat(np.arange(len(visits.users)), stream.poisson(per_visit, len(visits.users)))
    users = visits.users[shown]
    times_ms = None if mind is None else _times(visits, shown, stream)
    if bargains is None:
        rows = _candidates(catalogue, block, users, stream)
        if mind is not None and times_ms is not None:
            rows = remembered_rows(mind, users, times_ms, rows, stream)
        odds = _odds(catalogue, block, strengths, users, rows)
        items = np.float32(_QUALITY) * catalogue.quality[rows]
        if plan.interest_gain < 1:
            odds = _EVEN + plan.interest_gain * (odds - _EVEN)
            items = np.float32(plan.interest_gain) * items
        parts = {"items": items, "interests": odds - odds_of_none(plan) - items}
        if mind is not None and times_ms is not None:
            signals = mind.odds(users, rows, times_ms)
            odds, parts = odds + sum(signals.values()), parts | signals
    else:
        picks = stream.integers(len(bargains.rows), size=len(shown))
        rows = bargains.rows[picks]
        odds = _SALE_BASE + _SALE_DEPTH * bargains.depth[picks]
        parts = {"items": odds - np.float32(_SALE_BASE)}
    probability = unaided = _probability(odds)
    positions = None
    if features is not None:
        positions = features.positions(len(shown))
        if bargains is None:
            parts["features"] = features.odds(users, rows, positions)
            odds = odds + parts["features"]
            probability = _probability(odds.astype(np.float32))
    clicked = uniform(stream, len(shown)) < probability
    if times_ms is None:
        times_ms = _times(visits, shown, stream)
    acts = Acts(users, rows, times_ms)
    return Impressions(acts, probability, clicked, positions, unaided, odds, parts)


def odds_of_none(plan: SimulationPlan) -> float:
    """Log-odds of an item of average quality for a user who does not care for it."""
    return _EVEN + plan.interest_gain * (_BASE - _EVEN)


def _times(visits: Visits, shown: Ints, stream: np.random.Generator) -> Ints:
    """When each impression is shown: within its visit."""
    spans_ms = visits.clicks[shown] * (CLICK_SECONDS * 1000)
    return visits.starts_ms[shown] + (uniform(stream, len(shown)) * spans_ms).astype(np.int64)


def _probability(odds: Floats) -> Floats:
    chances: Floats = (1 / (1 + np.exp(-odds))).astype(np.float32)
    return chances


def impression_clicks(shown: Impressions, stream: np.random.Generator) -> Acts:
    """A clicked impression is a behaviour one to three seconds later."""
    users, rows = shown.acts.users[shown.clicked], shown.acts.rows[shown.clicked]
    delay_ms = stream.integers(1000, 3000, size=len(users))
    return Acts(users, rows, shown.acts.times_ms[shown.clicked] + delay_ms)


def _candidates(
    catalogue: Catalogue, block: UserBlock, users: Ints, stream: np.random.Generator
) -> Ints:
    """Rows of items to show: half from any interest, awake or dormant, half popular."""
    slots = stream.integers(INTERESTS, size=len(users))
    own = uniform(stream, len(users)) < _INTEREST_SHARE
    popular = catalogue.popular_categories(stream, len(users))
    rows = catalogue.popular_rows(stream, np.where(own, block.interests[users, slots], popular))
    if catalogue.gallery is None or catalogue.day is None:
        return rows
    return _with_arrivals(rows, catalogue.gallery.launched_on(catalogue.day), stream)


def _with_arrivals(rows: Ints, arrived: Ints, stream: np.random.Generator) -> Ints:
    """A share of what is shown is new on this day."""
    shown = uniform(stream, len(rows)) < _ARRIVAL_SHARE
    if not len(arrived):
        return rows
    return np.where(shown, arrived[stream.integers(len(arrived), size=len(rows))], rows)


def _odds(
    catalogue: Catalogue, block: UserBlock, strengths: Floats, users: Ints, rows: Ints
) -> Floats:
    """Log-odds of a click: mostly the long-term weight, then style, awakeness and quality."""
    categories = catalogue.category_of_row[rows]
    weight = block.long_term_weight(users, categories)
    awake = np.where(weight > 0, strengths[users, categories % INTERESTS], np.float32(0))
    odds: Floats = (
        _BASE
        + _LONG_TERM * weight
        + _AWAKE * awake
        + _STYLE * style_match(catalogue, block, users, rows)
        + _QUALITY * catalogue.quality[rows]
    )
    return odds
