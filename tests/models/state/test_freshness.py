"""`freshness` in `state.yaml`: what it may say, and that it is in no sum."""

from pathlib import Path

import pytest

from uic.models.state.definition import StateDefinition, freshness_of
from uic.models.state.freshness import Freshness, WhenBehind
from uic.models.state.part import StateFileError

PARTS = "version: 1\nparts: {last: {kind: recent, size: 4}}\n"


def load(folder: Path, more: str) -> StateDefinition:
    (folder / "state.yaml").write_text(PARTS + more)
    return StateDefinition.load(folder / "state.yaml")


def test_a_policy_changes_neither_the_sum_nor_the_document(tmp_path) -> None:
    plain = load(tmp_path, "")
    assert freshness_of(tmp_path) is None
    limited = load(tmp_path, "freshness: {at_most: 10m, then: refuse}\n")
    assert freshness_of(tmp_path) == Freshness(at_most=600_000, then=WhenBehind.REFUSE)
    assert (limited.sha256, limited.document()) == (plain.sha256, plain.document())
    assert load(tmp_path, "freshness: {at_most: 2h}\n").freshness.then is WhenBehind.SERVE
    assert freshness_of(tmp_path / "elsewhere") is None


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("freshness: {at_most: 10s}", "freshness: at_most: 10s is shorter than 1m"),
        ("freshness: {then: serve}", "freshness: at_most: Field required"),
        ("freshness: {at_most: soon}", "freshness: at_most: 'soon' is no length of time"),
        ("freshness: {at_most: 1h, then: wait}", "freshness: then: Input should be 'serve'"),
        ("freshness: {at_most: 1h, them: x}", "freshness: them: unknown; known: at_most, then"),
        ("freshness: 10m", "freshness: found '10m', expected"),
        ("fresh: 10m", r"found \['fresh'\], expected version, parts and freshness"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(tmp_path, more, said) -> None:
    with pytest.raises(StateFileError, match=said) as error:
        load(tmp_path, more)
    assert "\n" not in str(error.value)
