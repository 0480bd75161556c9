"""What is shown with signals on, and what each signal adds to the log-odds of a click.

Half of the impressions are as without signals: of the user's interests or popular. The others are
drawn so that each signal has some for which it is on and some for which it is off: of a category
that the user clicked (lately or weeks ago), of what follows on one, of what was bought, and, after
a silence, of what the user comes back to.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from uic.pipelines.simulator.signals.last_seen import Moments
from uic.pipelines.simulator.signals.own_acts import OwnActs
from uic.pipelines.simulator.signals.past import MEMORY_DAYS, Past, Trace, keys_of
from uic.pipelines.simulator.signals.rules import DAY_MS, BlockDay, freshness
from uic.pipelines.simulator.world import Floats, Ints, uniform

# Shares of impressions: what was clicked last, clicked at any time, follows on these, was bought;
# and, of a user who has come back, what they come back to.
_LATEST, _CLICKED, _AFTER, _BOUGHT, _RETURN = 0.1, 0.12, 0.16, 0.12, 0.2
# Of those that were clicked or bought, the very item.
_SAME_ITEM: Final = 0.3
# What follows is that of the latest click, or of any.
_LATEST_LEADS: Final = 0.5
# Log-odds of a click, at the most.
_ORDER, _SESSION, _AGES, _SATED, _OWNED, _BACK = 2.8, 2.8, 2.4, 2.4, 1.6, 2.8
_FASHION, _FRESH, _PAIR = 0.8, 1.2, 1.2
# What a signal adds to a click's log-odds on average, about, taken off so that clicks stay as
# frequent as without it.
_MEANS: Final = {
    "order": 0.35, "session": 0.3, "ages": 0.8, "satiation": -0.4, "return": 0.2, "drift": 0.55,
    "pair": 0.0,
}  # fmt: skip
_SESSION_MS: Final = 10 * 60_000
_ORDER_MS, _ORDER_DAYS = 1.5 * DAY_MS, 3
_MEMORY_MS: Final = MEMORY_DAYS * DAY_MS


@dataclass(frozen=True)
class Mind:
    """What the users of a block have in mind on a day.

    Args:
        scene: the users and the day.
        past: before the day.
        traces: of the past and the day itself.
    """

    scene: BlockDay
    past: Past
    traces: Mapping[Trace, Moments]

    @classmethod
    def of(cls, scene: BlockDay, past: Past, own: OwnActs) -> "Mind":
        """Sort the day's acts by what is asked for."""
        return cls(scene, past, {trace: past.moments(trace, scene, own) for trace in Trace})

    def last(
        self, trace: Trace, users: Ints, categories: Ints, rows: Ints, times_ms: Ints
    ) -> tuple[Ints, Ints]:
        """When each user last did it with each category or item, and with which item.

        Returns:
            Times and rows, both (questions,), int64; `NEVER_MS` and -1 where there is none.
        """
        keys = keys_of(trace, self.scene.catalogue, users, categories, rows)
        return self.traces[trace].last_before(keys, times_ms)

    def odds(self, users: Ints, rows: Ints, times_ms: Ints) -> dict[str, Floats]:
        """What each signal that is on adds to the log-odds, each (impressions,), float32.

        Args:
            users: (impressions,), of the block.
            rows: (impressions,), of the catalogue.
            times_ms: (impressions,), of the day; only what is before counts.
        """
        plan, categories = self.scene.rules.plan, self.scene.catalogue.category_of_row[rows]
        asked = _Asked(self, users, rows, categories, times_ms)
        return {
            name: (plan.gain(name) * (_ADDS[name](asked) - _MEANS[name])).astype(np.float32)
            for name in plan.signals
        }


@dataclass(frozen=True)
class _Asked:
    """Impressions, and how old what they remind of is."""

    mind: Mind
    users: Ints
    rows: Ints
    categories: Ints
    times_ms: Ints

    def age_ms(self, trace: Trace, categories: Ints | None = None) -> Ints:
        """Milliseconds since it was last done, by default with the candidate's own category."""
        about = self.categories if categories is None else categories
        return self.times_ms - self.mind.last(trace, self.users, about, self.rows, self.times_ms)[0]


def _order(asked: _Asked) -> Floats:
    leads = asked.mind.scene.rules.predecessors[asked.categories]
    ages = asked.age_ms(Trace.CLICKED, leads)
    liked = np.where(ages < _ORDER_DAYS * DAY_MS, _ORDER * np.exp(-ages / _ORDER_MS), 0)
    return liked.astype(np.float32)


