"""Features from `features.yaml` to numbers: definitions, raw values, what training days say."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uic.models.features import fitted as fitted_module
from uic.models.features.definition import Feature, FeatureFileError, FeatureSet, Kind, Owner
from uic.models.features.feature_file import load_features
from uic.models.features.fitted import FittedFeatures, fit_features
from uic.models.features.raw import MISSING, FeatureValueError, raw_column, raw_values

GOOD = """\
version: 1
sources:
  user: {file: users.parquet, id: user_id, valid_from: changed_at}
  item: {file: items.parquet, id: item_id}
user:
  band: {type: categorical, min_count: 1}
  balance: {type: number, scale: log, default: 0}
item:
  tags: {type: categories, most: 3, min_count: 1}
  text: {type: embedding, width: 2}
context:
  tab: {type: categorical, rows: 10}
  position: {type: number, scale: buckets, buckets: 4}
"""


@pytest.fixture
def features(tmp_path) -> FeatureSet:
    path = tmp_path / "features.yaml"
    path.write_text(GOOD)
    return load_features(path)


def by_name(features: FeatureSet, name: str):
    return next(named for named in features if named.name == name)


def test_a_file_is_read_in_its_order_and_survives_a_manifest(features):
    assert [named.key for named in features] == [
        *("user.band", "user.balance", "item.tags", "item.text", "context.tab"),
        "context.position",
    ]
    again = FeatureSet.from_json(features.to_json())
    assert again.features == features.features
    assert again.fingerprint() == features.fingerprint()
    assert [named.name for named in features.of(Owner.CONTEXT)] == ["tab", "position"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("  band: {type: colour}", "user.band.type: "),
        ("  band: {typ: categorical}", "user.band.type: Field required"),
        ("  band: {type: categorical, wide: 3}", "user.band.wide: unknown; known: type, column"),
        ("  band: {type: categorical, scale: log}", "scale says nothing of type categorical"),
        ("  band: {type: number, width: 3}", "width says nothing of type number"),
        ("  band: {type: number, default: some}", "default is 'some', expected a finite number"),
        ("  band: {type: number, default: .nan}", "expected a finite number"),
        ("  band: {type: categorical, default: 0.5}", "default is 0.5, expected a text"),
        ("  Band: {type: categorical}", "String should match pattern"),
        ("  band: [1]", "user.band: "),
        ("  band: {type: categorical, rows: 1}", "user.band.rows: "),
    ],
)
def test_what_is_wrong_is_named_in_one_line(tmp_path, line, says):
    path = tmp_path / "features.yaml"
    path.write_text(GOOD.replace("  band: {type: categorical, min_count: 1}", line))
    with pytest.raises(FeatureFileError) as failure:
        load_features(path)
    assert says in str(failure.value)
    assert str(path) in str(failure.value)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("version: 2", "version: "),
        ("[]", "expected a mapping"),
        ("version: 1\nuser: {a: {type: number}}", "sources.user"),
        ("version: 1\ncontext: {c: {type: number, column: clicked}}", "context.c is the click"),
        ("version: 1\ncontext: {clicked: {type: number}}", "context.clicked is the click"),
        ("version: 1\nsources: {shop: 1}", "sources.shop: unknown"),
        ("version: 1\nshop: {}", "shop: unknown; known: version, sources, user"),
        (": :", "cannot be read"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path, text, says):
    path = tmp_path / "features.yaml"
    path.write_text(text)
    with pytest.raises(FeatureFileError, match=says):
        load_features(path)
    with pytest.raises(FeatureFileError, match="no such file"):
        load_features(tmp_path / "nowhere.yaml")


def test_values_of_a_table_and_of_a_request_are_the_same(features):
    for name, values in (
        ("band", ["18-24", "25+", None, "ü" * 40]),
        ("tab", [3, None, 0, -5]),
        ("tab", [True, False, None, True]),
        ("balance", [1.5, None, -3e30, 0]),
        ("tags", [["a", "b"], [], None, ["a", None, "c", "d", "e"]]),
        ("text", [[1.0, 2.0], None, [0.5, -0.5], [3.0, None]]),
    ):
        named = by_name(features, name)
        column = raw_column(named.feature, pa.array(values), name)
        one_by_one = [raw_values(named.feature, [value], name)[0] for value in values]
        np.testing.assert_array_equal(column, np.stack(one_by_one))
        chunked = pa.chunked_array([pa.array(values[:1]), pa.array(values[1:])])
        np.testing.assert_array_equal(raw_column(named.feature, chunked, name), column)


def test_missing_infinite_and_unsaid_values(features):
    balance = by_name(features, "balance").feature
    found = raw_values(balance, [float("nan"), float("inf"), -1e300, None, 2.0], "balance")
    assert found.tolist() == [0, 0, 0, 0, 2]  # the default
    position = by_name(features, "position").feature
    assert np.isnan(raw_values(position, [float("inf"), None], "position")).all()
    band = by_name(features, "band").feature
    assert raw_values(band, [None, None], "band").tolist() == [MISSING, MISSING]
    whole = raw_column(band, pa.array([1.0, None, 3.0]), "band")  # as pandas has a null
    assert whole.tolist() == [1, MISSING, 3]
    coded = raw_column(band, pa.array(["a", "b", "a"]).dictionary_encode(), "band")
    assert coded[0] == coded[2] != coded[1]


@pytest.mark.parametrize(
    ("name", "values", "says"),
    [
        ("band", [1.5], "band is double, expected texts"),
        ("balance", ["12"], "balance is string, expected a number"),
        ("tags", ["a"], "tags is string, expected lists"),
        ("text", [[1.0]], "row 1 has 1 numbers, expected 2"),
        ("text", [["a", "b"]], "text is string, expected a number"),
        ("band", ["a", 1], "band: "),
        ("band", [2**70], "band: "),
        ("band", [{"a": 1}], "band is struct"),
    ],
)
def test_a_value_of_another_type_is_refused(features, name, values, says):
    with pytest.raises(FeatureValueError, match=says):
        raw_values(by_name(features, name).feature, values, name)


def raw_batch(features: FeatureSet, rows: int, seed: int) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    words = np.array(["a", "b", "c", "d"])
    return {
        "user.band": raw_values(
            by_name(features, "band").feature, [*words[draw.integers(4, size=rows)].tolist()], ""
        ),
        "user.balance": draw.normal(size=rows).astype(np.float32) * 100,
        "item.tags": draw.integers(0, 5, (rows, 3)).astype(np.int64),
        "item.text": draw.normal(size=(rows, 2)).astype(np.float32),
        "context.tab": draw.integers(0, 100, rows).astype(np.int64),
        "context.position": draw.permutation(rows).astype(np.float32),
    }


def test_fitting_in_pieces_is_fitting_at_once(features):
    whole = raw_batch(features, 1000, 0)
    pieces = [
        {key: values[at : at + 90] for key, values in whole.items()} for at in range(0, 1000, 90)
    ]
    at_once, in_pieces = fit_features(features, [whole]), fit_features(features, pieces)
    assert at_once.to_json() == in_pieces.to_json()
    for one, other in zip(at_once.fitted, in_pieces.fitted, strict=True):
        np.testing.assert_array_equal(
            one.encode(whole[one.named.key]), other.encode(whole[one.named.key])
        )


def test_quantiles_are_of_all_training_days_in_any_pieces(monkeypatch):
    monkeypatch.setattr(fitted_module, "SAMPLED_VALUES", 50)
    entry = {"owner": "context", "name": "x", "type": "number", "scale": "buckets", "buckets": 2}
    features = FeatureSet.from_json([entry])
    rising = np.arange(10_000, dtype=np.float32)
    cuts = [0, 1, 2, 130, 131, 4_000, 9_999, 10_000]
    pieces = [{"context.x": rising[low:high]} for low, high in itertools.pairwise(cuts)]
    (at_once,) = fit_features(features, [{"context.x": rising}]).fitted
    (in_pieces,) = fit_features(features, pieces).fitted
    assert at_once.edges.tolist() == in_pieces.edges.tolist()
    assert abs(float(at_once.edges[0]) - 5_000) < 150  # and not of the first 50


def test_encoded_values_survive_a_bundle_and_missing_ones_have_a_row(features):
    whole = raw_batch(features, 1000, 1)
    fitted = fit_features(features, [whole])
    again = FittedFeatures.from_json(fitted.to_json(), fitted.tables())
    for one, other in zip(fitted.fitted, again.fitted, strict=True):
        values = whole[one.named.key]
        np.testing.assert_array_equal(one.encode(values), other.encode(values))
        assert (one.rows, one.numbers) == (other.rows, other.numbers)
    band, balance, tags, text, tab, position = fitted.fitted
    assert band.encode(np.array([MISSING]))[0] == 0
    assert band.rows == 1 + 4 + 4  # missing, four categories, spare rows
    assert (band.encode(whole["user.band"]) > 0).all()
    assert 1 + 4 <= band.encode(np.array([123_456]))[0] < band.rows
    assert tab.rows == 11
    assert tags.encode(np.full((1, 3), MISSING)).tolist() == [[0, 0, 0]]
    counts = np.bincount(position.encode(whole["context.position"]))
    assert counts.tolist() == [0, 250, 250, 250, 250]
    assert position.encode(np.array([np.nan, -1e9, 1e9], np.float32)).tolist() == [0, 1, 4]
    numbers = balance.encode(whole["user.balance"])
    assert abs(numbers[:, 0].mean()) < 1e-3
    assert abs(numbers[:, 0].std() - 1) < 1e-3
    assert text.encode(np.full((1, 2), np.nan, np.float32)).tolist() == [[0, 0, 1]]


@given(st.lists(st.integers(-(2**63) + 1, 2**63 - 1), min_size=1, max_size=50), st.integers(1, 20))
def test_only_the_most_frequent_have_rows_of_their_own(values, most):
    entry = {"owner": "context", "name": "x", "type": "categorical", "min_count": 1}
    features = FeatureSet.from_json([{**entry, "max_categories": most}])
    (fitted,) = fit_features(features, [{"context.x": np.array(values)}]).fitted
    distinct, counts = np.unique(values, return_counts=True)
    assert fitted.categories.size == min(most, distinct.size)
    least = min(counts[np.isin(distinct, fitted.categories)])
    assert (counts[~np.isin(distinct, fitted.categories)] <= least).all()
    rows = fitted.encode(np.array(values))
    assert ((rows > 0) & (rows < fitted.rows)).all()


def test_training_days_without_values_still_fit(features):
    nothing = {key: values[:0] for key, values in raw_batch(features, 1, 0).items()}
    for one in fit_features(features, [nothing]).fitted:
        encoded = one.encode(raw_batch(features, 3, 1)[one.named.key])
        assert len(encoded) == 3


@given(st.floats(-1e6, 1e6, width=32), st.integers(1, 5000))
def test_a_constant_number_does_not_make_another_value_huge(constant, count):
    features = FeatureSet.from_json([{"owner": "user", "name": "x", "type": "number"}])
    (fitted,) = fit_features(features, [{"user.x": np.full(count, constant, np.float32)}]).fitted
    another = np.float32(constant + max(1, abs(constant)))
    encoded = fitted.encode(np.array([constant, another], np.float32))[:, 0]
    assert abs(encoded[0]) <= 1e-6 * max(1, abs(constant))
    assert abs(encoded[1]) <= 1.1 * max(1, abs(constant))


def test_declared_categories_have_rows_and_others_are_unseen(tmp_path):
    path = tmp_path / "features.yaml"
    path.write_text(
        "version: 1\n"
        "context:\n"
        "  tab: {type: categorical, values: [home, search, 7], default: start}\n"
        "  words: {type: categories, most: 2, min_count: 2}\n"
        "  hashed: {type: categorical, rows: 4}\n"
    )
    features = load_features(path)
    assert FeatureSet.from_json(features.to_json()).features == features.features
    raw = {
        named.key: raw_values(named.feature, values, named.name)
        for named, values in zip(
            features, (["home"] * 3, [["a"], ["a", "b"], ["a"]], [1, 2, 3]), strict=True
        )
    }
    tab, words, hashed = fit_features(features, [raw]).fitted
    assert tab.categories.size == 3  # whatever the training days had
    given = raw_values(tab.feature, ["home", "search", "cart", None, "start"], "tab")
    assert tab.unseen(given).tolist() == [False, False, True, False, False]
    rows = tab.encode(raw_values(tab.feature, ["home", "search", "cart"], "tab"))
    assert (rows <= 3).tolist() == [True, True, False]
    assert tab.encode(raw_values(tab.feature, [7], "tab"))[0] in {1, 2, 3}
    lists = raw_values(words.feature, [["a"], ["a", "b"], [], ["new"]], "words")
    assert words.unseen(lists).tolist() == [False, True, False, True]  # b was too rare
    assert not hashed.unseen(raw_values(hashed.feature, [99], "hashed")).any()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ("type: number, values: [1]", "values says nothing of type number"),
        ("type: categorical, rows: 9, values: [1]", "values says nothing of type categorical"),
        ("type: categorical, min_count: 9, values: [1]", "min_count says nothing"),
        ("type: categorical, values: []", "values: "),
        ("type: categorical, values: [1.5]", "values"),
    ],
)
def test_a_vocabulary_that_says_nothing_is_refused(tmp_path, fields, says):
    path = tmp_path / "features.yaml"
    path.write_text(f"version: 1\ncontext:\n  tab: {{{fields}}}\n")
    with pytest.raises(FeatureFileError, match=says) as failure:
        load_features(path)
    assert "\n" not in str(failure.value)


ODD = st.one_of(
    st.integers(-(2**70), 2**70),
    st.integers(-3, 3),
    st.booleans(),
    st.floats(),
    st.floats(width=32),
    st.text(max_size=3),
    st.none(),
    st.lists(st.integers(0, 3), max_size=2),
)
PLAIN = st.one_of(
    *(
        st.lists(kind, min_size=1, max_size=5)
        for kind in (st.integers(-(2**63), 2**63 - 1), st.booleans(), st.floats(), st.text())
    ),
    st.lists(ODD, max_size=4),
)


@given(
    st.sampled_from(
        [
            Feature(type=Kind.CATEGORICAL),
            Feature(type=Kind.NUMBER),
            Feature(type=Kind.NUMBER, default=7),
            Feature(type=Kind.CATEGORIES, most=2),
        ]
    ),
    PLAIN,
)
@settings(max_examples=400, deadline=None)
def test_a_requests_plain_values_are_what_arrow_makes_of_them(feature, values):
    try:
        expected = raw_column(feature, pa.array(values), "x")
    except (pa.ArrowException, OverflowError, TypeError, UnicodeError, FeatureValueError):
        with pytest.raises(FeatureValueError):
            raw_values(feature, values, "x")
        return
    found = raw_values(feature, values, "x")
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
