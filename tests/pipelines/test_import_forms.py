"""What people have: JSON Lines, compressed files, folders, Arrow, nested fields, no header."""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.pipelines.imported import behaviors, rejects, run
from uic.models.errors import BadInputError
from uic.models.features.definition import Owner
from uic.pipelines.importers import text
from uic.pipelines.importers.features import FeatureCollector
from uic.pipelines.importers.table import TableColumns, TableImporter
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.publication import DuplicateImportError
from uic.pipelines.log.text_ids import number_of

COLUMNS = TableColumns("u", "i", "t")


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue().to_pybytes())


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstd,
}


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / "log")


def lines(*documents: Any) -> bytes:
    return b"".join(json.dumps(document).encode() + b"\n" for document in documents)


@pytest.mark.parametrize("suffix", PACKED)
@pytest.mark.parametrize("form", ["csv", "json"])
def test_a_text_file_may_be_compressed_in_any_usual_way(
    tmp_path: Path, log: EventLog, form: str, suffix: str
) -> None:
    content = {
        "csv": b"u,i,t\n1,2,3\n4,5,6\n",
        "json": lines({"u": 1, "i": 2, "t": 3}, {"u": 4, "i": 5, "t": 6}),
    }
    file = tmp_path / f"t.{form}{suffix}"
    # Two members, as `cat a.gz b.gz` leaves them.
    data = content[form]
    file.write_bytes(PACKED[suffix](data[:-1]) + PACKED[suffix](data[-1:]))
    run(TableImporter(file, COLUMNS), log)
    assert [row[:2] for row in behaviors(log)] == [(1, 2), (4, 5)]


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_a_compressed_file_that_is_cut_off_is_one_line(
    tmp_path: Path, log: EventLog, suffix: str
) -> None:
    rows = "".join(f"{n},{n * 7919 % 10007},{n}\n" for n in range(5000))
    data = PACKED[suffix](b"u,i,t\n" + rows.encode())
    file = tmp_path / f"t.csv{suffix}"
    file.write_bytes(data[: len(data) // 2])
    with pytest.raises(BadInputError, match=r"t\.csv.*cannot be read"):
        run(TableImporter(file, COLUMNS), log)
    assert log.epochs() == ()


def test_json_lines_have_their_types_and_nested_fields(tmp_path: Path, log: EventLog) -> None:
    file = tmp_path / "t.jsonl"
    file.write_bytes(
        lines(
            {"who": {"id": "ann"}, "i": 7, "t": 5, "what": {"kind": "buy", "shelf": {"n": 3}}},
            {"who": {"id": "bob"}, "i": 8, "t": 6, "what": {"kind": "click", "shelf": {"n": 4}}},
            {"who": None, "i": 8, "t": 7, "what": {"kind": "click", "shelf": {"n": 4}}},
        )
        + b"\n{broken\n"
    )
    columns = TableColumns("who.id", "i", "t", category_id="what.shelf.n", behavior="what.kind")
    summary = run(TableImporter(file, columns), log)
    assert behaviors(log) == [
        (number_of("ann"), 7, 3, "buy", 5),
        (number_of("bob"), 8, 4, "click", 6),
    ]
    assert rejects(summary) == [(5, "malformed"), (3, "missing_field")]


@pytest.mark.parametrize("as_text", [False, True])
def test_a_dump_of_kafka_is_taken_apart(tmp_path: Path, log: EventLog, *, as_text: bool) -> None:
    events = [{"u": 1, "i": 10, "t": 5}, {"u": 2, "i": 11, "t": 6}]
    dump = [
        {"topic": "shop", "partition": 0, "offset": n, "key": None,
         "value": json.dumps(event) if as_text else event}
        for n, event in enumerate(events)
    ]  # fmt: skip
    file = tmp_path / "dump.json"
    file.write_bytes(lines(*dump))
    run(TableImporter(file, TableColumns("value.u", "i", "t", category_id="partition")), log)
    assert [row[:3] for row in behaviors(log)] == [(1, 10, 0), (2, 11, 0)]


def test_blocks_of_json_agree_on_types(
    tmp_path: Path, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text.line_blocks, "__defaults__", (40,))
    file = tmp_path / "t.jsonl"
    file.write_bytes(
        lines(*({"u": n, "i": n, "t": n, "p": price} for n, price in enumerate((1, None, 2.5, 3))))
    )
    features = {Owner.EVENT: {"price": "p"}}
    columns = TableColumns("u", "i", "t", features=features)
    run(TableImporter(file, columns), log, features=FeatureCollector(tmp_path))
    (day,) = log.behavior_files()
    rows = pq.read_table(day.path).to_pylist()
    assert {row["user_id"]: row["event.price"] for row in rows} == {0: 1.0, 1: None, 2: 2.5, 3: 3.0}
    file.write_bytes(lines(*({"u": user, "i": 1, "t": 1} for user in (1, 2, 3, "x"))))
    with pytest.raises(BadInputError, match=r"u holds texts in .*line 4 \('x'\), and numbers in "):
        run(TableImporter(file, COLUMNS), log)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lines([{"u": 1}]), r"t\.json: is JSON, and no line is an object.*jq"),
        (b'{\n "u": 1,\n "i": 2\n}\n', r"no line is an object"),
        (
            lines({"user": 1, "i": 2, "t": 3}),
            r"column u is missing; found user, i, t in the first 1 li",
        ),
        (lines({"u_": 1, "i": 2, "t": 3}), r"column u is missing; did you mean u_\? Found u_, i"),
        (
            lines({"u": 1, "i": 2, "t": 3}, {"u": "x", "i": 2, "t": 4}),
            r"column u holds texts in .*t\.json: line 2 \('x'\), and numbers in .*: line 1 \(1\)",
        ),
        (lines({"u": {"id": 1}, "i": 2, "t": 3}), r"column u holds objects.*u\.FIELD"),
        (lines({"u": 1 << 63, "i": 2, "t": 3}), r"column u holds 9223372036854775808 in line 1"),
        (b"\x89HDF\r\n\x1a\n", r"is HDF5, expected CSV or JSON Lines .*; save it as Parquet"),
        (b"\x00\x01\x02\x03 abc", r"is in no known form \(it begins with b"),
        (zstd(b"PAR1 and so on"), r"is compressed Parquet, .*; unpack it first"),
    ],
)
def test_what_is_no_table_is_one_line(
    tmp_path: Path, log: EventLog, content: bytes, message: str
) -> None:
    file = tmp_path / "t.json"
    file.write_bytes(content)
    with pytest.raises(BadInputError, match=message) as raised:
        run(TableImporter(file, COLUMNS), log)
    assert "\n" not in str(raised.value)
    assert log.epochs() == ()


