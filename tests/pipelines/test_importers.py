"""Importers of data sets: what each format becomes, and how bad files are refused."""

import gzip
import json
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.pipelines.imported import behaviors, rejects, run
from uic.models.errors import BadInputError
from uic.pipelines.importers.ali_brand import AliBrand
from uic.pipelines.importers.amazon import Amazon
from uic.pipelines.importers.kuairand import KuaiRand
from uic.pipelines.importers.table import TableColumns, TableImporter
from uic.pipelines.importers.taobao import Taobao
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.text_ids import category_number_of, number_of
from uic.pipelines.log.writer import DuplicateImportError

SAME = ("c12836", "c52371")  # two texts with one category number, found by trying


def test_taobao_rows_become_behaviours_and_broken_lines_rejects(tmp_path: Path) -> None:
    file = tmp_path / "taobao.csv"
    file.write_bytes(
        b"1,10,100,pv,1511544070\r\n"
        b"1,11,100,fav,1511544071\r\n"
        b"2,12\r\n"  # broken
        b"2,12,101,look,1511544072\n"
        b"2,\xff,101,pv,1511544072\n"
        b"2,0x1F,101,pv,1511544072\n"
        b"-2,12,101,pv,1511544072\n"
        b"2,12,101,pv,-5\n"
        b"2,12,101,pv,99999999999999\n"
        b"9223372036854775808,12,101,pv,1511544072\n"
        b'"2,12,101,pv,1511544072\n'
        b"2,13,101,cart,1511544073\n"
        b"2,14,101,buy,1511544074"
    )
    log = EventLog(tmp_path / "log")
    summary = run(Taobao(file), log)
    assert behaviors(log) == [
        (1, 10, 100, "click", 1_511_544_070_000),
        (1, 11, 100, "favourite", 1_511_544_071_000),
        (2, 13, 101, "cart", 1_511_544_073_000),
        (2, 14, 101, "buy", 1_511_544_074_000),
    ]
    assert sorted(rejects(summary)) == [
        (3, "malformed"),
        (4, "unknown_behavior"),
        (5, "wrong_type"),
        (6, "wrong_type"),
        (7, "id_out_of_range"),
        (8, "event_time_out_of_range"),
        (9, "event_time_out_of_range"),
        (10, "wrong_type"),
        (11, "wrong_type"),
    ]
    (manifest,) = log.manifests()
    assert manifest["sources"][0]["name"] == "taobao.csv"
    assert [entry["rows"] for entry in manifest["files"] if entry["table"] == "rejects"] == [9]


def test_the_same_file_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "taobao.csv"
    file.write_text("1,10,100,pv,1511544070\n")
    log = EventLog(tmp_path / "log")
    run(Taobao(file), log)
    with pytest.raises(DuplicateImportError, match=r"taobao\.csv: already in the log as epoch 1"):
        run(Taobao(file), log)
    run(Taobao(file), log, again=True)
    assert [epoch.number for epoch in log.epochs()] == [1, 2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"taobao\.csv: is empty"),
        (b"a,b\n", r"no row could be imported; first: .*line 1: malformed"),
        (b"\x1f\x8b\x08\x00broken", r"taobao\.csv: cannot be read"),
    ],
)
def test_a_file_without_a_good_row_leaves_nothing(
    tmp_path: Path, content: bytes, message: str
) -> None:
    file = tmp_path / "taobao.csv"
    file.write_bytes(content)
    log = EventLog(tmp_path / "log")
    with pytest.raises(BadInputError, match=message):
        run(Taobao(file), log)
    left = [path.name for path in log.root.rglob("*") if path.is_file()]
    assert left in ([], [".lock"])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"none\.csv: no such file"):
        run(Taobao(tmp_path / "none.csv"), EventLog(tmp_path / "log"))
    with pytest.raises(BadInputError, match=r"none: no such folder"):
        KuaiRand(tmp_path / "none")


def brands(path: Path, **columns: Any) -> Path:
    data = {
        "user_id": [5, 5, 6],
        "brand_id": [50, 51, 50],
        "type": pa.array([0, 1, 3], pa.int8()),
        "date": [date(2013, 6, 18), date(2013, 6, 4), date(2013, 6, 18)],
        "row": pa.array([0, 1, 2], pa.int32()),
        **columns,
    }
    pq.write_table(pa.table({key: value for key, value in data.items() if value is not None}), path)
    return path


def test_brand_rows_keep_their_order_within_a_day(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log")
    run(AliBrand(brands(tmp_path / "b.parquet"), "Asia/Shanghai"), log, time_zone="Asia/Shanghai")
    june_4, june_18 = 1_370_275_200_000, 1_371_484_800_000  # midnight in Shanghai
    assert behaviors(log) == [
        (5, 51, 51, "buy", june_4),
        (5, 50, 50, "click", june_18),
        (6, 50, 50, "cart", june_18 + 1),
    ]
    assert [file.dt.day for file in log.behavior_files()] == [4, 18]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"type": None}, r"b\.parquet: column type is missing; found user_id, brand_id"),
        ({"type": ["a", "b", "c"]}, r"b\.parquet: column type is string, expected an integer"),
        ({"row": [0, 2, 1]}, r"b\.parquet: row 3: column row is 1 after 2, .*sort the file"),
    ],
)
def test_a_brand_file_of_another_shape_is_refused(
    tmp_path: Path, columns: dict, message: str
) -> None:
    with pytest.raises(BadInputError, match=message):
        run(AliBrand(brands(tmp_path / "b.parquet", **columns), "UTC"), EventLog(tmp_path / "log"))


