"""A signal shows in the log: rules that read behaviours alone reach most of what it is worth.

The oracle knows which behaviours were the user's own; a reader of the log does not, and clicks on
impressions are among them. Each rule here is what a model would have to learn.
Run with `pytest -s` to see how much of its worth each rule reaches.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from uic.pipelines.log.schemas import BEHAVIORS
from uic.pipelines.simulator import BestAuc, Simulation, SimulationPlan
from uic.pipelines.simulator.days import KNOWLEDGE
from uic.pipelines.simulator.signals.rules import Rules

DAY_MS = 86_400_000
NEVER_MS = -(10**15)


Rule = Callable[["Log"], np.ndarray]


@dataclass
class Log:
    """Behaviours by user and time, and the impressions of the last days, as ids from 0."""

    users: np.ndarray
    items: np.ndarray
    categories: np.ndarray
    behaviors: np.ndarray
    times: np.ndarray
    asked_users: np.ndarray
    asked_items: np.ndarray
    asked_categories: np.ndarray
    asked_times: np.ndarray
    clicked: np.ndarray
    odds: np.ndarray
    part: np.ndarray
    rules: Rules

    @classmethod
    def of(cls, signal: str) -> "Log":
        plan = SimulationPlan.of(
            users=500, items=800, days=60, impressions_per_user_day=4.0, **{f"{signal}_gain": 1.0}
        )
        simulation = Simulation(plan)
        chunks = [chunk for day in range(plan.days) for chunk in simulation.chunks(day)]

        def joined(name: str, days: int) -> np.ndarray:
            return np.concatenate([getattr(chunk, name) for chunk in chunks[-days:]])

        names = ("user_ids", "item_ids", "category_ids", "behaviors", "log_times_ms")
        users, items, categories, behaviors, times = (joined(name, plan.days) for name in names)
        order = np.lexsort((times, users))
        return cls(
            users[order] - 1, items[order] - 1, categories[order] - 1, behaviors[order],
            times[order],
            joined("impression_user_ids", 15) - 1,
            joined("impression_item_ids", 15) - 1,
            joined("impression_category_ids", 15) - 1,
            joined("impression_times_ms", 15),
            joined("clicked", 15),
            joined("odds", 15),
            joined("parts", 15)[:, KNOWLEDGE.index(signal)],
            simulation.recollection.rules,
        )  # fmt: skip

    def last(self, behavior: str, keys: np.ndarray, asked: np.ndarray) -> tuple:
        """Time and place of each user's last such behaviour on a key, before each impression."""
        kind = np.flatnonzero(self.behaviors == BEHAVIORS.index(behavior))
        width = int(max(keys.max(), asked.max())) + 1
        names = self.users[kind] * width + keys[kind]
        order = np.lexsort((self.times[kind], names))
        kind, names = kind[order], names[order]
        rows = np.unique(names, return_inverse=True)
        span = 1 << 44
        places = rows[1] * span + self.times[kind]
        wanted = self.asked_users * width + asked
        number = np.minimum(np.searchsorted(rows[0], wanted), len(rows[0]) - 1)
        at = np.searchsorted(places, number * span + self.asked_times) - 1
        found = (at >= 0) & (names[at] == wanted)
        return np.where(found, self.times[kind[at]], NEVER_MS), np.where(found, kind[at], -1)

    def age(self, behavior: str, keys: np.ndarray, asked: np.ndarray) -> np.ndarray:
        return self.asked_times - self.last(behavior, keys, asked)[0]


def session(log: Log) -> np.ndarray:
    return np.exp(-log.age("click", log.categories, log.asked_categories) / 600_000)


def order(log: Log) -> np.ndarray:
    leads = log.rules.predecessors[log.asked_categories]
    return np.exp(-log.age("click", log.categories, leads) / (1.5 * DAY_MS))


def ages(log: Log) -> np.ndarray:
    age = log.age("click", log.categories, log.asked_categories)
    return np.exp(-age / log.rules.liked_ms[log.asked_categories])


def satiation(log: Log) -> np.ndarray:
    category = log.age("buy", log.categories, log.asked_categories)
    item = log.age("buy", log.items, log.asked_items)
    return -np.clip(1 - category / (28 * DAY_MS), 0, 1) - 0.6 * np.clip(
        1 - item / (28 * DAY_MS), 0, 1
    )


