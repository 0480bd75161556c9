"""`features.yaml` beside the data: coverage, categories, drift, and what cannot be used."""

import json
import sys
from datetime import date
from math import log

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uic.jobs.cli import main
from uic.models.features.definition import Feature, Kind
from uic.models.features.event_columns import EventColumn
from uic.models.features.feature_file import load_features
from uic.pipelines.importers.run import run_import
from uic.pipelines.importers.table import TableColumns, TableImporter
from uic.pipelines.importers.table_features import Owner
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.writer import LogWriter, Part
from uic.pipelines.quality.feature_check import check_features
from uic.pipelines.quality.feature_values import SeenValues, psi

DAY = 86_400_000
FILE = """\
version: 1
sources:
  user: {file: users.parquet, id: user_id, valid_from: since}
  item: {file: items.parquet, id: item_id}
user:
  city: {type: categorical, default: nowhere}
  age: {type: number}
item:
  price: {type: number}
  seller: {type: categorical, min_count: 1, max_categories: 2}
context:
  tab: {type: categorical}
"""


@pytest.fixture
def shop(tmp_path):
    """Four impressions on each of two days; user 3 is in no table, item 13's price is NaN."""
    rows = [
        (user, 10 + at, day * DAY + at + 1000, at == 0, "home" if day == 1 else "new")
        for day in (1, 2)
        for at, user in enumerate((1, 1, 2, 3))
    ]
    names = ["user", "item", "time", "clicked", "tab"]
    text = "\n".join([",".join(names), *(",".join(map(str, row)) for row in rows)])
    (tmp_path / "t.csv").write_text(text.replace("True", "1").replace("False", "0"))
    columns = TableColumns(
        "user", "item", "time", clicked="clicked", features={Owner.CONTEXT: {"tab": "tab"}}
    )
    log_ = EventLog(tmp_path / "var" / "log")
    importer = TableImporter(tmp_path / "t.csv", columns)
    run_import(importer, log_, time_zone="UTC", partitions=1, any_time=True)
    since = pa.array([0, 2 * DAY, 0], pa.timestamp("ms"))
    users = {"user_id": [1, 1, 2], "since": since, "city": ["Rome", "Oslo", None], "age": [1, 2, 3]}
    pq.write_table(pa.table(users), tmp_path / "var" / "users.parquet")
    items = {"item_id": [10, 11, 12, 13], "price": [1.0, 2.0, 3.0, np.nan], "seller": [5, 6, 7, 7]}
    pq.write_table(pa.table(items), tmp_path / "var" / "items.parquet")
    (tmp_path / "var" / "features.yaml").write_text(FILE)
    return tmp_path / "var"


def reports(shop, text: str = FILE):
    (shop / "features.yaml").write_text(text)
    found = check_features(load_features(shop / "features.yaml"), EventLog(shop / "log"))
    return {one.key: one for one in found}


def test_coverage_is_that_of_impressions_as_samples_join_them(shop):
    found = reports(shop)
    city = found["user.city"]
    assert city.coverage == 4 / 8  # a default is no value
    assert city.covered == 1 / 3
    assert city.default == "nowhere"
    assert sorted(city.top) == [("Oslo", 0.25), ("Rome", 0.25)]
    assert found["user.age"].coverage == 6 / 8
    assert found["user.age"].quantiles == {
        "0": 1, "0.01": 1, "0.25": 1.25, "0.5": 2, "0.75": 2.75, "0.99": 3, "1": 3,
    }  # fmt: skip
    assert found["item.price"].not_finite == 0.25
    assert found["item.price"].covered == 3 / 4
    assert found["item.price"].remarks == ["25.0% of the column is NaN or infinite: missing"]
    assert found["context.tab"].covered is None
    assert [one.faults for one in found.values()] == [[]] * 5


def test_a_day_is_held_against_the_days_before_it(shop):
    [day] = reports(shop)["context.tab"].drift
    assert str(day.day) == "1970-01-03"
    assert day.new_categories == 1.0
    assert day.psi == pytest.approx(2 * (0.9 - 0.1) * log(0.9 / 0.1))
    [day] = reports(shop)["item.seller"].drift
    assert (day.psi, day.new_categories) == (0.0, 0.0)
    remarks = reports(shop)["context.tab"].remarks
    assert remarks[0] == "drifts: PSI 3.52 on 1970-01-03"
    assert "100.0% of the last day's impressions have a category never seen before" in remarks[1]


def test_a_day_is_held_against_all_days_before_it_not_the_last():
    seen = SeenValues(Feature(type=Kind.CATEGORICAL))
    for day, value in enumerate((1, 2, 1), start=1):
        seen.add_day(date(2025, 1, day), np.full(10, value))
    second, third = seen.drift
    assert third.new_categories == 0.0
    expected = psi(np.array([10, 10]), np.array([10, 0]))
    assert third.psi == pytest.approx(expected)
    assert second.psi > third.psi