def test_truncated_and_damaged_parquet_is_refused(tmp_path: Path) -> None:
    file = brands(tmp_path / "b.parquet")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInputError, match=r"b\.parquet: cannot be read"):
        AliBrand(file, "UTC")
    file.write_bytes(whole[:4] + bytes(200) + whole[204:])  # the footer is whole, the pages not
    with pytest.raises(BadInputError, match=r"b\.parquet: cannot be read"):
        run(AliBrand(file, "UTC"), EventLog(tmp_path / "log"))
    pq.write_table(pq.read_table(brands(file)).slice(0, 0), file)
    with pytest.raises(BadInputError, match=r"b\.parquet: has no rows"):
        AliBrand(file, "UTC")


def kuairand(folder: Path) -> Path:
    folder.mkdir()
    shown = {
        "user_id": [1, 1, 2],
        "video_id": [10, 11, 12],
        "tag": ["12,65", "unknown", "3"],
        "time_ms": [1_650_813_000_000, 1_650_813_000_500, 1_650_813_001_000],
        "is_click": [1, 0, 1],
        "tab": [1, 2, 1],
        "long_view": [0, None, 1],
    }
    videos = {"video_id": [10, 11, 12], "tag": ["12,65", None, "3"]}
    before = {
        "user_id": [1],
        "last_time_ms": [1_650_812_000_000],
        "watch_seq": [[12, 99, 10]],
    }
    pq.write_table(pa.table(shown), folder / "impressions.parquet")
    pq.write_table(pa.table(videos), folder / "videos.parquet")
    pq.write_table(pa.table(before), folder / "user_sequences.parquet")
    return folder


def test_kuairand_clicks_are_behaviours_and_earlier_videos_come_before(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log")
    run(KuaiRand(kuairand(tmp_path / "k")), log)
    assert behaviors(log) == [
        (1, 12, 3, "click", 1_650_811_998_000),
        (1, 99, 0, "click", 1_650_811_999_000),
        (1, 10, 12, "click", 1_650_812_000_000),
        (1, 10, 12, "click", 1_650_813_000_000),
        (2, 12, 3, "click", 1_650_813_001_000),
    ]
    (file,) = log.impression_files()
    table = pq.read_table(file.path)
    assert table["clicked"].to_pylist() == [True, False, True]
    assert table["category_id"].to_pylist() == [12, 0, 3]
    assert table["tab"].to_pylist() == [1, 2, 1]
    assert table["label.long_view"].to_pylist() == [False, None, True]
    assert "long_view" not in table.column_names
    assert "order is real" in " ".join(log.manifests()[0]["notes"])


def test_kuairand_without_prior_history(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log")
    folder = kuairand(tmp_path / "k")
    (folder / "user_sequences.parquet").unlink()
    with pytest.raises(BadInputError, match="--no-prior-history does without"):
        KuaiRand(folder)
    run(KuaiRand(folder, prior_history=False), log)
    assert [row[4] for row in behaviors(log)] == [1_650_813_000_000, 1_650_813_001_000]


def test_amazon_reviews_are_buys_with_string_ids(tmp_path: Path) -> None:
    reviews, meta = tmp_path / "r.json.gz", tmp_path / "m.json"
    lines = [
        {"reviewerID": "A1", "asin": "B1", "unixReviewTime": 1_355_616_000, "overall": 5.0},
        {"reviewerID": "A1", "asin": "B9", "unixReviewTime": 1_355_616_000},
        {"reviewerID": "A2", "asin": "B1", "unixReviewTime": "soon"},
    ]
    with gzip.open(reviews, "wt") as stream:
        stream.write("\n".join(map(json.dumps, lines)) + "\n{broken\n")
    meta.write_text("{'asin': 'B1', 'categories': [['Books'], ['Books', 'Poetry']]}\nnothing\n")
    log = EventLog(tmp_path / "log")
    summary = run(Amazon(reviews, meta), log)
    user, time = number_of("A1"), 1_355_616_000_000
    assert sorted(behaviors(log)) == sorted(
        [
            (user, number_of("B1"), category_number_of("Poetry"), "buy", time),
            (user, number_of("B9"), category_number_of("unknown"), "buy", time),
        ]
    )
    assert sorted(rejects(summary)) == [(2, "malformed"), (3, "wrong_type"), (4, "malformed")]
    path = log.ids_file("item")
    assert path is not None
    assert sorted(pq.read_table(path)["text"].to_pylist()) == ["B1", "B9"]


def test_string_ids_are_the_same_for_ever() -> None:
    assert number_of("A1") == 5_388_016_639_111_198_748
    assert number_of("é") == 1_697_006_002_183_834_981


def test_text_categories_fit_32_bits_and_keep_their_numbers(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log")
    assert category_number_of(SAME[0]) == category_number_of(SAME[1])
    first = category_number_of(SAME[0])
    for name, texts, expected in (
        ("a", [SAME[1], "lamps"], [first, category_number_of("lamps")]),
        ("b", [SAME[0], SAME[1]], [first + 1, first]),
        ("c", [SAME[0]], [first + 1]),
    ):
        file = tmp_path / f"{name}.csv"
        file.write_text("u,i,c,t\n" + "".join(f"1,{n},{c},{n}\n" for n, c in enumerate(texts)))
        columns = TableColumns("u", "i", "t", category_id="c", string_ids=frozenset({"category"}))
        run(TableImporter(file, columns, name), log)
        rows = [row for row in behaviors(log) if row[2] in expected]
        assert {row[2] for row in rows} == set(expected), name
    path = log.ids_file("category")
    assert path is not None
    assert {row["text"]: row["id"] for row in pq.read_table(path).to_pylist()} == {
        SAME[1]: first,
        SAME[0]: first + 1,
        "lamps": category_number_of("lamps"),
    }
    assert category_number_of("lamps") < 2**31
