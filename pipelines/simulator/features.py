"""Features beside ids that move the odds of a click by a known amount (`uic simulate --features`).

- A user's `age_band` and an item's `segment`: each pair of them has an odds ratio of its own.
- A user's `spending` and an item's `price`: who spends much prefers what is dear, and the reverse.
- The `position` of an impression: what stands further down is clicked less.

Who and what has which is drawn apart from everything else, so ids and behaviours say nothing of it,
and a log with features has the same users, items and visits as the one without. Effects are even
over users and over items: no item is clicked more for its segment or its price, and no user clicks
more. So the order without knowing features is that of the odds without them.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from uic.pipelines.simulator.plan import SimulationPlan
from uic.pipelines.simulator.world import (
    BLOCK_USERS,
    Floats,
    Ints,
    Purpose,
    UserBlock,
    random_stream,
)

AGE_BANDS: Final = 6
SEGMENTS: Final = 8
POSITIONS: Final = 10
# Of prices, whose logarithm is normal.
_LOG_PRICE: Final = (2.5, 0.8)
# Standard deviations of log-odds, of a plan whose `feature_gain` is 1.
_PAIR, _PRICE, _POSITION = 0.9, 0.6, 0.5


@dataclass(frozen=True)
class SimulatedFeatures:
    """What items have, and how pairs of age band and segment go together.

    Attributes:
        plan: that they are of.
        segments: (items,), int64, by row of the catalogue.
        prices: (items,), float32.
        pairs: (AGE_BANDS, SEGMENTS), float32, log-odds; rows and columns are even.
    """

    plan: SimulationPlan
    segments: Ints
    prices: Floats
    pairs: Floats

    @classmethod
    def of(cls, plan: SimulationPlan) -> "SimulatedFeatures":
        """Draw the items' features."""
        stream = random_stream(plan.seed, 0, 0, Purpose.FEATURES)
        pairs = stream.standard_normal((AGE_BANDS, SEGMENTS))
        pairs -= pairs.mean(axis=0)
        pairs -= pairs.mean(axis=1, keepdims=True)
        mean, spread = _LOG_PRICE
        return cls(
            plan,
            segments=stream.integers(SEGMENTS, size=plan.items),
            prices=np.exp(mean + spread * stream.standard_normal(plan.items)).astype(np.float32),
            pairs=(pairs / pairs.std()).astype(np.float32),
        )

    def users(self, block: int) -> tuple[Ints, Floats]:
        """`age_band` and `spending` of the users of a block, each (U,)."""
        # Block 0's stream is that of the items.
        stream = random_stream(self.plan.seed, block + 1, 0, Purpose.FEATURES)
        users = min(BLOCK_USERS, self.plan.users - block * BLOCK_USERS)
        ages = stream.integers(AGE_BANDS, size=users)
        return ages, stream.standard_normal(users, dtype=np.float32)

    def on(self, plan: SimulationPlan, block: UserBlock, day: int) -> "DayFeatures":
        """The features of a block on a day."""
        # Days count from 1 here: day 0's streams are those of users and items.
        stream = random_stream(plan.seed, block.number + 1, day + 1, Purpose.FEATURES)
        ages, spending = self.users(block.number)
        return DayFeatures(self, ages, spending, stream)


@dataclass(frozen=True)
class DayFeatures:
    """Features of the users of a block on a day, and where things are shown.

    Attributes:
        items: what items have.
        ages: (U,), int64.
        spending: (U,), float32.
        stream: of positions.
    """

    items: SimulatedFeatures
    ages: Ints
    spending: Floats
    stream: np.random.Generator

    def positions(self, shown: int) -> Ints:
        """Where each impression stands, (shown,), int64, from 1."""
        return self.stream.integers(1, POSITIONS + 1, size=shown)

    def odds(self, users: Ints, rows: Ints, positions: Ints) -> Floats:
        """What features add to the log-odds, (impressions,), float32.

        Args:
            users: (impressions,), of the block.
            rows: (impressions,), of the catalogue.
            positions: (impressions,).
        """
        mean, spread = _LOG_PRICE
        dearness = (np.log(self.items.prices[rows]) - mean) / spread
        places = np.log(np.arange(1, POSITIONS + 1))
        height = ((places.mean() - places) / places.std())[positions - 1]
        added = (
            _PAIR * self.items.pairs[self.ages[users], self.items.segments[rows]]
            + _PRICE * self.spending[users] * dearness
            + _POSITION * height
        )
        gain = self.items.plan.feature_gain or 0.0
        odds: Floats = (gain * added).astype(np.float32)
        return odds
