"""Why a memory pays on the simulated log: what its impressions are ranked by, and how well.

The last week's impressions of the default plan are ranked by the share of the candidate's
category in a user's last 50 behaviours, in 60 days of history, and by the true probability.
Run with `pytest -s` to see the figures.
"""

import numpy as np
import pytest

from uic.pipelines.simulator import BestAuc, Simulation, SimulationPlan

DAY_MS = 86_400_000
# Larger than any time, so that (user, time) is one number to search for.
USER_MS = 1 << 44


def auc(scores: np.ndarray, clicked: np.ndarray) -> float:
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]
    positives, negatives = clicked.sum(), (~clicked).sum()
    return (rank[clicked].sum() - positives * (positives + 1) / 2) / (positives * negatives)


@pytest.fixture(scope="module")
def ladder() -> dict[str, float]:
    plan = SimulationPlan()
    simulation = Simulation(plan)
    chunks = [chunk for day in range(plan.days) for chunk in simulation.chunks(day)]
    keys = np.concatenate([c.user_ids * USER_MS + c.log_times_ms for c in chunks])
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    categories = np.concatenate([c.category_ids for c in chunks])[order]
    week = chunks[-7:]
    users = np.concatenate([c.impression_user_ids for c in week])
    times = np.concatenate([c.impression_times_ms for c in week])
    candidates = np.concatenate([c.impression_category_ids for c in week])
    clicked = np.concatenate([c.clicked for c in week])
    cut = np.searchsorted(keys, users * USER_MS + times)
    first = np.searchsorted(keys, users * USER_MS + times - 60 * DAY_MS)

    def share(start: np.ndarray) -> np.ndarray:
        return np.array(
            [
                (categories[a:b] == candidate).mean() if b > a else 0.0
                for a, b, candidate in zip(start, cut, candidates, strict=True)
            ]
        )

    return {
        "last 50": auc(share(np.maximum(first, cut - 50)), clicked),
        "last 200": auc(share(np.maximum(first, cut - 200)), clicked),
        "60 days": auc(share(first), clicked),
        "truth": auc(np.concatenate([c.click_probability for c in week]), clicked),
        "best": _best(week),
        "history": float(np.median(cut - first)),
    }


def _best(week) -> float:
    best = BestAuc()
    for chunk in week:
        best.add(chunk.click_probability, chunk.clicked)
    return best.auc()


def test_a_longer_memory_ranks_better_and_the_truth_best(ladder):
    print(ladder)  # noqa: T201 - the figures of the package's docstring, with -s
    assert ladder["history"] > 300
    assert ladder["last 50"] > 0.55
    assert ladder["last 200"] > ladder["last 50"] + 0.03
    assert ladder["60 days"] > ladder["last 50"] + 0.06
    assert ladder["truth"] > ladder["60 days"] + 0.06


def test_the_printed_best_auc_is_that_of_the_true_probabilities(ladder):
    assert ladder["best"] == pytest.approx(ladder["truth"], abs=1e-4)
