"""A poisoned day is rolled back while the service answers, and nothing of it is left."""

import math

import pytest

from uic.jobs.drills.errors import DrillFailedError
from uic.jobs.drills.rollback import RollbackOptions, run_rollback
from uic.jobs.drills.shop import ShopSize

# Two streams and a service start beside each other; on a busy machine that takes minutes.
pytestmark = pytest.mark.timeout(1800)

SIZE = ShopSize(users=60, items=150, days=6, epochs=1)


def options(**rest) -> RollbackOptions:
    return RollbackOptions(size=SIZE, wrong_clicks=8, crawler_clicks=200, **rest)


def test_memories_end_as_if_the_poison_had_never_been(tmp_path):
    report = run_rollback(tmp_path, options(), print)
    assert (report.wrong, report.extra) == (0, 0)
    assert report.poisoned > 30
    assert report.users > 40
    assert report.answers.failed == []
    assert min(report.answers.generations[1], report.answers.generations[2]) > 0
    assert set(report.auc) == {"midnight", "poisoned", "rolled back", "none"}
    assert all(0 <= value <= 1 for value in report.auc.values() if not math.isnan(value))
    seen = " ".join(moment.figure for moment in report.timeline)
    # The store is what the log says, with the poison in it and without.
    assert "generation 1: 0 of" in seen
    assert "generation 2: 0 of" in seen


def test_without_the_rules_the_drill_fails(tmp_path):
    with pytest.raises(DrillFailedError, match=r"memories differ from those of a log without"):
        run_rollback(tmp_path, options(exclude=False, meanwhile=False), print)
