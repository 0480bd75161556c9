"""Who and what there is: items with categories, popularity and style, and blocks of users.

Everything is drawn from counter-based streams, `random_stream(seed, block, day, purpose)`, so any
block of any day can be made on its own, in any order and on any machine of one kind, and comes
out the same. All shapes below: U users of a block, K interests, D style dimensions.
"""

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from uic.pipelines.simulator.photographs import Gallery
from uic.pipelines.simulator.plan import SimulationPlan

# Part of what a seed means: another block size is another simulation.
BLOCK_USERS: Final = 4096
INTERESTS: Final = 8
STYLE_DIMENSIONS: Final = 4
# A category holds about this many items, up to 1,000 categories.
_ITEMS_PER_CATEGORY: Final = 20
_MAX_CATEGORIES_PER_STRATUM: Final = 125
# P(category rank < r) = (r / n)^(1 / skew): 1 is uniform, more is steeper.
_CATEGORY_SKEW: Final = 1.5
# Days from one height of an interest to the next.
_PERIOD_DAYS: Final = (25.0, 60.0)
_WEIGHTS: Final = (0.3, 1.0)
# How narrow a height is: at 4 an interest is above half its height for 19 % of its period.
_WAVE_SHARPNESS: Final = 4.0
# Activity of users is log-normal with mean 1, a few visit often, most seldom, and at most this.
_MAX_ACTIVITY: Final = 5.0
# Halving a rank so often leads to the first of any category, which is there from the first day.
_LAUNCH_TRIES: Final = 32

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


class Purpose(IntEnum):
    """What a random stream is for; each (seed, block, day, purpose) is a stream of its own."""

    CATALOGUE = 0
    USERS = 1
    DAY = 2
    BARGAINS = 3
    PHOTOGRAPHS = 4
    FEATURES = 5
    RULES = 6
    OWN = 7
    SHOWN = 8


def random_stream(seed: int, block: int, day: int, purpose: Purpose) -> np.random.Generator:
    """The generator of one (block, day, purpose): Philox, key (seed, block)."""
    # The counter is 256 bits wide and drawing moves its low word, so streams never meet.
    bits = np.random.Philox(
        key=np.array([seed, block], dtype=np.uint64),
        counter=np.array([0, 0, day, purpose], dtype=np.uint64),
    )
    return np.random.Generator(bits)


def uniform(stream: np.random.Generator, *shape: int) -> Floats:
    """Uniform in [0, 1), float32."""
    return stream.random(shape, dtype=np.float32)