def test_the_index_of_two_populations_by_hand():
    # Shares 10.5/31 and 20.5/31 before, 20.5/31 and 10.5/31 now.
    expected = 2 * (10 / 31) * log(20.5 / 10.5)
    assert psi(np.array([10, 20, 0]), np.array([20, 10, 0])) == pytest.approx(expected)


def test_more_categories_than_have_rows_are_told(shop):
    [remark] = reports(shop)["item.seller"].remarks
    assert remark.startswith("3 categories, of which 2 have rows of their own (max_categories)")


@pytest.mark.parametrize(
    ("change", "key", "says"),
    [
        (("age: {type: number}", "years: {type: number}"), "user.years", "column years is missing"),
        (("city: {type: categorical, default: nowhere}", "city: {type: number}"), "user.city",
         "column city is string, expected a number"),
        (("tab: {type: categorical}", "tab: {type: number}"), "context.tab", "is string"),
        (("tab: {type: categorical}", "hour: {type: number}"), "context.hour",
         "no file of the impression log has a column hour"),
        (("users.parquet", "none.parquet"), "user.city", "none.parquet: cannot be read as Parquet"),
        ((", valid_from: since", ""), "user.age", "user_id 1 has two rows, expected one"),
        (("id: item_id", "id: seller"), "item.price", "seller 7 has two rows"),
        (("file: items.parquet, id: item_id", "file: users.parquet, id: user_id"), "item.price",
         "column price is missing"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_named_and_the_others_are_judged(shop, change, key, says):
    found = reports(shop, FILE.replace(*change))
    [fault] = found[key].faults
    assert says in fault
    assert any(not one.faults for one in found.values())


def test_ids_that_are_not_those_of_the_log_are_a_fault(shop):
    table = pq.read_table(shop / "items.parquet")
    ids = pa.array([90, 91, 92, 93])
    pq.write_table(table.set_column(0, "item_id", ids), shop / "items.parquet")
    [fault] = reports(shop)["item.price"].faults
    assert fault == "no impression has a value of price: other ids, or rows that hold later"


@pytest.fixture
def uic(shop, monkeypatch, capsys):
    def run(*words):
        monkeypatch.setattr(sys, "argv", ["uic", "features", *words, "-w", str(shop)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, *capsys.readouterr()

    return run


def test_the_command_prints_a_table_and_writes_a_page(shop, uic):
    status, out, err = uic("check")
    assert status == 0
    assert "user.city" in out
    assert "remark: item.price: 25.0% of the column is NaN" in err
    page = (shop / "reports" / "features.html").read_text()
    assert "Rome" in page
    assert "<svg" in page
    status, out, _ = uic("check", "--json")
    assert json.loads(out)[0]["key"] == "user.city"


def test_an_unusable_feature_ends_with_status_3(shop, uic):
    (shop / "features.yaml").write_text(
        FILE.replace("tab: {type: categorical}", "x: {type: number}")
    )
    status, out, err = uic("check")
    assert status == 3
    assert "item.price" in out
    assert "context.x cannot be used: no file of the impression log has a column x" in err


def test_show_prints_what_applies(uic):
    status, out, _ = uic("show", "--json")
    assert status == 0
    assert json.loads(out)[0] == {
        "owner": "user", "name": "city", "type": "categorical", "width": 8, "rows": None,
        "min_count": 5, "max_categories": 100_000, "default": "nowhere",
    }  # fmt: skip


def test_features_of_events_are_held_against_the_behaviours(tmp_path):
    prices = [1.0, 2.0, None, float("nan")]  # NaN that is no null: a value of the wrong type
    table = pa.table(
        {
            "user_id": [1, 2, 3, 4],
            "item_id": [1, 2, 3, 4],
            "category_id": [0] * 4,
            "behavior": pa.array([0] * 4, pa.int8()),
            "event_time": pa.array([DAY + at for at in range(4)], pa.timestamp("ms")),
            "event.price": pa.array(prices, pa.float64()),
        }
    )
    log_ = EventLog(tmp_path / "log")
    with LogWriter(log_, Part("test"), time_zone="UTC") as writer:
        writer.add_behaviors(table)
        writer.note_columns([EventColumn(name="price", kind="number", field="price")])
        writer.publish()
    text = "version: 1\nevent: {price: {type: number}, shop: {type: categorical}}\n"
    (tmp_path / "features.yaml").write_text(text)
    price, shop = check_features(load_features(tmp_path / "features.yaml"), log_)
    assert (price.key, price.source, price.coverage) == ("event.price", "behaviours: price", 0.5)
    assert price.quantiles["1"] == 2.0
    assert price.faults == []
    assert "25.0% of behaviours have a value of the wrong type" in price.remarks[-1]
    assert shop.faults[0].startswith("no file of the behaviour log has a column event.shop")
    (tmp_path / "features.yaml").write_text("version: 1\nevent: {price: {type: categorical}}\n")
    (other,) = check_features(load_features(tmp_path / "features.yaml"), log_)
    assert "column event.price is double, expected int64" in other.faults[0]
