"""Files that are nearly right: a row's fault costs the row, a column's fault is one line."""

import json
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uic.models.errors import BadInputError
from uic.pipelines.importers.ali_brand import AliBrand
from uic.pipelines.importers.amazon import Amazon
from uic.pipelines.importers.kuairand import KuaiRand
from uic.pipelines.importers.run import ImportSummary, run_import
from uic.pipelines.importers.source import Importer
from uic.pipelines.importers.table import TableColumns, TableImporter
from uic.pipelines.importers.taobao import Taobao
from uic.pipelines.log.event_log import EventLog

COLUMNS = TableColumns("u", "i", "t")
TWO = pa.array([1, 2])


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / "log")


def run(importer: Importer, log: EventLog) -> ImportSummary:
    return run_import(importer, log, time_zone="UTC", partitions=2, any_time=True)


def rejects(summary: ImportSummary) -> list[tuple[int, str]]:
    assert summary.rejects_path is not None
    lines = summary.rejects_path.read_text().splitlines()
    return [(entry["line"], entry["reason"]) for entry in map(json.loads, lines)]


def parquet(path: Path, **columns: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def test_a_broken_line_that_is_not_utf8_costs_itself(tmp_path: Path, log: EventLog) -> None:
    file = tmp_path / "taobao.csv"
    file.write_bytes(b"1,2,3,pv,5\n1,2,\xff\xfe\n1,2,3,pv,6\n")
    summary = run(Taobao(file), log)
    assert summary.publication.behaviors == 2
    assert rejects(summary) == [(2, "malformed")]


@pytest.mark.parametrize("broken", [b'1,"\xff,2\n', b'1,"x,2\n', b"\xff\n"])
def test_quotes_and_bytes_that_are_no_text_cost_their_lines(
    tmp_path: Path, log: EventLog, broken: bytes
) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(b"u,i,t\n1,2,3\n" + broken + b"1,2,4\n1,\xfe,5\n1,2,6\n")
    summary = run(TableImporter(file, COLUMNS), log)
    assert summary.publication.behaviors == 3
    assert [line for line, _ in sorted(rejects(summary))] == [3, 5]


@pytest.mark.parametrize(
    ("clicked", "impressions", "found"),
    [
        (pa.array(["yes", "0"]), 1, [(1, "wrong_type")]),
        (pa.array(["TRUE", None]), 1, [(2, "missing_field")]),
        (pa.array([1.0, None]), 1, [(2, "missing_field")]),
        (pa.array([1, 2**64 - 1], pa.uint64()), 2, []),
    ],
)
def test_a_clicked_column_of_any_plain_type(
    tmp_path: Path, log: EventLog, clicked: pa.Array, impressions: int, found: list[Any]
) -> None:
    file = parquet(tmp_path / "t.parquet", u=TWO, i=TWO, t=TWO, c=clicked)
    summary = run(TableImporter(file, TableColumns("u", "i", "t", clicked="c")), log)
    assert summary.publication.impressions == impressions
    assert (rejects(summary) if found else []) == found


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"c": pa.array([[1], [2]])}, r"column c is list<.*>, expected integers or strings"),
        ({"c": TWO.cast(pa.timestamp("ms"))}, r"column c is timestamp\[ms\], expected"),
    ],
)
def test_a_clicked_column_of_another_type_is_refused(
    tmp_path: Path, log: EventLog, columns: dict[str, pa.Array], message: str
) -> None:
    file = parquet(tmp_path / "t.parquet", u=TWO, i=TWO, t=TWO, **columns)
    with pytest.raises(BadInputError, match=message):
        run(TableImporter(file, TableColumns("u", "i", "t", clicked="c")), log)


def test_a_parquet_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    pq.write_table(pa.Table.from_arrays([TWO] * 4, names=["u", "i", "t", "t"]), file)
    with pytest.raises(BadInputError, match=r"t\.parquet: column t is there twice"):
        TableImporter(file, COLUMNS)