def test_a_parquet_column_may_have_a_dot_in_its_name(tmp_path: Path, log: EventLog) -> None:
    file = tmp_path / "t.parquet"
    table = {"u.id": [1, 2], "i": [{"id": 10}, None], "t": [5, 6]}
    pq.write_table(pa.table(table), file)
    summary = run(TableImporter(file, TableColumns("u.id", "i.id", "t")), log)
    assert [row[:2] for row in behaviors(log)] == [(1, 10)]
    assert rejects(summary) == [(2, "missing_field")]


@pytest.mark.parametrize("form", ["feather", "zstd", "stream"])
def test_arrow_files_as_feather_and_as_a_stream(tmp_path: Path, log: EventLog, form: str) -> None:
    table = pa.table({"u": [1, 2], "m": [{"i": 10}, {"i": 11}], "t": [5, 6]})
    file = tmp_path / "t.arrow"
    options = pa.ipc.IpcWriteOptions(compression="zstd" if form == "zstd" else None)
    make = pa.ipc.new_stream if form == "stream" else pa.ipc.new_file
    with make(str(file), table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=1)
    importer = TableImporter(file, TableColumns("u", "m.i", "t"))
    run(importer, log)
    assert [row[:2] for row in behaviors(log)] == [(1, 10), (2, 11)]


def test_a_folder_of_days_is_one_import_in_the_order_of_names(
    tmp_path: Path, log: EventLog
) -> None:
    folder = tmp_path / "ds"
    for number in (10, 9):
        part = folder / f"shelf={number}" / "kind=buy"
        part.mkdir(parents=True)
        pq.write_table(pa.table({"u": [number], "i": [{"id": 1}], "t": [5]}), part / "part-0")
    (folder / "_SUCCESS").write_bytes(b"")
    (folder / "_metadata").write_bytes(b"PAR1")
    (folder / ".part-0.crc").write_bytes(b"crc")
    columns = TableColumns("u", "i.id", "t", category_id="shelf", behavior="kind")
    importer = TableImporter(folder, columns)
    assert [path.parent.parent.name for path in importer.sources()] == ["shelf=9", "shelf=10"]
    run(importer, log)
    assert behaviors(log) == [(9, 1, 9, "buy", 5), (10, 1, 10, "buy", 5)]
    part = folder / "shelf=9" / "kind=buy" / "part-0"
    with pytest.raises(DuplicateImportError, match="part-0: already in the log as epoch 1"):
        run(TableImporter(part, TableColumns("u", "i.id", "t")), log)