def _session(asked: _Asked) -> Floats:
    liked: Floats = _SESSION * np.exp(-asked.age_ms(Trace.CLICKED) / _SESSION_MS)
    return liked


def _ages(asked: _Asked) -> Floats:
    ages, lasts = asked.age_ms(Trace.CLICKED), asked.mind.scene.rules.liked_ms[asked.categories]
    liked = np.where(ages < _MEMORY_MS, _AGES * np.exp(-ages / lasts), 0)
    return liked.astype(np.float32)


def _satiation(asked: _Asked) -> Floats:
    wanted = np.zeros(len(asked.rows), dtype=np.float32)
    for trace, most in ((Trace.BOUGHT, _SATED), (Trace.OWNED, _OWNED)):
        left = np.maximum(1 - asked.age_ms(trace) / _MEMORY_MS, 0)
        wanted -= (most * left).astype(np.float32)
    return wanted


def _return(asked: _Asked) -> Floats:
    returns = asked.mind.scene.returns
    if returns is None:
        return np.zeros(len(asked.rows), dtype=np.float32)
    back = returns.returning[asked.users] & (returns.categories[asked.users] == asked.categories)
    return np.where(back, _BACK, 0)


def _drift(asked: _Asked) -> Floats:
    catalogue = asked.mind.scene.catalogue
    waves = np.float32(0) if catalogue.fashion is None else catalogue.fashion[asked.categories]
    drifted: Floats = _FASHION * waves + _FRESH * freshness(catalogue, asked.rows)
    return drifted


def _pair(asked: _Asked) -> Floats:
    mind, rules = asked.mind, asked.mind.scene.rules
    times, rows = mind.last(
        Trace.DURABLE, asked.users, asked.categories, asked.rows, asked.times_ms
    )
    durables = mind.scene.catalogue.category_of_row[rows] - rules.first_durable
    known = asked.times_ms - times < _MEMORY_MS
    signs = rules.signs[np.where(known, durables, 0), asked.categories]
    return np.where(known, _PAIR * signs, 0)


_ADDS: Final = {
    "order": _order, "session": _session, "ages": _ages, "satiation": _satiation,
    "return": _return, "drift": _drift, "pair": _pair,
}  # fmt: skip


def remembered_rows(
    mind: Mind, users: Ints, times_ms: Ints, rows: Ints, stream: np.random.Generator
) -> Ints:
    """Put what the signals are about in place of some of the candidates `rows`."""
    rules, catalogue = mind.scene.rules, mind.scene.catalogue
    plan, successors = rules.plan, rules.successors
    categories, exact = catalogue.category_of_row[rows], np.full(len(rows), -1)
    latest = mind.last(Trace.LATEST, users, categories, rows, times_ms)[1]
    clicked = _any_of(mind.past, Trace.CLICKED, users, catalogue.categories, stream)
    bought = _any_of(mind.past, Trace.OWNED, users, len(catalogue.item_ids), stream)
    leads = np.where(uniform(stream, len(rows)) < _LATEST_LEADS, latest, clicked)
    draws, same = uniform(stream, len(rows)), uniform(stream, len(rows)) < _SAME_ITEM
    low = 0.0
    for share, found, gain, follows in (
        (_LATEST, latest, plan.session_gain, False),
        (_CLICKED, clicked, plan.ages_gain or plan.session_gain, False),
        (_AFTER, leads, plan.order_gain, True),
        (_BOUGHT, bought, plan.satiation_gain, False),
    ):
        chosen = (draws >= low) & (draws < low + share) & (found >= 0) & (gain > 0)
        low += share
        there = catalogue.category_of_row[found]
        categories = np.where(chosen, successors[there] if follows else there, categories)
        exact = np.where(chosen & same & (not follows), found, exact)
    returns = mind.scene.returns
    if returns is not None:
        chosen = returns.returning[users] & (draws >= 1 - _RETURN)
        categories = np.where(chosen, returns.categories[users], categories)
    drawn = catalogue.popular_rows(stream, categories)
    rows = np.where(categories == catalogue.category_of_row[rows], rows, drawn)
    return np.where(exact >= 0, exact, rows)


def _any_of(past: Past, trace: Trace, users: Ints, width: int, stream: np.random.Generator) -> Ints:
    """A row of each user's past, each key as likely; (users,), int64, -1 without any."""
    last = past.last[trace]
    begin, count = last.spans(users * width, width)
    picks = begin + (uniform(stream, len(users)) * count).astype(np.int64)
    if not len(last.rows):
        return np.full(len(users), -1)
    return np.where(count > 0, last.rows[np.minimum(picks, len(last.rows) - 1)], -1)