def test_brands_on_days_that_the_log_cannot_hold_are_rejects(tmp_path: Path, log: EventLog) -> None:
    days = pa.array([-1, 0, 2**30], pa.int32()).cast(pa.date32())
    file = parquet(
        tmp_path / "b.parquet",
        user_id=[1, 1, 1], brand_id=[7, 7, 7], type=[0, 0, 0], date=days, row=[1, 2, 3],
    )  # fmt: skip
    summary = run(AliBrand(file, "UTC"), log)
    assert [file.dt for file in log.behavior_files()] == [date(1970, 1, 1)]
    assert rejects(summary) == [(1, "event_time_out_of_range"), (3, "event_time_out_of_range")]


def test_products_and_reviews_that_are_no_text_are_rejects(tmp_path: Path, log: EventLog) -> None:
    reviews, meta = tmp_path / "reviews.json", tmp_path / "meta.json"
    meta.write_text('{"asin":"a","categories":[["x"]]}\n' + "{'asin': '\\ud800'}\n")
    reviews.write_bytes(
        b'{"reviewerID":"u","asin":"a","unixReviewTime":86400}\n'
        b'{"reviewerID":"\\ud800","asin":"a","unixReviewTime":86400}\n'
        b'{"reviewerID":"u","asin":"a","unixReviewTime":123456789012345678901234567890}\n\xff\n'
    )
    summary = run(Amazon(reviews, meta), log)
    assert summary.publication.behaviors == 1
    assert summary.rejects["malformed"] == 3


def kuairand(folder: Path, **impressions: pa.Array) -> Path:
    shown = {"user_id": TWO, "video_id": TWO, "tag": ["1", None], "time_ms": TWO, "is_click": TWO}
    parquet(folder / "impressions.parquet", **{**shown, **impressions})
    parquet(folder / "videos.parquet", video_id=TWO, tag=["1", "2"])
    parquet(
        folder / "user_sequences.parquet",
        user_id=pa.array([1, None]),
        last_time_ms=pa.array([5_000, 5_000]),
        watch_seq=pa.array([[1, None, 2], [1]]),
    )
    return folder


def test_nulls_and_narrow_integers_of_kuairand(tmp_path: Path, log: EventLog) -> None:
    folder = kuairand(
        tmp_path / "k",
        user_id=pa.array([1, 2], pa.int32()),
        video_id=pa.array([1, 2**64 - 1], pa.uint64()),
        tab=pa.array([1, None]),
    )
    summary = run(KuaiRand(folder), log)
    # Earlier videos of user 1 at 3 and 5 s, whose second is null, and one impression.
    assert (summary.publication.behaviors, summary.publication.impressions) == (3, 1)
    assert sorted(rejects(summary)) == [
        (1, "missing_field"), (2, "id_out_of_range"), (2, "missing_field"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "column", "message"),
    [
        ("tab", pa.array([1, 70_000]), "column tab is int64, expected what fits int16"),
        ("tab", pa.array(["a", "b"]), "column tab is string, expected what fits int16"),
        ("time_ms", pa.array([1.0, 2.0]), "column time_ms is double, expected an integer"),
    ],
)
def test_a_column_of_kuairand_that_does_not_fit_is_named(
    tmp_path: Path, log: EventLog, name: str, column: pa.Array, message: str
) -> None:
    folder = kuairand(tmp_path / "k", **{name: column})
    with pytest.raises(BadInputError, match=rf"impressions\.parquet: {message}"):
        run(KuaiRand(folder), log)
    assert log.epochs() == ()


META = b"""{"asin":"a","categories":[["x"]]}\n"""


def test_amazon_reviews_with_a_mark_empty_ids_and_missing_fields(
    tmp_path: Path, log: EventLog
) -> None:
    reviews, meta = tmp_path / "reviews.json", tmp_path / "meta.json"
    meta.write_bytes(b"\xef\xbb\xbf" + META + b"{broken\n")
    reviews.write_bytes(
        b'\xef\xbb\xbf{"reviewerID":"u","asin":"a","unixReviewTime":1355616000}\n'
        b'{"reviewerID":"","asin":"a","unixReviewTime":1355616000}\n'
        b'{"reviewerID":"u","asin":"","unixReviewTime":1355616000}\n'
        b'{"reviewerID":"u","asin":"a"}\n'
        b'{"reviewerID":"u","asin":7,"unixReviewTime":1355616000}\n'
    )
    zone = "America/Los_Angeles"
    importer = Amazon(reviews, meta, zone)
    summary = run_import(importer, log, time_zone=zone, partitions=2)
    assert [file.dt for file in log.behavior_files()] == [date(2012, 12, 16)]
    assert rejects(summary) == [
        (2, "malformed"),  # of the products
        (2, "missing_field"), (3, "missing_field"), (4, "missing_field"), (5, "wrong_type"),
    ]  # fmt: skip


