"""Served features beside the dated tables: a row for each verdict, and a wrong one is found."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uic.models.features.feature_file import load_features
from uic.pipelines.audit.report import AuditMismatchError, ServedAudit, require_no_mismatch
from uic.pipelines.audit.served_values import audit_features

FILE = """\
version: 1
sources:
  user: {file: users.parquet, id: user_id, valid_from: since}
  item: {file: items.parquet, id: item_id, valid_from: since}
user:
  band: {type: categorical}
  balance: {type: number}
item:
  price: {type: number}
"""
USERS = {"user_id": [1, 1], "since": [100, 200], "band": [7, 8], "balance": [1.5, None]}
ITEMS = {"item_id": [5, 5, 6], "since": [0, 300, 0], "price": [1.0, 2.0, 3.0]}
NOW = 1000


@pytest.fixture
def site(tmp_path):
    for name, columns in (("users", USERS), ("items", ITEMS)):
        table = pa.table(columns)
        at = table.column_names.index("since")
        dated = table.set_column(at, "since", table["since"].cast(pa.timestamp("ms")))
        pq.write_table(dated, tmp_path / f"{name}.parquet")
    (tmp_path / "features.yaml").write_text(FILE)
    return load_features(tmp_path / "features.yaml")


def answer(band, balance, prices, *, since=200, user=1, served_at=NOW, reasons=()):
    features = {"user.band": [band], "user.balance": [balance], "item.price": prices}
    return {
        "user_id": user,
        "item_ids": [5, 6],
        "features": json.dumps(features),
        "served_at": served_at,
        "user_valid_from": since,
        "reasons": list(reasons),
    }


def verdicts(site, *answers):
    tally = audit_features(pa.Table.from_pylist(list(answers)), site)
    return {name: count for name, count in vars(tally).items() if count and name != "examples"}, (
        tally.examples
    )


NONE = -(2**63)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (answer(8, None, [2, 3]), {"matched": 3}),
        (answer(7, 1.5, [2, 3], since=100), {"matched": 2, "late": 1}),  # loaded late
        (answer(8, None, [1, 3]), {"matched": 2, "late": 1}),  # an item that was followed late
        (answer(7, 1.5, [1, 3], since=100, served_at=150), {"matched": 3}),
        (answer(9, 4.0, [2, 3], since=500), {"matched": 2, "pushed": 1}),
        (
            answer(NONE, None, [2, 3], since=None, reasons=["feature_missing"]),
            {"matched": 2, "missing": 1},
        ),
        (answer(NONE, None, [2, 3], since=None), {"matched": 2, "differing": 1}),
        (answer(NONE, None, [2, 3], since=None, user=99), {"matched": 3}),
        (answer(8, 0.0, [2, 3]), {"matched": 2, "differing": 1}),
        (answer(9, 4.0, [2, 3], since=NOW + 1), {"matched": 2, "differing": 1}),
        (answer(7, 1.5, [2, 3], since=100, served_at=90), {"matched": 1, "differing": 2}),
        (answer(8, None, [2, 3.5]), {"matched": 2, "differing": 1}),
    ],
)
def test_a_served_row_has_the_verdict_that_its_values_and_its_time_tell(site, given, expected):
    found, _ = verdicts(site, given)
    rows = found.pop("rows")
    assert rows == 3
    assert found == expected


def test_a_wrong_stored_value_fails_the_audit_and_is_named(site):
    found, examples = verdicts(site, answer(8, None, [2, 3]), answer(6, None, [2, 3]))
    assert found == {"rows": 6, "matched": 5, "differing": 1}
    assert examples == ["user 1 at 1970-01-01T00:00:01.000: user.band was 6, the table says 8"]
    answers = pa.Table.from_pylist([answer(6, None, [2, 3])])
    served = ServedAudit(features=audit_features(answers, site))
    with pytest.raises(AuditMismatchError, match=r"1 rows of features differ \(user 1 at .*band"):
        require_no_mismatch([], served)


def test_a_feature_that_an_answer_did_not_have_is_not_judged(site):
    bare = {**answer(8, None, [2, 3]), "features": json.dumps({"user.band": [8], "user.odd": [1]})}
    assert verdicts(site, bare)[0] == {"rows": 1, "matched": 1}
    other = {**bare, "features": json.dumps({"user.band": [[8, 9]]})}  # of lists, then
    assert verdicts(site, other)[0] == {}
