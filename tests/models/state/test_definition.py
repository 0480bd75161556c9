"""A wrong `state.yaml` ends in one line that names the part."""

import numpy as np
import pytest

from tests.models.state.logs import events_of, state_of
from uic.models.bundles.bundle import load_bundle
from uic.models.bundles.documents import BundleError
from uic.models.bundles.saving import save_state
from uic.models.features.definition import Kind
from uic.models.features.event_columns import EventColumn
from uic.models.memory.fold import ForeignMemoryError, MemoryFolder
from uic.models.state.definition import DEFAULT, StateDefinition
from uic.models.state.part import StateFileError

SHOP = EventColumn(name="shop", kind=Kind.CATEGORICAL, field="shop")
PRICE = EventColumn(name="price", kind=Kind.NUMBER, field="price")


def of_text(tmp_path, text: str) -> StateDefinition:
    path = tmp_path / "state.yaml"
    path.write_text(text)
    return StateDefinition.load(path)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"kind": "count"}, "kind 'count' is unknown; known: counts, rates, recent, aggregate"),
        ({}, r"expected kind: counts\|rates\|recent\|aggregate, or module:Class"),
        ("counts", r"expected kind: counts"),
        ({"kind": "counts", "key": "item"}, "key: unknown; known: behaviors, by, count_bits"),
        ({"kind": "counts", "half_lives": [0]}, "half_lives.0: 0 is not between 1 ms and 100"),
        ({"kind": "counts", "half_lives": ["7"]}, "half_lives.0: '7' is no length of time; write"),
        ({"kind": "counts", "half_lives": ["-1d"]}, "'-1d' is no length of time"),
        ({"kind": "counts", "half_lives": ["nan"]}, "'nan' is no length of time"),
        ({"kind": "counts", "half_lives": [True]}, "True is no length of time"),
        ({"kind": "counts", "half_lives": ["1m"]}, "half-life 1m is shorter than resolution 1h"),
        ({"kind": "counts", "half_lives": ["1d", "24h"]}, "half_lives: 1d ... has one twice"),
        ({"kind": "counts", "resolution": 100}, "resolution 100ms is shorter than 1s"),
        ({"kind": "counts", "size": 0}, "size: Input should be greater than or equal to 1"),
        ({"kind": "counts", "size": 1e9}, "size: Input should be less than or equal to 4096"),
        ({"kind": "counts", "behaviors": []}, "behaviors: Tuple should have at least 1 item"),
        ({"kind": "counts", "behaviors": ["view"]}, "behaviors.0: Input should be 'click'"),
        ({"kind": "rates", "half_life": "1s"}, "half-life 1s is shorter than resolution 1h"),
        ({"kind": "rates", "exposures": ["buy"]}, "buy is in successes and in exposures"),
        ({"kind": "rates", "prior": 2}, "prior: Input should be less than or equal to 1"),
        ({"kind": "aggregate", "windows": ["1h"], "tile": "1d"}, "window 1h is shorter than tile"),
        ({"kind": "aggregate", "windows": ["1h", "365d"]}, "window 365d takes 52560 tiles of 10m"),
        ({"kind": "aggregate", "windows": ["1s"]}, "tile 166ms is shorter than 1s"),
        ({"kind": "aggregate", "functions": ["sum"]}, "sum of item means nothing; it is an id"),
        ({"kind": "aggregate", "functions": ["median"]}, "functions.0: Input should be 'count'"),
        ({"kind": "no.such:Part"}, "kind no.such:Part: No module named 'no'; is the module on"),
        ({"kind": "json:Part"}, "kind json:Part: module 'json' has no attribute 'Part'"),
        ({"kind": "json:dumps"}, "is no subclass of uic.models.state.part.StatePart"),
    ],
)
def test_a_wrong_part_is_one_line_that_names_it(entry, says) -> None:
    with pytest.raises(StateFileError, match=f"test: part mine: .*{says}") as error:
        state_of(mine=entry)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "version is <class 'NoneType'>, expected 1"),
        ("version: 2\nparts: {}", "version is 2, expected 1; see docs/state.md"),
        ("parts: {}", "version is None, expected 1"),
        ("version: 1", "found None, expected version, parts and freshness"),
        ("version: 1\nparts: {}\nmore: 1", "found .'more'., expected version, parts and freshness"),
        ("version: 1\nparts: [a]", "expected version, parts and freshness"),
        ("version: 1\nparts: {Big Name: {kind: counts}}", "part Big Name: expected a name of a-z"),
        ("version: 1\nparts:\n  a: {kind: counts}\n  a: {kind: rates}", "a stands there twice"),
        ("version: 1\nparts: {a: {kind: counts, by: item, by: user}}", "by stands there twice"),
        ("version: [1", "cannot be read as YAML: "),
    ],
)
def test_a_wrong_file_is_one_line_that_names_it(tmp_path, text, says) -> None:
    with pytest.raises(StateFileError, match=rf"state\.yaml: .*{says}") as error:
        of_text(tmp_path, text)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_one_line(tmp_path) -> None:
    with pytest.raises(StateFileError, match=r"cannot be read as YAML: .*No such file"):
        StateDefinition.load(tmp_path / "none.yaml")


