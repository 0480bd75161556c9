"""`--where`: the rows that a condition takes, in text and in typed files; others are counted."""

from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from tests.pipelines.imported import behaviors, run
from uic.models.errors import BadInputError
from uic.pipelines.importers.table import TableColumns, TableImporter
from uic.pipelines.log.event_log import EventLog

ROWS: dict[str, list[Any]] = {
    "u": [1, 2, 3, 4, 5],
    "i": [1, 1, 1, 1, 1],
    "t": [1, 2, 3, 4, 5],
    "kind": ["view", "view", "buy", None, "cart"],
    "price": [1, 2.5, None, 4, 5],
    "In Stock": [True, False, True, None, False],
}


def csv(path: Path) -> Path:
    pa_csv.write_csv(pa.table(ROWS), path)
    return path


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table({**ROWS, **columns}), path)
    return path


def taken(file: Path, where: str, log: EventLog) -> list[int]:
    summary = run(TableImporter(file, TableColumns("u", "i", "t", where=where)), log)
    users = sorted(row[0] for row in behaviors(log))
    assert summary.left_out == len(ROWS["u"]) - len(users)
    assert summary.rejects_path is None
    return users


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("where", "users"),
    [
        ("kind == 'view'", [1, 2]),
        ("kind != 'view' and kind is not None", [3, 5]),
        ("kind in ('buy', 'cart') or price < 2", [1, 3, 5]),
        ("kind not in ['view']", [3, 5]),
        ("price > 2", [2, 4, 5]),
        ("not price > 2", [1]),
        ("1 < price <= 4", [2, 4]),
        ("2.5 == price", [2]),
        ("price is None", [3]),
        ("price in (1, 4)", [1, 4]),
        ("u >= 3 and not kind == 'cart' and price != 0.5", []),
    ],
)
def test_a_condition_takes_rows(tmp_path: Path, form: str, where: str, users: list[int]) -> None:
    file = csv(tmp_path / "t.csv") if form == "csv" else parquet(tmp_path / "t.parquet")
    log = EventLog(tmp_path / "log")
    if users:
        assert taken(file, where, log) == users
        return
    with pytest.raises(BadInputError, match=r"no row could be imported; --where leaves 5 out$"):
        taken(file, where, log)
    assert log.epochs() == ()


@pytest.mark.parametrize(
    ("column", "where", "users"),
    [
        (pa.array(ROWS["In Stock"]), "`In Stock`", [1, 3]),
        (pa.array(ROWS["In Stock"]), "not `In Stock`", [2, 5]),
        (pa.array(ROWS["kind"]).dictionary_encode(), "`In Stock` == 'buy'", [3]),
        (pa.array([{"a b": n} for n in range(5)]), "`In Stock.a b` < 2", [1, 2]),
        (pa.array([Decimal(n) for n in range(5)]), "`In Stock` == 3", [4]),
        (pa.array(range(5)), "`In Stock` > 2.5", [4, 5]),
        (
            pa.array([datetime(2024, 1, day) for day in range(1, 6)]),  # noqa: DTZ001 - a local time
            "`In Stock` >= '2024-01-04'",
            [4, 5],
        ),
    ],
)
def test_a_condition_on_columns_of_other_types(
    tmp_path: Path, column: pa.Array, where: str, users: list[int]
) -> None:
    file = parquet(tmp_path / "t.parquet", **{"In Stock": column})
    assert taken(file, where, EventLog(tmp_path / "log")) == users


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("kind = 'view'", r"--where: found \"kind = 'view'\", expected a condition .*equal is =="),
        ("kind == 'a' AND u == 1", r"--where: found .*, expected a condition like"),
        ("kind == ", r"--where: found 'kind == ', expected"),
        ("len(kind) > 2", r"--where: found 'len\(kind\)' for a column"),
        ("__import__('os')", r"--where: found .* for a column"),
        ("price > u", r"--where: price is compared with u, expected"),
        ("price in (1, 'a')", r"compared with \(1, 'a'\), values of two kinds"),
        ("price in ()", r"compared with \(\), expected"),
        ("price == None", r"compared with None, expected"),
        ("prize > 1", r"t\.csv: column prize is missing; did you mean price\?"),
        ("kind > 1", r"t\.csv: --where: column kind holds no numbers, found 'view' in line 2"),
        ("kind == True", r"column kind is text, and a truth is not; say kind == 'true'"),
        ("u == 1 and kind", r"column kind is text"),
        ("kind == ''", r"column kind is not known where it is empty, .*; say kind is None"),
    ],
)
def test_a_condition_that_is_none_is_one_line(tmp_path: Path, where: str, message: str) -> None:
    log = EventLog(tmp_path / "log")
    with pytest.raises(BadInputError, match=message) as raised:
        taken(csv(tmp_path / "t.csv"), where, log)
    assert "\n" not in str(raised.value)
    assert log.epochs() == ()


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("u == '1'", r"column u is int64, and '1' is not; say a number"),
        ("kind == 1", r"column kind is string, and 1 is not; say '1'"),
        ("u == 9223372036854775808", r"column u is int64, which \[9223372036854775808\] is not"),
        ("kind", r"column kind is string, and True is not; say 'True'"),
        ("t > '2024-01-01'", r"column t is int64, and '2024-01-01' is not; say a number"),
    ],
)
def test_a_type_that_cannot_be_compared_is_named(tmp_path: Path, where: str, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        taken(parquet(tmp_path / "t.parquet"), where, EventLog(tmp_path / "log"))


def test_a_time_with_a_zone_is_compared_with_one(tmp_path: Path) -> None:
    stamps = pa.array([1, 2, 3, 4, 5], pa.timestamp("s", "UTC"))
    file = parquet(tmp_path / "t.parquet", at=stamps)
    log = EventLog(tmp_path / "log")
    with pytest.raises(
        BadInputError, match=r"is timestamp\[ms, tz=UTC\].*say '2024-12-31 00:00\+00"
    ):
        taken(file, "at > '1970-01-01'", log)
    assert taken(file, "at > '1970-01-01 00:00:03+00:00'", log) == [4, 5]
