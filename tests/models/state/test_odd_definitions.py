"""What a newcomer tried: files that hung, ended in a traceback, or said a silent zero."""

import numpy as np
import pytest

from tests.models.state.logs import DAY_MS, asked_at, events_of, random_events, state_of, told
from uic.models.state.definition import StateDefinition
from uic.models.state.part import Asked, StateFileError


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (":X", "Empty module name"),
        (".x:Y", "is the module on Python's path"),
        ("uic.models.state.part:StatePart", "is no subclass of"),
        ("uic.models.state.part:Asked", "is no subclass of"),
    ],
)
def test_a_kind_that_is_no_class_is_one_line(kind: str, says: str) -> None:
    with pytest.raises(StateFileError, match=says):
        state_of(mine={"kind": kind})


def test_an_alias_of_itself_ends(tmp_path) -> None:
    path = tmp_path / "state.yaml"
    path.write_text("version: 1\nparts: &x\n  a: *x\n")
    with pytest.raises(StateFileError, match="part a"):
        StateDefinition.load(path)


def test_a_feature_is_said_once_and_a_record_has_parts() -> None:
    twice = {"kind": "aggregate", "functions": ["count", "count"], "windows": ["1h"]}
    with pytest.raises(StateFileError, match=r"a\.count_1h is said twice"):
        state_of(a=twice)
    with pytest.raises(StateFileError, match="is said twice"):
        state_of(a={**twice, "functions": ["count"], "windows": ["1h", "60m"]})
    with pytest.raises(StateFileError, match="parts is empty"):
        state_of()


def test_a_decayed_count_is_gone_when_its_age_is_not_known_any_more() -> None:
    state = state_of(a={"kind": "counts", "half_lives": ["1h"], "resolution": "1s"})
    events = events_of([0, 0, 0], items=5)
    [row] = told(state, events, asked_at(18, 5))  # 64,800 seconds
    assert 0 < row["a.decayed_1h"] < 3 * 2**-17
    [row] = told(state, events, asked_at(19, 5))  # 68,400: more than an age can be
    assert row["a.decayed_1h"] == 0
    assert row["a.count"] == 3


@pytest.mark.parametrize(
    "part", [{"kind": "counts", "half_lives": ["7d"]}, {"kind": "rates", "half_life": "7d"}]
)
def test_a_half_life_that_ages_cannot_measure_is_refused_with_what_would_do(part) -> None:
    with pytest.raises(
        StateFileError, match=r"part a: half-life 7d .* set resolution: (\d+)s"
    ) as told:
        state_of(a={**part, "resolution": "1s"})
    enough = str(told.value).rpartition("resolution: ")[2].split(" ")[0]
    assert state_of(a={**part, "resolution": enough}).parts


def test_nothing_is_said_of_a_candidate_whose_key_is_not_known() -> None:
    state = state_of(shops={"kind": "counts", "by": "shop"}, rate={"kind": "rates", "by": "shop"})
    events = random_events(4)
    seen = np.array([len(events)])
    last = events.user_index[-1:]
    now = events.log_times_ms[-1:] + DAY_MS
    one = np.zeros(1, np.int64)
    unknown = state.as_of(events, Asked(last, now, one, one), seen)[0]
    missing = {"shop": np.array([-(2**63)])}
    known = {"shop": np.array([3])}
    names = [described.name for described in state.described]
    for columns, empty in (({}, True), (missing, True), (known, False)):
        found = state.as_of(events, Asked(last, now, one, one, columns), seen)[0]
        of = dict(zip(names, found.tolist(), strict=True))
        assert np.isnan(of["shops.count"]) == empty
        assert np.isnan(of["rate.rate"]) == empty
        assert of["shops.distinct"] >= 0
    assert np.isnan(unknown[names.index("shops.age")])
