"""The rules of a simulated world that are the same for all users, and those by user and week.

- Order: a permutation says which category follows on which. Users follow chains of three
  categories, two days each.
- Ages: a category that was clicked stays liked for a day, a week or a month, as the category goes.
- Pair: the least popular eighth of the categories is durable: bought every 8 to 16 days. A table of
  random signs says which categories go with the durable bought last; its columns are even, so a
  category alone says nothing, and it has no structure that a mean of vectors could stand for.
- Return: every 32 to 46 days a user is silent for 10 to 14, after a week on one of the interests,
  and comes back to it.
- Drift: each category has a fashion of its own with a period of 20 to 50 days, and in each category
  another item is the newest and the most popular every few days.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from uic.pipelines.simulator.plan import SimulationPlan
from uic.pipelines.simulator.signals.hashing import hashed
from uic.pipelines.simulator.world import (
    INTERESTS,
    Catalogue,
    Floats,
    Ints,
    Purpose,
    UserBlock,
    random_stream,
    skewed_ranks,
    uniform,
)

DAY_MS: Final = 86_400_000
# How long a liked category stays so: e-folding times; each category has one of them.
LIKED_DAYS: Final = (1.0, 6.0, 30.0)
# An order chain: so many categories, each for so many days.
CHAIN_STEPS, CHAIN_STEP_DAYS = 3, 2
_CHAIN_DAYS: Final = CHAIN_STEPS * CHAIN_STEP_DAYS
_DURABLE_SHARE: Final = 8
_PURCHASE_DAYS: Final = (8, 16)
_CYCLE_DAYS: Final = (32, 46)
_SILENT_DAYS: Final = (10, 14)
_LAST_WEEK_DAYS, RETURN_DAYS = 8, 7
_FASHION_DAYS: Final = (20.0, 50.0)
# Days in which every item of a category was once the newest.
_TURNOVER_DAYS: Final = 60.0
# How fast what is new becomes old.
_FRESH_DAYS: Final = 5.0
_CHAIN, _PURCHASE, _SILENCE = range(3)


@dataclass(frozen=True)
class Returns:
    """Where users of a block are between two silences, on a day.

    Args:
        silent: (U,), bool.
        leaving: (U,), bool: in the week before a silence.
        returning: (U,), bool: in the week after one.
        categories: (U,), int64: the interest of this week before, or after, the silence.
    """

    silent: NDArray[np.bool_]
    leaving: NDArray[np.bool_]
    returning: NDArray[np.bool_]
    categories: Ints


@dataclass(frozen=True)
class Rules:
    """What follows on what, how long it lasts and what goes together.

    Args:
        plan: that they are of.
        successors, predecessors: (categories,), int64.
        liked_ms: (categories,), float32, e-folding time.
        first_durable: categories from here on are durable.
        signs: (durables, categories), float32, 1 or -1.
        fashion_days, fashion_phases: (categories,), float32.
    """

    plan: SimulationPlan
    successors: Ints
    predecessors: Ints
    liked_ms: Floats
    first_durable: int
    signs: Floats
    fashion_days: Floats
    fashion_phases: Floats

    @classmethod
    def of(cls, plan: SimulationPlan, catalogue: Catalogue) -> "Rules":
        """Draw the rules of a plan."""
        stream = random_stream(plan.seed, 0, 0, Purpose.RULES)
        count = catalogue.categories
        # One circle through all categories: none follows on itself.
        circle = stream.permutation(count).astype(np.int64)
        successors, predecessors = np.empty_like(circle), np.empty_like(circle)
        successors[circle] = np.roll(circle, -1)
        predecessors[circle] = np.roll(circle, 1)
        durables = 2 * max(1, round(count / _DURABLE_SHARE / 2))
        even = np.where(np.arange(durables) % 2 == 0, np.float32(1), np.float32(-1))
        low, high = _FASHION_DAYS
        return cls(
            plan,
            successors,
            predecessors,
            liked_ms=np.array(LIKED_DAYS, np.float32)[stream.integers(3, size=count)] * DAY_MS,
            first_durable=count - durables,
            signs=stream.permuted(np.tile(even[:, None], count), axis=0),
            fashion_days=np.float32(low) + np.float32(high - low) * uniform(stream, count),
            fashion_phases=uniform(stream, count),
        )

    def chain_categories(self, user_ids: Ints, day: int) -> Ints:
        """Where each user's chain is on a day, (users,), int64."""
        places = day + (hashed(self.plan.seed, _CHAIN, user_ids) * _CHAIN_DAYS).astype(np.int64)
        starts = hashed(self.plan.seed, _CHAIN, user_ids, 1 + places // _CHAIN_DAYS)
        categories = skewed_ranks(starts, len(self.successors))
        for step in range(1, CHAIN_STEPS):
            onward = places % _CHAIN_DAYS >= step * CHAIN_STEP_DAYS
            categories = np.where(onward, self.successors[categories], categories)
        return categories

    def purchases(self, user_ids: Ints, day: int) -> tuple[Ints, Ints]:
        """Who buys something durable on a day: places in `user_ids`, and categories."""
        seed = self.plan.seed
        period = _whole(_PURCHASE_DAYS, hashed(seed, _PURCHASE, user_ids, 0))
        place = day + (hashed(seed, _PURCHASE, user_ids, 1) * period).astype(np.int64)
        turn, at = place // period, place % period
        due = (hashed(seed, _PURCHASE, user_ids, 2 * turn + 2) * period).astype(np.int64)
        who = np.flatnonzero(at == due)
        draws = hashed(seed, _PURCHASE, user_ids[who], 2 * turn[who] + 3)
        return who, self.first_durable + (draws * len(self.signs)).astype(np.int64)

    def returns(self, block: UserBlock, day: int) -> Returns:
        """Who is silent on a day, goes silent soon or has come back."""
        seed, ids = self.plan.seed, block.user_ids
        cycle = _whole(_CYCLE_DAYS, hashed(seed, _SILENCE, ids, 0))
        silence = _whole(_SILENT_DAYS, hashed(seed, _SILENCE, ids, 1))
        place = day + (hashed(seed, _SILENCE, ids, 2) * cycle).astype(np.int64)
        turn, at = place // cycle, place % cycle
        silent = at >= cycle - silence
        leaving = ~silent & (at >= cycle - silence - _LAST_WEEK_DAYS)
        # The log must have seen some of the week before the silence.
        returning = (at < RETURN_DAYS) & (day - at > silence + _LAST_WEEK_DAYS // 2)
        drawn = hashed(seed, _SILENCE, ids, 3 + np.where(at < RETURN_DAYS, turn - 1, turn))
        slots = (drawn * INTERESTS).astype(np.int64)
        return Returns(silent, leaving, returning, block.interests[np.arange(len(ids)), slots])

    def catalogue_on(self, catalogue: Catalogue, day: int) -> Catalogue:
        """The items as popular as they are on a day."""
        if not self.plan.drift_gain:
            return catalogue.on(day)
        turns = np.float32(day) / self.fashion_days + self.fashion_phases
        sizes = np.diff(catalogue.category_starts)
        turned = day / _TURNOVER_DAYS + self.fashion_phases
        return replace(
            catalogue,
            day=day,
            fashion=np.sin(np.float32(2 * np.pi) * turns),
            newest=(turned * sizes).astype(np.int64) % sizes,
        )


@dataclass(frozen=True)
class BlockDay:
    """A block of users on a day, and what there is.

    Args:
        rules: of the plan.
        catalogue: of the day, by `Rules.catalogue_on`.
        block: the users.
        day: from 0.
        returns: who is silent, leaves or has come back; None in a plan without silences.
    """

    rules: Rules
    catalogue: Catalogue
    block: UserBlock
    day: int
    returns: Returns | None

    @classmethod
    def of(cls, rules: Rules, catalogue: Catalogue, block: UserBlock, day: int) -> "BlockDay":
        """Find what the rules make of a day; `catalogue` is that of all days."""
        returns = rules.returns(block, day) if rules.plan.return_gain else None
        return cls(rules, rules.catalogue_on(catalogue, day), block, day, returns)


def freshness(catalogue: Catalogue, rows: Ints) -> Floats:
    """1 for the newest item of a category, falling to 0 over weeks; (rows,), float32.

    Args:
        catalogue: of a day, by `Rules.catalogue_on`.
        rows: (rows,).
    """
    if catalogue.newest is None:
        return np.zeros(len(rows), dtype=np.float32)
    categories = catalogue.category_of_row[rows]
    starts = catalogue.category_starts[categories]
    sizes = catalogue.category_starts[categories + 1] - starts
    newer = (catalogue.newest[categories] - (rows - starts)) % sizes
    days = (newer / sizes * _TURNOVER_DAYS).astype(np.float32)
    fresh: Floats = np.exp(-days / np.float32(_FRESH_DAYS))
    return fresh


def _whole(between: tuple[int, int], draws: Floats) -> Ints:
    low, high = between
    return low + (draws * (high - low + 1)).astype(np.int64)
