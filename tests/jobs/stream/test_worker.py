"""What a generation leaves out, and which generation a bundle fits."""

from dataclasses import replace

import numpy as np
import pytest

from uic.feature_repo.store.generation import Generation, State
from uic.jobs.stream.fold.fitness import UnfitGenerationError, check_state_and_hash
from uic.jobs.stream.fold.plan import JobPlan
from uic.jobs.stream.fold.worker import exclusion
from uic.pipelines.log.events import EventParser
from uic.pipelines.settings import Keep, LogSettings, SaleSettings

DAY_MS = 1_781_740_800_000  # 2026-06-18, UTC
CALENDAR = """time_zone: UTC
sales:
  - {name: "6.18", first: 2026-06-18, last: 2026-06-18}
"""


def _left_out(plan, payloads, log_times):
    times = np.array(log_times, np.int64)
    events = EventParser(LogSettings()).parse(payloads, times)
    return exclusion(plan)(events, times[events.index]).tolist()


def _plan(exclude=None, sale=None):
    return JobPlan.model_construct(exclude=exclude or {}, sale=sale or SaleSettings())


def test_without_rules_and_sale_days_nothing_is_asked():
    assert exclusion(_plan()) is None


def test_sale_days_are_left_out_by_log_time(tmp_path, make_payload):
    (tmp_path / "sales.yaml").write_text(CALENDAR)
    sale = SaleSettings(calendar=tmp_path / "sales.yaml")
    times = [DAY_MS - 1, DAY_MS, DAY_MS + 86_399_999, DAY_MS + 86_400_000]
    payloads = [make_payload(1, 5, event_time=DAY_MS) for _ in times]
    assert _left_out(_plan(sale=sale), payloads, times) == [False, True, True, False]
    kept = SaleSettings(calendar=tmp_path / "sales.yaml", behaviors=Keep.KEEP)
    assert exclusion(_plan(sale=kept)) is None


def test_the_generations_own_rules_hold(make_payload):
    rules = {"rules": [{"sources": ["app-7"]}, {"users": [3]}], "sale_edges_ms": [0, 10]}
    payloads = [
        make_payload(1, 5, event_time=DAY_MS, source="app-7"),
        make_payload(1, 5, event_time=DAY_MS),
        make_payload(3, 5, event_time=DAY_MS, source="app-8"),
    ]
    assert _left_out(_plan(rules), payloads, [DAY_MS] * 3) == [True, False, True]


@pytest.mark.parametrize("state", [State.LOADING, State.DROPPING])
def test_a_generation_that_is_not_ready_is_refused(tmp_path, state):
    generation = Generation(2, 0, b"12345678", "mimn/1", 1276, {}, "", state=State.READY)
    check_state_and_hash(generation, b"12345678", tmp_path)
    with pytest.raises(UnfitGenerationError, match=f"generation 2 is {state}"):
        check_state_and_hash(replace(generation, state=state), b"12345678", tmp_path)
    with pytest.raises(UnfitGenerationError, match=r"is of bundle mimn/1 .* give the bundle"):
        check_state_and_hash(generation, b"87654321", tmp_path)