def test_a_pattern_and_several_files(tmp_path: Path, log: EventLog) -> None:
    for day in (1, 2, 3):
        part = tmp_path / "in" / f"day=2024-01-0{day}"
        part.mkdir(parents=True)
        (part / "t.csv").write_text(f"i,u\n{day},1\n")
    columns = TableColumns("u", "i", "day", time_unit="%Y-%m-%d")
    run(TableImporter(tmp_path / "in" / "day=*" / "*.csv", columns), log)
    days = [file.dt.day for file in log.behavior_files()]
    assert days == [1, 2, 3]
    files = [tmp_path / "a.csv", tmp_path / "b.jsonl"]
    files[0].write_text("u,i,t\n1,2,3\n")
    files[1].write_bytes(lines({"u": 1, "i": 2, "t": 3}))
    with pytest.raises(BadInputError, match=r"b\.jsonl: is a typed file, and .*a\.csv is a text"):
        TableImporter(files, COLUMNS)
    with pytest.raises(BadInputError, match=r"a\.csv: is named twice"):
        TableImporter([files[0], files[0]], COLUMNS)
    with pytest.raises(BadInputError, match=r"x-\*\.csv: no file is named so"):
        TableImporter(tmp_path / "x-*.csv", COLUMNS)


def test_files_of_one_import_agree_on_what_an_id_is(tmp_path: Path, log: EventLog) -> None:
    folder = tmp_path / "ds"
    folder.mkdir()
    pq.write_table(pa.table({"u": [1.0, None], "i": [1, 2], "t": [5, 6]}), folder / "a.parquet")
    pq.write_table(pa.table({"u": [None, "x"], "i": [1, 2], "t": [5, 6]}), folder / "b.parquet")
    message = r"b\.parquet: column u holds texts in .*line 2 \('x'\), and numbers in .*a\.parquet"
    with pytest.raises(BadInputError, match=message):
        run(TableImporter(folder, COLUMNS), log)
    assert log.epochs() == ()


def test_whole_decimals_and_floats_are_text_ids_if_said_so(tmp_path: Path, log: EventLog) -> None:
    file = tmp_path / "t.parquet"
    ids = pa.array([Decimal(7), None], pa.decimal128(18, 0))
    pq.write_table(pa.table({"u": [7.0, 8.0], "i": ids, "t": [5, 6]}), file)
    both = frozenset({"user", "item"})
    summary = run(TableImporter(file, TableColumns("u", "i", "t", string_ids=both)), log)
    assert [row[:2] for row in behaviors(log)] == [(number_of("7"), number_of("7"))]
    assert rejects(summary) == [(2, "missing_field")]


def test_a_file_without_a_header_has_columns_by_place_or_name(
    tmp_path: Path, log: EventLog
) -> None:
    file = tmp_path / "ratings.dat"
    file.write_bytes(b"1::10::5::978300760\n1::11::3::978302109\n2::12::4\n")
    columns = TableColumns("1", "2", "4", behavior="=buy", delimiter="::", header=False)
    summary = run(TableImporter(file, columns), log)
    assert [row[:2] for row in behaviors(log)] == [(1, 10), (1, 11)]
    assert {row[3] for row in behaviors(log)} == {"buy"}
    assert summary.rejects_path is not None
    assert json.loads(summary.rejects_path.read_text())["payload"] == "2::12::4"
    named = TableColumns(
        "user", "item", "at", delimiter="::", header=False, names=("user", "item", "stars", "at")
    )
    run(TableImporter(file, named), EventLog(tmp_path / "named"))
    assert [row[:2] for row in behaviors(EventLog(tmp_path / "named"))] == [(1, 10), (1, 11)]
    short = TableColumns("u", "i", "t", delimiter="::", header=False, names=("u", "i", "t"))
    with pytest.raises(BadInputError, match="line 1 has 4 values, and --names gives 3"):
        TableImporter(file, short)
    with pytest.raises(BadInputError, match=r"the first line looks like data .*--no-header"):
        TableImporter(file, TableColumns("u", "i", "t", delimiter="::"))
    with pytest.raises(BadInputError, match=r"is the separator '::'\? \(--separator\)"):
        TableImporter(file, TableColumns("1", "2", "4", header=False))