@dataclass(frozen=True)
class Catalogue:
    """The items, by row: the rows of a category are adjacent, the most popular first.

    Args:
        item_ids: (items,), int64, 1 to items in random order: an id tells nothing but itself.
        styles: (items, D), float32; what within-category taste is about.
        quality: (items,), float32; liked by all users alike.
        category_of_row: (items,), int64, from 0; `category_id` in the log is one more.
        category_starts: (categories + 1,), int64.
        gallery: photographs of the items; None without.
        day: whose items there are; None for all.
        fashion: (categories,), float32, of the day; None: popularity does not change.
        newest: (categories,), int64: the newest and most popular item of each category on the day,
            by its place in it; None: the first one for ever.
    """

    item_ids: Ints
    styles: Floats
    quality: Floats
    category_of_row: Ints
    category_starts: Ints
    gallery: Gallery | None = None
    day: int | None = None
    fashion: Floats | None = None
    newest: Ints | None = None

    @classmethod
    def of(cls, plan: SimulationPlan) -> "Catalogue":
        """Draw the items of a plan."""
        stream = random_stream(plan.seed, 0, 0, Purpose.CATALOGUE)
        per_stratum = plan.items // (_ITEMS_PER_CATEGORY * INTERESTS)
        categories = INTERESTS * int(np.clip(per_stratum, 2, _MAX_CATEGORIES_PER_STRATUM))
        # Sizes fall with the root of the rank, and no category has fewer than two items.
        shares = np.cumsum(1.0 / np.sqrt(np.arange(1, categories + 1)))
        spare = plan.items - 2 * categories
        ends = np.floor(shares / shares[-1] * spare).astype(np.int64)
        starts = np.concatenate([[0], ends]) + 2 * np.arange(categories + 1)
        starts[-1] = plan.items
        styles = stream.standard_normal((plan.items, STYLE_DIMENSIONS), dtype=np.float32)
        return cls(
            item_ids=stream.permutation(plan.items).astype(np.int64) + 1,
            styles=styles / np.float32(np.sqrt(STYLE_DIMENSIONS)),
            quality=stream.standard_normal(plan.items, dtype=np.float32),
            category_of_row=np.repeat(np.arange(categories), np.diff(starts)),
            category_starts=starts,
            gallery=_gallery(plan, starts) if plan.photographs else None,
        )

    def on(self, day: int) -> "Catalogue":
        """The items that there are on a day."""
        return self if self.gallery is None else replace(self, day=day)

    @property
    def categories(self) -> int:
        """How many categories there are, a multiple of `INTERESTS`."""
        return len(self.category_starts) - 1

    def popular_categories(self, stream: np.random.Generator, count: int) -> Ints:
        """Categories drawn by popularity, (count,), int64."""
        drawn = skewed_ranks(uniform(stream, count), self.categories)
        if self.fashion is None:
            return drawn
        # Of two categories the one more in fashion.
        other = skewed_ranks(uniform(stream, count), self.categories)
        return np.where(self.fashion[other] > self.fashion[drawn], other, drawn)

    def popular_rows(self, stream: np.random.Generator, categories: Ints) -> Ints:
        """One item of each category by popularity (Zipf, exponent 1), as rows, int64."""
        starts = self.category_starts[categories]
        sizes = self.category_starts[categories + 1] - starts
        # P(rank < r) = log(r + 1) / log(n + 1), turned round.
        ranks = np.exp(uniform(stream, len(sizes)) * np.log(sizes + 1)).astype(np.int64) - 1
        ranks = np.clip(ranks, 0, sizes - 1)
        if self.newest is not None:
            ranks = (self.newest[categories] - ranks) % sizes
        rows: Ints = starts + ranks
        return rows if self.gallery is None else self._launched(rows, starts)

    def _launched(self, rows: Ints, starts: Ints) -> Ints:
        """An item that is not there yet gives way to a more popular one of its category."""
        gallery, day = self.gallery, self.day
        if gallery is None or day is None:
            return rows
        for _ in range(_LAUNCH_TRIES):
            missing = gallery.launch_day_of_row[rows] > day
            rows = np.where(missing, starts + (rows - starts) // 2, rows)
        return rows


def skewed_ranks(draws: Floats, ranks: int) -> Ints:
    """Turn uniform draws into ranks 0 to `ranks` - 1 of which the lower are more popular."""
    return np.minimum((draws**_CATEGORY_SKEW * ranks).astype(np.int64), ranks - 1)


@dataclass(frozen=True)
class UserBlock:
    """Up to `BLOCK_USERS` users with their long-lived interests.

    Args:
        number: of the block.
        user_ids: (U,), int64.
        interests: (U, K), int64: categories, all different; interest k is in the categories with
            remainder k by K, so whether a category is an interest is one comparison.
        weights: (U, K), float32: how much the user likes it, awake or dormant.
        periods, phases: (U, K), float32: days from height to height, and where it starts.
        taste: (U, D), float32: which styles the user likes, in every category.
        activity: (U,), float32, mean 1.
        class_taste: (U, classes of photographs), float32; no class without photographs.
    """

    number: int
    user_ids: Ints
    interests: Ints
    weights: Floats
    periods: Floats
    phases: Floats
    taste: Floats
    activity: Floats
    class_taste: Floats

    @classmethod
    def of(cls, plan: SimulationPlan, catalogue: Catalogue, number: int) -> "UserBlock":
        """Draw a block of users."""
        stream = random_stream(plan.seed, number, 0, Purpose.USERS)
        first = number * BLOCK_USERS
        users = min(BLOCK_USERS, plan.users - first)
        shape = (users, INTERESTS)
        strata = skewed_ranks(uniform(stream, *shape), catalogue.categories // INTERESTS)
        spread = plan.activity_spread
        activity = stream.standard_normal(users, dtype=np.float32) * spread
        return cls(
            number=number,
            user_ids=np.arange(first + 1, first + users + 1, dtype=np.int64),
            interests=strata * INTERESTS + np.arange(INTERESTS),
            weights=_between(*_WEIGHTS, uniform(stream, *shape)),
            periods=_between(*_PERIOD_DAYS, uniform(stream, *shape)),
            phases=uniform(stream, *shape),
            taste=stream.standard_normal((users, STYLE_DIMENSIONS), dtype=np.float32),
            activity=np.minimum(np.exp(activity - spread**2 / 2), _MAX_ACTIVITY),
            class_taste=_class_taste(plan, number, users),
        )

    def strengths(self, day: int) -> Floats:
        """How strongly each interest drives visits on a day: weight x wave, (U, K), float32.

        wave = exp(sharpness (cos(2 pi (day / period + phase)) - 1)): 1 at its height, almost 0
        for most of the period. A closed form, so a day needs no day before it.
        """
        turns = np.float32(day) / self.periods + self.phases
        wave = np.exp(_WAVE_SHARPNESS * (np.cos(np.float32(2 * np.pi) * turns) - 1))
        strengths: Floats = self.weights * wave
        return strengths

    def long_term_weight(self, users: Ints, categories: Ints) -> Floats:
        """The weight of a category for a user, dormant or not; 0 if it is no interest of theirs."""
        slots = categories % INTERESTS
        weights = self.weights[users, slots]
        return np.where(self.interests[users, slots] == categories, weights, np.float32(0))


def _between(low: float, high: float, draws: Floats) -> Floats:
    return np.float32(low) + np.float32(high - low) * draws


def _gallery(plan: SimulationPlan, category_starts: Ints) -> Gallery:
    """Photographs of the items; the first item of each category is there from the first day."""
    stream = random_stream(plan.seed, 0, 0, Purpose.PHOTOGRAPHS)
    new = uniform(stream, plan.items) < plan.new_item_share
    new[category_starts[:-1]] = False
    return Gallery.draw(stream, plan.photographs, plan.days, np.flatnonzero(new), plan.items)


def _class_taste(plan: SimulationPlan, number: int, users: int) -> Floats:
    # Block 0's stream is that of the gallery.
    stream = random_stream(plan.seed, number + 1, 0, Purpose.PHOTOGRAPHS)
    return stream.standard_normal((users, len(plan.photographs)), dtype=np.float32)


def block_count(plan: SimulationPlan) -> int:
    """Blocks of users in a plan."""
    return -(-plan.users // BLOCK_USERS)
