"""Which knowledge is worth how much AUC: ceilings of a simulation with and without each part.

Every impression's log-odds are a sum of parts, one of each of `KNOWLEDGE`. A ceiling is the AUC of
ranking by the sum of some of them. `uic simulate --explain` prints `Ceilings.table`;
`oracle_impressions(plan)` gives the probabilities themselves, to put a model's AUC beside them:

>>> plan = SimulationPlan(users=200, days=30, order_gain=1.0)
>>> known = oracle_impressions(plan, first_day=23)
>>> auc(known.labels, known.without["order"])  # with any function of yours

What is left out is left out of the sum. Who does not know a part may guess some of it from the
others, as far as they go together, so a loss that is told is the largest that there can be.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from uic.pipelines.simulator.days import KNOWLEDGE, DayChunk
from uic.pipelines.simulator.generator import Simulation
from uic.pipelines.simulator.oracle import BestAuc
from uic.pipelines.simulator.plan import SIGNALS, SimulationPlan
from uic.pipelines.simulator.world import Floats, Ints

EVERYTHING: Final = "everything"
INTERESTS_ONLY: Final = "interests only"
NOTHING_OF_THE_USER: Final = "nothing of the user"
# What all users have in common.
_SHARED: Final = ("items", "drift")
_LONG_TERM: Final = ("items", "interests")


def knowledge_of(plan: SimulationPlan) -> tuple[str, ...]:
    """Those of `KNOWLEDGE` that move a click in a plan."""
    gains = {
        "items": plan.interest_gain or len(plan.sale_days),
        "interests": plan.interest_gain,
        "features": plan.feature_gain or 0.0,
        **{name: plan.gain(name) for name in SIGNALS},
    }
    return tuple(name for name in KNOWLEDGE if gains[name] > 0)


def probabilities(chunk: DayChunk, left_out: tuple[str, ...]) -> Floats:
    """Of a click, without knowing some of `KNOWLEDGE`; (impressions,), float32."""
    columns = [KNOWLEDGE.index(name) for name in left_out]
    odds = chunk.odds - chunk.parts[:, columns].sum(axis=1)
    chances: Floats = (1 / (1 + np.exp(-odds))).astype(np.float32)
    return chances


@dataclass(frozen=True)
class OracleImpressions:
    """Impressions with the probabilities that they were drawn with, by day and block, then time.

    Args:
        user_ids, item_ids, category_ids, times_ms: (impressions,), int64.
        labels: (impressions,), bool: clicked.
        full: (impressions,), float32, what `labels` was drawn with.
        without: of each knowledge that moves a click, the probability without it; float32.
        interests_only: the probability by long-lived interests and the item; float32.
        nothing_of_the_user: the probability by what all users have in common; float32.
    """

    user_ids: Ints
    item_ids: Ints
    category_ids: Ints
    times_ms: Ints
    labels: NDArray[np.bool_]
    full: Floats
    without: Mapping[str, Floats]
    interests_only: Floats
    nothing_of_the_user: Floats


def oracle_impressions(
    plan: SimulationPlan, first_day: int = 0, last_day: int | None = None
) -> OracleImpressions:
    """All impressions of the days (indices, both included), as a log of the plan has them."""
    simulation = Simulation(plan)
    last = plan.days - 1 if last_day is None else last_day
    chunks = [chunk for day in range(first_day, last + 1) for chunk in simulation.chunks(day)]
    named = _left_out(plan)

    def joined(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(chunk, name) for chunk in chunks])

    def known(left_out: tuple[str, ...]) -> Floats:
        return np.concatenate([probabilities(chunk, left_out) for chunk in chunks])

    return OracleImpressions(
        user_ids=joined("impression_user_ids"),
        item_ids=joined("impression_item_ids"),
        category_ids=joined("impression_category_ids"),
        times_ms=joined("impression_times_ms"),
        labels=joined("clicked"),
        full=joined("click_probability"),
        without={name: known((name,)) for name in knowledge_of(plan)},
        interests_only=known(named[INTERESTS_ONLY]),
        nothing_of_the_user=known(named[NOTHING_OF_THE_USER]),
    )


class Ceilings:
    """Ceilings of a simulation, summed up chunk by chunk in bounded memory."""

    def __init__(self, plan: SimulationPlan) -> None:
        self._left_out = _left_out(plan)
        self._sums = {name: BestAuc() for name in self._left_out}

    def add(self, chunk: DayChunk) -> None:
        """Count the impressions of a chunk."""
        for name, left_out in self._left_out.items():
            self._sums[name].add(probabilities(chunk, left_out), chunk.clicked)

    def table(self) -> dict[str, float | None]:
        """AUC by what is known: everything, all but one, interests only, nothing of the user."""
        return {name: best.auc() for name, best in self._sums.items()}


def _left_out(plan: SimulationPlan) -> dict[str, tuple[str, ...]]:
    """What each ceiling does not know."""
    return {
        EVERYTHING: (),
        **{f"all but {name}": (name,) for name in knowledge_of(plan)},
        INTERESTS_ONLY: tuple(name for name in KNOWLEDGE if name not in _LONG_TERM),
        NOTHING_OF_THE_USER: tuple(name for name in KNOWLEDGE if name not in _SHARED),
    }
