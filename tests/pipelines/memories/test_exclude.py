"""Exclude rules: predicates on a record's own fields, stored and read again."""

from pathlib import Path

import numpy as np
import pytest

from tests.pipelines.test_text_ids import imported
from uic.models.errors import BadInputError
from uic.pipelines.log.text_ids import TextIds, number_of
from uic.pipelines.memories.exclude import (
    ExcludeRule,
    ExcludeRulesError,
    Exclusion,
    load_rules,
)
from uic.pipelines.sale_calendar import SaleCalendar

HOUR = 3_600_000


def covers(rules: list[dict[str, object]], *, edges: tuple[int, ...] = ()) -> list[bool]:
    """Of four events: users 1, 2, 1, 2 at hours 0, 1, 2, 3 from app, web, nobody, app."""
    exclusion = Exclusion(tuple(ExcludeRule.model_validate(rule) for rule in rules), edges)
    found = exclusion.covers(
        np.array([1, 2, 1, 2]),
        np.arange(4) * HOUR,
        np.array(["app", "web", None, "app"], dtype=object),
    )
    return found.tolist()


def test_all_conditions_of_a_rule_must_fit_and_any_rule_is_enough() -> None:
    assert covers([]) == [False] * 4
    assert covers([{"users": [2]}]) == [False, True, False, True]
    assert covers([{"sources": ["app"]}]) == [True, False, False, True]
    assert covers([{"users": [2], "sources": ["app"]}]) == [False, False, False, True]
    assert covers([{"users": [2]}, {"sources": ["app"]}]) == [True, True, False, True]


def test_a_range_holds_its_start_and_not_its_end() -> None:
    hours = {"from": "1970-01-01T01:00:00Z", "until": "1970-01-01T03:00:00Z"}
    assert covers([hours]) == [False, True, True, False]
    assert covers([{"from": "1970-01-01T03:00:00+01:00"}]) == [False, False, True, True]


def test_sale_days_are_left_out_with_the_rules() -> None:
    assert covers([{"users": [1]}], edges=(3 * HOUR, 4 * HOUR)) == [True, False, True, True]


def test_it_is_the_same_after_a_way_through_json() -> None:
    rule = ExcludeRule.model_validate(
        {"name": "robots", "users": [3], "from": "2024-01-01T00:00:00Z"}
    )
    exclusion = Exclusion((rule,), (5, 9))
    assert Exclusion.from_json(exclusion.to_json()) == exclusion
    assert Exclusion.from_json({}) == Exclusion.of(SaleCalendar.empty())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- {name: all}", "would leave out everything"),
        ("- {users: [a]}", "rule 0: users: user 'a': ids of log are numbers"),
        ("- {users: [yes]}", "rule 0: users: found True, expected ids"),
        ("- {user: [1]}", "rule 0: user: Extra inputs"),
        ("- {from: 2024-01-01T00:00:00}", "timezone"),
        ("- {from: 2024-01-02T00:00:00Z, until: 2024-01-01T00:00:00Z}", "is not after"),
        ("users: [1]", "found dict, expected a list"),
        ("- [", "cannot be read as YAML"),
    ],
)
def test_a_wrong_rules_file_names_file_rule_and_field(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    with pytest.raises(BadInputError, match=says) as found:
        load_rules(path)
    assert str(path) in str(found.value)


def test_users_of_a_log_with_text_ids_are_named_by_their_texts(tmp_path):
    ids = TextIds.of(imported(tmp_path, "ann,x,3"))
    path = tmp_path / "rules.yaml"
    inside = number_of("ann")
    path.write_text(f"- users: [ann, '007', bob, {inside}]\n")
    (rule,) = load_rules(path, ids)
    assert rule.users == (inside, number_of("007"), number_of("bob"), inside)
    for said, fault in (
        ("88", "no user of the log has the number 88"),
        ("0077", "has the number 63, and its ids are texts; put an id into quotes as it stands"),
        ("1234567890123456", "has the number 1234567890123456"),
        ("yes", "found True, expected ids; put an id into quotes"),
        ("100000000000000000000", "found 100000000000000000000, expected ids"),
    ):
        path.write_text(f"- users: [ann, {said}]\n")
        with pytest.raises(ExcludeRulesError, match=f"rule 0: users: .*{fault}"):
            load_rules(path, ids)
    path.write_text("- users: [ann]\n")
    with pytest.raises(ExcludeRulesError, match="rule 0: users: user 'ann': ids of"):
        load_rules(path, TextIds())