def pair(log: Log) -> np.ndarray:
    durable = (log.categories >= log.rules.first_durable).astype(np.int64)
    times, at = log.last("buy", durable, np.ones_like(log.asked_users))
    known = log.asked_times - times < 28 * DAY_MS
    bought = np.where(known, log.categories[at] - log.rules.first_durable, 0)
    return np.where(known, log.rules.signs[bought, log.asked_categories], 0)


def came_back(log: Log) -> np.ndarray:
    """The category most seen in the week before a gap of nine days or more that ended lately."""
    liked = np.zeros(len(log.asked_users))
    for place, (user, category, time) in enumerate(
        zip(log.asked_users, log.asked_categories, log.asked_times, strict=True)
    ):
        first, end = np.searchsorted(log.users, [user, user + 1])
        end = first + np.searchsorted(log.times[first:end], time)
        times = log.times[first:end]
        gaps = np.flatnonzero((np.diff(times) > 9 * DAY_MS) & (times[1:] > time - 8 * DAY_MS))
        if len(gaps):
            stop = gaps[-1] + 1
            begin = np.searchsorted(times, times[gaps[-1]] - 8 * DAY_MS)
            seen = log.categories[first + begin : first + stop]
            liked[place] = np.bincount(seen, minlength=1).argmax() == category
    return liked


def share_of(log: Log, wanted: np.ndarray, behavior: str = "click") -> np.ndarray:
    """The share of each wanted category in all that the user did before, as a mean has it."""
    kind = np.flatnonzero(log.behaviors == BEHAVIORS.index(behavior))
    shares = np.zeros(len(wanted))
    users, categories, times = log.users[kind], log.categories[kind], log.times[kind]
    for place, (user, category, time) in enumerate(
        zip(log.asked_users, wanted, log.asked_times, strict=True)
    ):
        first, end = np.searchsorted(users, [user, user + 1])
        seen = categories[first : first + np.searchsorted(times[first:end], time)]
        shares[place] = (seen == category).mean() if len(seen) else 0
    return shares


def mean_of_pairs(log: Log) -> np.ndarray:
    """The mean of the pairs of the candidate with each durable that the user ever touched."""
    mean = np.zeros(len(log.asked_users))
    for bought, signs in enumerate(log.rules.signs):
        of_it = share_of(log, np.full(len(mean), bought + log.rules.first_durable))
        mean += of_it * signs[log.asked_categories]
    return mean


# What of its worth each rule reaches at least, and what the same rule without time, a mean of the
# history, does at most.
RULES: dict[str, tuple[Rule, float, Rule, float]] = {
    "session": (session, 0.85, lambda log: share_of(log, log.asked_categories), 0.1),
    "order": (
        order, 0.8,
        lambda log: share_of(log, log.rules.predecessors[log.asked_categories]), 0.3,
    ),
    "ages": (ages, 0.75, lambda log: share_of(log, log.asked_categories), 0.15),
    "satiation": (
        satiation, 0.95, lambda log: -share_of(log, log.asked_categories, "buy"), 0.35
    ),
    "pair": (pair, 0.95, mean_of_pairs, 0.1),
    "return": (came_back, 0.6, lambda log: share_of(log, log.asked_categories), 0.45),
}  # fmt: skip


def auc(odds: np.ndarray, clicked: np.ndarray) -> float:
    best = BestAuc()
    best.add((1 / (1 + np.exp(-odds))).astype(np.float32), clicked)
    return best.auc()


def reached(log: Log, told: np.ndarray) -> float:
    """The share of a signal's worth that is reached by one number an impression."""
    unaware = log.odds - log.part
    # One weight, fitted to the part that is to be told.
    weight = np.cov(told, log.part)[0, 1] / told.var()
    without, some, full = (
        auc(odds, log.clicked) for odds in (unaware, unaware + weight * told, log.odds)
    )
    return (some - without) / (full - without)


@pytest.mark.parametrize("signal", RULES)
def test_a_rule_on_behaviours_alone_reaches_what_a_mean_of_them_does_not(signal):
    log = Log.of(signal)
    rule, least, mean, most = RULES[signal]
    by_rule, by_mean = reached(log, rule(log)), reached(log, mean(log))
    print(f"{signal}: by the rule {by_rule:.2f}, by a mean {by_mean:.2f}")  # noqa: T201 - with -s
    assert by_rule > least
    assert by_mean < most