def test_more_bytes_than_the_limit_names_the_largest() -> None:
    with pytest.raises(StateFileError, match=r"the parts take .* at most 65536; the largest is b "):
        state_of(a={"kind": "counts"}, b={"kind": "counts", "size": 4096, "fingerprint_bits": 64},
                 c={"kind": "recent", "size": 1024})  # fmt: skip


def test_the_document_of_a_definition_is_the_definition() -> None:
    state = StateDefinition.load(DEFAULT)
    again = StateDefinition.of_document(state.document(), "again")
    assert again.sha256 == state.sha256
    assert [one.name for one in again.described] == [one.name for one in state.described]


def test_the_order_in_a_file_says_nothing_so_one_sum_is_one_layout(tmp_path) -> None:
    one, other = of_text(tmp_path, ONE), of_text(tmp_path, OTHER)
    assert one.sha256 == other.sha256
    assert [part.name for part in one.parts] == [part.name for part in other.parts] == ["a", "b"]
    save_state(tmp_path / "1", other, [])
    kept = load_bundle(tmp_path / "1").state
    assert kept is not None
    assert [part.name for part in kept.parts] == ["a", "b"]


ONE = "version: 1\nparts: {a: {kind: counts}, b: {kind: recent}}"
OTHER = "version: 1\nparts: {b: {kind: recent}, a: {kind: counts}}"


def test_a_column_that_the_site_lacks_or_has_as_another_type_is_refused(tmp_path) -> None:
    of_shop, of_price = (state_of(mine={"kind": "counts", "by": by}) for by in ("shop", "price"))
    with pytest.raises(
        BundleError, match=r"mine reads shop of events, features\.yaml declares price"
    ):
        save_state(tmp_path / "1", of_shop, [PRICE])
    with pytest.raises(BundleError, match="mine is by price, a number; declare it as categorical"):
        save_state(tmp_path / "1", of_price, [PRICE])
    spent = state_of(mine={"kind": "aggregate", "of": "shop", "functions": ["sum"]})
    with pytest.raises(BundleError, match="mine reckons with shop, a category; declare it as num"):
        save_state(tmp_path / "1", spent, [SHOP])
    met = state_of(mine={"kind": "aggregate", "of": "shop", "functions": ["count", "distinct"]})
    save_state(tmp_path / "1", met, [SHOP])


def test_a_record_of_another_definition_is_refused_and_not_folded_on(tmp_path) -> None:
    folders = []
    for version, half_life in (("1", "1d"), ("2", "7d")):
        state = state_of(items={"kind": "counts", "half_lives": [half_life]})
        save_state(tmp_path / version, state, [])
        folders.append(MemoryFolder(load_bundle(tmp_path / version), 1))
    old = folders[0].fold(folders[0].initial_records(1), events_of([0])).records
    assert old.shape == folders[1].initial_records(1).shape
    with pytest.raises(ForeignMemoryError):
        folders[1].fold(old, events_of([1, 2]).select(slice(1, 2)))
    np.testing.assert_array_equal(old, folders[0].fold(old, events_of([0])).records)  # a repeat