def test_amazon_faults_name_the_file_of_reviews(tmp_path: Path, log: EventLog) -> None:
    reviews, meta = tmp_path / "reviews.json", tmp_path / "meta.json"
    meta.write_bytes(META + b"{broken\n")
    reviews.write_bytes(b'{"user_id":"u","parent_asin":"a","timestamp":1588687728923}\n')
    with pytest.raises(BadInputError, match=r"reviews\.json: line 1: .* as the set of 2023"):
        run(Amazon(reviews, meta), log)
    reviews.write_bytes(b'{"reviewerID":"u"}\n')
    with pytest.raises(BadInputError, match=r"first: .*reviews\.json: line 1: missing_field"):
        run(Amazon(reviews, meta), log)


@pytest.mark.parametrize(
    ("column", "numbers"),
    [
        (pa.array([1.0, None]), [1]),
        (pa.array([1.0, float("nan")], pa.float32()), [1]),
        (pa.array([Decimal(25), None], pa.decimal128(18, 0)), [25]),
        (pa.array([Decimal("7.00"), None], pa.decimal128(10, 2)), [7]),
    ],
)
def test_whole_floats_and_decimals_are_ids(
    tmp_path: Path, log: EventLog, column: pa.Array, numbers: list[int]
) -> None:
    summary = run(
        TableImporter(parquet(tmp_path / "t.parquet", u=column, i=TWO, t=TWO), COLUMNS), log
    )
    assert pq.read_table(log.behavior_files()[0].path)["user_id"].to_pylist() == numbers
    assert rejects(summary) == [(2, "missing_field")]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([1.5, 2.0]), r"column u is double, and not .* a pandas column with a null"),
        (pa.array([2.0**53 + 2, 1]), r"column u is double and holds ids above 2\^53"),
        (
            pa.array([Decimal("1.5"), Decimal(1)]),
            r"u is decimal.*not every value is a whole",
        ),
        (pa.array([True, False]), r"column u is bool, expected integers or strings"),
    ],
)
def test_ids_of_another_type_name_the_column_and_the_way(
    tmp_path: Path, log: EventLog, column: pa.Array, message: str
) -> None:
    with pytest.raises(BadInputError, match=message):
        run(TableImporter(parquet(tmp_path / "t.parquet", u=column, i=TWO, t=TWO), COLUMNS), log)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            b"00000025,1,5\n25,1,6\n",
            r"u: found '00000025'; .* not '25'\): say --string-id user",
        ),
        (b"ann,1,5\nbob,1,6\n", r"column u holds no whole numbers .*'ann': say --string-id user"),
        (b"99999999999999999999,1,5\n", r"column u holds no whole numbers below 2\^63"),
        (b"", r"no row could be imported; it has none"),
    ],
)
def test_texts_for_numbers_in_csv_name_the_option(
    tmp_path: Path, log: EventLog, rows: bytes, message: str
) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(b"u,i,t\n" + rows)
    with pytest.raises(BadInputError, match=message):
        run(TableImporter(file, COLUMNS), log)
    assert log.epochs() == ()


def test_leading_zeros_of_texts_stay(tmp_path: Path, log: EventLog) -> None:
    file = tmp_path / "t.csv"
    file.write_text("u,i,t\n007,1.0,5\n7,2,6\n")
    run(TableImporter(file, TableColumns("u", "i", "t", string_ids=frozenset({"user"}))), log)
    path = log.ids_file("user")
    assert path is not None
    assert sorted(pq.read_table(path)["text"].to_pylist()) == ["007", "7"]
