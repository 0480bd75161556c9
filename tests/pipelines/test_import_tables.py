"""Any CSV or Parquet file: what becomes of its columns, and how bad files are refused."""

import json
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.pipelines.imported import behaviors, rejects, run
from uic.models.errors import BadInputError
from uic.pipelines.importers import text
from uic.pipelines.importers.table import TableColumns, TableImporter, TimeUnit
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.text_ids import number_of
from uic.pipelines.log.writer import LogWriter, Part

COLUMNS = TableColumns("who", "what", "when")


def test_a_csv_table_with_string_ids_keeps_one_table_of_ids(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log")
    columns = TableColumns(
        "who",
        "what",
        "when",
        behavior="did",
        behavior_names={"pv": "click"},
        string_ids=frozenset({"user", "item"}),
        time_unit=TimeUnit.ISO,
    )
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    first.write_text(
        '\ufeffwho,did,"what",when\nann,pv,x,2024-01-01T00:00:00\n"bob",buy,x,1970-01-01\n'
    )
    second.write_text(
        "when,who,did,what\n2024-01-01T00:00:01+00:00,ann,cart,y\nnever,bob,pv,x\n"
        "2024-01-01 00:00:02, ,pv,x\n"
    )
    run(TableImporter(first, columns), log)
    summary = run(TableImporter(second, columns), log)
    assert rejects(summary) == [(3, "wrong_type"), (4, "missing_field")]
    ann, bob = number_of("ann"), number_of("bob")
    assert [row[0] for row in behaviors(log)] == [bob, ann, ann]
    path = log.ids_file("user")
    assert path is not None
    table = pq.read_table(path)
    assert dict(zip(table["text"].to_pylist(), table["id"].to_pylist(), strict=True)) == {
        "ann": ann,
        "bob": bob,
    }


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_row_that_takes_something_back_is_a_cancellation(tmp_path: Path, kind: str) -> None:
    log, file = EventLog(tmp_path / "log"), tmp_path / f"shop.{kind}"
    start = 1_704_067_200_000  # 2024-01-01
    rows = [(1, 10, start, 6), (1, 10, start + 1, -6), (2, 11, start + 2, 1)]
    if kind == "csv":
        lines = [",".join(map(str, row)) for row in rows]
        file.write_text("\n".join(["who,what,when,many", *lines, ""]))
    else:
        columns = dict(zip(("who", "what", "when", "many"), zip(*rows, strict=True), strict=True))
        pq.write_table(pa.table({name: list(values) for name, values in columns.items()}), file)
    summary = run(TableImporter(file, TableColumns("who", "what", "when", quantity="many")), log)
    assert [reason for _, reason in rejects(summary)] == ["cancellation"]
    assert [row[0] for row in behaviors(log)] == [1, 2]


def test_a_quantity_that_is_no_number_is_no_purchase(tmp_path: Path) -> None:
    log, file = EventLog(tmp_path / "log"), tmp_path / "shop.csv"
    lines = [f"{n},10,{1_704_067_200_000 + n},{many}" for n, many in enumerate(("2", "", "x"), 1)]
    file.write_text("\n".join(["who,what,when,many", *lines, ""]))
    summary = run(TableImporter(file, TableColumns("who", "what", "when", quantity="many")), log)
    assert [reason for _, reason in rejects(summary)] == ["missing_field", "wrong_type"]


def test_texts_and_numbers_of_the_same_users_are_not_mixed(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log")
    texts, numbers = tmp_path / "texts.csv", tmp_path / "numbers.csv"
    texts.write_text("who,what,when\n00003,1,1740821400000\n")
    numbers.write_text("who,what,when\n3,1,1740907800000\n")
    said = TableColumns("who", "what", "when", string_ids=frozenset({"user"}))
    run(TableImporter(texts, said), log)
    before = behaviors(log)
    with pytest.raises(BadInputError, match=r"user ids are numbers here and texts in .*user would"):
        run(TableImporter(numbers, COLUMNS), log)
    assert behaviors(log) == before
    run(TableImporter(numbers, said), log)
    assert len(behaviors(log)) == 2


@pytest.mark.parametrize("kind", ["user", "item"])
def test_texts_come_after_a_topic_whose_producer_sent_their_numbers(
    tmp_path: Path, kind: str
) -> None:
    log = EventLog(tmp_path / "log")
    topic = log.append_epoch(kind="topic", name="t", partitions=1, first_offsets={0: 0})
    with LogWriter(log, Part("day"), time_zone="UTC", topic=topic) as writer:
        event = {
            "user_id": pa.array([number_of("x")]),
            "item_id": pa.array([1]),
            "category_id": pa.array([0]),
            "behavior": pa.array([0], pa.int8()),
            "event_time": pa.array([1_740_821_400_000], pa.timestamp("ms")),
            "log_time": pa.array([1_740_821_400_000], pa.timestamp("ms")),
            "partition": pa.array([0], pa.int32()),
            "offset": pa.array([0], pa.int64()),
        }
        writer.add_behaviors(pa.table(event))
        writer.publish()
    texts = tmp_path / "texts.csv"
    texts.write_text("who,what,when,clicked\n3,1,1740821400000,1\n")
    said = TableColumns("who", "what", "when", clicked="clicked", string_ids=frozenset({kind}))
    run(TableImporter(texts, said), log, impressions_only=True)
    assert log.ids_file(kind) is not None
    numbers = TableColumns("who", "what", "when", clicked="clicked")
    texts.write_text("who,what,when,clicked\n3,1,1740907800000,1\n")
    with pytest.raises(BadInputError, match="ids are numbers here and texts in"):
        run(TableImporter(texts, numbers), log, impressions_only=True)


def test_decimal_seconds_of_a_csv_are_those_of_a_parquet_file(tmp_path: Path) -> None:
    stamps, seen = [1_740_821_400.25, 1_740_821_401.0, 1_740_821_402.9996], []
    rows = "".join(f"{n},{n},{stamp}\n" for n, stamp in enumerate(stamps, 1))
    (tmp_path / "a.csv").write_text("who,what,when\n" + rows)
    columns = {"who": [1, 2, 3], "what": [1, 2, 3], "when": stamps}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    for name in ("a.csv", "a.parquet"):
        log = EventLog(tmp_path / name.partition(".")[2])
        seconds = TableColumns("who", "what", "when", time_unit=TimeUnit.SECONDS)
        run(TableImporter(tmp_path / name, seconds), log)
        seen.append(behaviors(log))
    assert seen[0] == seen[1]


def test_a_parquet_table_says_its_types_itself(tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    stamps = [datetime(2024, 1, 1), None, datetime(2024, 1, 2)]  # noqa: DTZ001 - as in a file
    table = pa.table(
        {
            "who": ["ann", "bob", "cy"],
            "what": pa.array([1, 2, 2**63], pa.uint64()),
            "when": pa.array(stamps, pa.timestamp("us")),
            "seen": [True, False, True],
        }
    )
    pq.write_table(table, file)
    log = EventLog(tmp_path / "log")
    summary = run(TableImporter(file, TableColumns("who", "what", "when", clicked="seen")), log)
    assert behaviors(log) == [(number_of("ann"), 1, 0, "click", 1_704_067_200_000)]
    assert rejects(summary) == [(2, "missing_field"), (3, "id_out_of_range")]
    assert [file.rows for file in log.impression_files()] == [1]


def test_a_click_column_makes_impressions_and_clicks(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("who,what,when,seen\n1,2,5,0\n1,3,6,true\n1,4,7,maybe\n")
    log = EventLog(tmp_path / "log")
    summary = run(TableImporter(file, TableColumns("who", "what", "when", clicked="seen")), log)
    assert behaviors(log) == [(1, 3, 0, "click", 6)]
    (shown,) = log.impression_files()
    assert pq.read_table(shown.path)["clicked"].to_pylist() == [False, True]
    assert rejects(summary) == [(4, "wrong_type")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"who,what\n1,2\n", r"t\.csv: column when is missing; found who, what"),
        (b"who,who,what,when\n1,2,3,4\n", r"column who is there twice, in places 1, 2"),
        (b"wh\xff,what,when\n1,2,3\n", r"t\.csv: line 1 is not UTF-8"),
        (b"", r"t\.csv: is empty"),
        (b"who,what,when\n", r"t\.csv: no row could be imported"),
        (b"who,what,when\n1,x,5\n1,y,6\n", r"column what holds no whole .* found 'x'"),
        (b"who,what,when\n1,x,5\ny,2,6\n", r"first: .*t\.csv: line 2: wrong_type: '1,x,5'"),
    ],
)
def test_a_csv_table_of_another_shape_is_refused(
    tmp_path: Path, content: bytes, message: str
) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(content)
    with pytest.raises(BadInputError, match=message):
        run(TableImporter(file, COLUMNS), EventLog(tmp_path / "log"))


def test_a_parquet_table_of_another_shape_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    pq.write_table(pa.table({"who": [1], "what": [2]}), file)
    with pytest.raises(BadInputError, match=r"t\.parquet: column when is missing"):
        TableImporter(file, COLUMNS)
    pq.write_table(pa.table({"who": [1.5], "what": [2], "when": [3]}), file)
    with pytest.raises(BadInputError, match=r"column who is double.* expected integers or"):
        run(TableImporter(file, COLUMNS), EventLog(tmp_path / "log"))


def test_broken_lines_keep_their_numbers_over_blocks(tmp_path: Path) -> None:
    from uic.pipelines.importers.source import Rejects
    from uic.pipelines.importers.text import csv_rows

    file = tmp_path / "t.csv"
    file.write_text("".join(f"{n},x\n" if n % 7 else f"{n}\n" for n in range(1, 101)))
    with closing(Rejects(tmp_path / "r")) as found:
        blocks = list(csv_rows(file, ["n", "x"], ["n"], found, block_bytes=50))
    assert len(blocks) > 3
    for block in blocks:
        assert block.columns["n"].to_pylist() == [str(line).encode() for line in block.lines]
    lines = [json.loads(line)["line"] for line in (tmp_path / "r").read_text().splitlines()]
    assert lines == list(range(7, 101, 7))


def test_an_open_quote_costs_one_line(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text('who,what,when\n1,2,3\n"1,2,3\n1,2,4\n1,2,5\n')
    log = EventLog(tmp_path / "log")
    summary = run(TableImporter(file, COLUMNS), log)
    assert [row[4] for row in behaviors(log)] == [3, 4, 5]
    assert rejects(summary) == [(3, "malformed")]


def test_a_last_block_without_a_number_costs_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text.line_blocks, "__defaults__", (20,))
    monkeypatch.setitem(text.csv_rows.__kwdefaults__, "block_bytes", 20)
    file = tmp_path / "t.csv"
    file.write_text("who,what,when\n11111,22222,333\n11111,22222,334\nann,x,soon\n")
    log = EventLog(tmp_path / "log")
    assert rejects(run(TableImporter(file, COLUMNS), log)) == [(4, "wrong_type")]
