"""Odd files, as data teams have them: each is made by a function, and imported by a command.

Run this module to write `said.txt` anew: `python -m tests.strangers.files`. Then read what changed.
"""

import bz2
import contextlib
import io
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from uic.jobs.cli import main

SAID = Path(__file__).with_name("said.txt")
# Two days of March 2025, five events.
STAMPS = [
    datetime(2025, 3, 1, 9, 30, tzinfo=UTC) + timedelta(hours=7 * step, seconds=step)
    for step in range(5)
]
SECONDS = [int(stamp.timestamp()) for stamp in STAMPS]
MILLISECONDS = [second * 1000 for second in SECONDS]
USERS, ITEMS = [1, 2, 1, 3, 2], [10, 11, 12, 10, 13]
# Sizes differ by the version of Parquet's library; the manifest's name says nothing here.
NOT_SHOWN = ("written", "manifest", "epoch")
COLUMNS = ("--user-id", "user", "--item-id", "item", "--event-time", "time")


@dataclass(frozen=True)
class OddFile:
    """One file.

    Attributes:
        title: what is odd about it.
        name: of the file.
        make: writes it.
        options: of `uic import table`, after the columns.
        zone: of the workspace.
    """

    title: str
    name: str
    make: Callable[[Path], object]
    options: tuple[str, ...] = ()
    zone: str = "UTC"


def csv(
    *rows: str, header: str = "user,item,time", end: str = "\n", encoding: str = "utf-8"
) -> Any:
    """A function that writes lines."""
    lines = [header, *rows] if header else list(rows)
    data = "".join(line + end for line in lines).encode(encoding)
    return lambda path: path.write_bytes(data)


def rows(times: list[Any], users: list[Any] = USERS, items: list[Any] = ITEMS) -> list[str]:
    """Lines of three values."""
    return [f"{u},{i},{t}" for u, i, t in zip(users, items, times, strict=True)]


def parquet(**columns: Any) -> Any:
    """A function that writes a Parquet file; what is not said is plain."""
    table = pa.table({"user": USERS, "item": ITEMS, "time": MILLISECONDS, **columns})
    return lambda path: pq.write_table(table, path)


def nothing(path: Path) -> None:
    """No file at all."""
    del path


def folder(path: Path) -> None:
    """A data set of two files."""
    for day in (1, 2):
        part = path / f"dt=2025-03-0{day}"
        part.mkdir(parents=True)
        parquet()(part / "part-0.parquet")


def local(stamp: datetime) -> datetime:
    """As a database without zones writes it."""
    return stamp.replace(tzinfo=None)


PLAIN = rows(MILLISECONDS)
JSON_LINE = '{"user": 1, "item": 10, "time": 1740821400000}'
ODD_FILES = [
    OddFile("nothing odd", "plain.csv", csv(*PLAIN)),
    OddFile("seconds, read as milliseconds", "seconds.csv", csv(*rows(SECONDS))),
    OddFile("seconds in Parquet", "seconds.parquet", parquet(time=SECONDS)),
    OddFile("seconds, and said so", "seconds_said.csv", csv(*rows(SECONDS)), ("--time-unit", "s")),
    OddFile("microseconds", "micros.csv", csv(*rows([1000 * time for time in MILLISECONDS]))),
    OddFile("numbers of days", "days.csv", csv(*rows([1, 5, 99, 300, 711]))),
    OddFile("one row of the year 2100", "future.csv", csv(*PLAIN, "4,14,4102444800000")),
    OddFile(
        "one row of the year 2100, wanted",
        "wanted.csv",
        csv(*PLAIN, "4,14,4102444800000"),
        ("--any-time",),
    ),
    OddFile("negative times", "negative.csv", csv(*rows([-5, -4, -3, -2, -1]))),
    OddFile(
        "local times in a workspace of London",
        "local.csv",
        csv(*rows([f"{local(stamp)}" for stamp in STAMPS])),
        ("--time-unit", "iso"),
        "Europe/London",
    ),
    OddFile(
        "local times, and said whose",
        "local.parquet",
        parquet(time=[local(stamp) for stamp in STAMPS]),
        ("--time-zone", "Europe/London"),
        "Europe/London",
    ),
    OddFile(
        "days without a time in Los Angeles",
        "dates.parquet",
        parquet(time=[date(2025, 3, 1)] * 3 + [date(2025, 3, 2)] * 2),
        (),
        "America/Los_Angeles",
    ),
    OddFile("ISO times, not said", "iso.csv", csv(*rows([f"{stamp:%FT%TZ}" for stamp in STAMPS]))),
    OddFile("US times", "us.csv", csv(*rows([f"{stamp:%m/%d/%Y %H:%M}" for stamp in STAMPS]))),
    OddFile(
        "US times, and said so",
        "us_said.csv",
        csv(*rows([f"{stamp:%m/%d/%Y %I:%M %p}" for stamp in STAMPS])),
        ("--time-unit", "%m/%d/%Y %I:%M %p"),
    ),
    OddFile(
        "byte order mark and CRLF",
        "excel.csv",
        csv(*PLAIN, header="\ufeffuser,item,time", end="\r\n"),
    ),
    OddFile(
        "semicolons",
        "semicolons.csv",
        csv(*[row.replace(",", ";") for row in PLAIN], header="user;item;time"),
    ),
    OddFile(
        "semicolons, and said so",
        "semicolons_said.csv",
        csv(*[row.replace(",", ";") for row in PLAIN], header="user;item;time"),
        ("--separator", ";"),
    ),
    OddFile(
        "quoted commas",
        "quoted.csv",
        csv(*[f'{row},"a ""b"", c"' for row in PLAIN], header="user,item,time,title"),
    ),
    OddFile(
        "Latin-1 texts",
        "latin1.csv",
        csv(*rows(MILLISECONDS, users=["Zoë", "Ann", "Bob", "Ann", "Bob"]), encoding="latin-1"),
        ("--string-id", "user"),
    ),
    OddFile("UTF-16", "utf16.csv", csv(*PLAIN, encoding="utf-16")),
    OddFile(
        "zstd that is broken",
        "t.csv.zst",
        lambda path: path.write_bytes(b"\x28\xb5\x2f\xfd rest of it"),
    ),
    OddFile(
        "bzip2",
        "t.csv.bz2",
        lambda path: path.write_bytes(bz2.compress(b"user,item,time\n1,2,1740821400000\n")),
    ),
    OddFile("JSON lines", "t.json", lambda path: path.write_text(f"{JSON_LINE}\n" * 3)),
    OddFile(
        "JSON lines with an id of two kinds",
        "mixed.jsonl",
        lambda path: path.write_text(JSON_LINE + "\n" + JSON_LINE.replace("1,", '"1",', 1)),
    ),
    OddFile("a JSON array", "array.json", lambda path: path.write_text(f"[{JSON_LINE}]")),
    OddFile("a SQLite database", "shop.db", lambda path: path.write_bytes(b"SQLite format 3\0\0")),
    OddFile("bytes of no form", "t.bin", lambda path: path.write_bytes(b"\1\0\0\0\2\0\0\0")),
    OddFile("a folder", "dataset", folder),
    OddFile("a folder's day", "dataset", folder, ("--category-id", "dt")),
    OddFile("an empty folder", "none", lambda path: path.mkdir()),
    OddFile("a pattern of no file", "part-*.csv", nothing),
    OddFile(
        "a column by nearly its name",
        "near.csv",
        csv(*PLAIN, header="user_id,item,time"),
    ),
    OddFile("two columns of one name", "twice.csv", csv(*PLAIN, header="user,user,time")),
    OddFile("an address", "s3://bucket/key.parquet", nothing),
    OddFile("no such file", "absent.csv", nothing),
    OddFile(
        "whole floats as ids (pandas with a null)",
        "floats.parquet",
        parquet(user=[1.0, 2.0, None, 3.0, 2.0]),
    ),
    OddFile(
        "ids that are no whole numbers", "halves.parquet", parquet(user=[1.5, 2.0, 1.0, 3.0, 2.0])
    ),
    OddFile(
        "decimal ids (Spark)",
        "decimals.parquet",
        parquet(user=pa.array([Decimal(n) for n in USERS], pa.decimal128(18, 0))),
    ),
    OddFile(
        "a nested column",
        "nested.parquet",
        parquet(meta=[{"cat": 1}] * 5),
        ("--category-id", "meta.cat"),
    ),
    OddFile("null ids", "nulls.parquet", parquet(item=[10, None, 12, None, 13])),
    OddFile("empty ids", "empties.csv", csv(*PLAIN, ",14,1740821400000")),
    OddFile(
        "leading zeros", "zeros.csv", csv(*rows(MILLISECONDS, items=["00000025", 25, 26, 27, 28]))
    ),
    OddFile(
        "leading zeros of texts",
        "zeros_said.csv",
        csv(*rows(MILLISECONDS, items=["00000025", 25, 26, 27, 28])),
        ("--string-id", "item"),
    ),
    OddFile(
        "texts for ids", "texts.csv", csv(*rows(MILLISECONDS, items=["a1", "b2", "c3", "a1", "d4"]))
    ),
    OddFile(
        "one text among the ids", "text.csv", csv(*rows(MILLISECONDS, items=["a1", 11, 12, 13, 14]))
    ),
    OddFile("huge ids", "huge.csv", csv(*rows(MILLISECONDS, users=[9223372036854775808] * 5))),
    OddFile(
        "text categories",
        "categories.parquet",
        parquet(cat=["shoes", "hats", "shoes", "lamps", "hats"]),
        ("--category-id", "cat"),
    ),
    OddFile("an empty file", "empty.csv", lambda path: path.write_bytes(b"")),
    OddFile("a header line only", "header.csv", csv()),
    OddFile("no header line", "headless.csv", csv(*PLAIN, header="")),
    OddFile(
        "no header line, and said so",
        "named.csv",
        csv(*[row.replace(",", "::") for row in PLAIN], header=""),
        ("--names", "user,item,time", "--separator", "::"),
    ),
    OddFile("repeated rows", "repeated.csv", csv(*PLAIN, *PLAIN[:2])),
    OddFile("rows by a condition", "where.csv", csv(*PLAIN), ("--where", "user == 1 or item > 12")),
    OddFile("a condition of SQL", "sql.csv", csv(*PLAIN), ("--where", "user = 1")),
    OddFile("a line that is cut off", "cut.csv", csv(*PLAIN[:3], "2,1", PLAIN[4])),
]


def _said(odd: OddFile) -> Iterator[str]:
    if "://" not in odd.name:
        odd.make(Path(odd.name))
    options = " ".join(f"'{word}'" if " " in word else word for word in odd.options)
    zone = f"   # time_zone: {odd.zone}" if odd.zone != "UTC" else ""
    yield f"## {odd.title}"
    yield f"$ uic import table {odd.name} … {options}".rstrip() + zone
    Path("uic.yaml").write_text(f"time_zone: {odd.zone}\n")
    output, status = io.StringIO(), 0
    sys.argv = ["uic", "import", "table", odd.name, *COLUMNS, *odd.options]
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            main()
        except SystemExit as ended:
            status = int(ended.code or 0)
    for line in output.getvalue().splitlines():
        if line.strip() and not line.strip().startswith(NOT_SHOWN):
            yield line.rstrip()
    yield f"exit {status}"
    yield ""


def what_import_says(folder: Path) -> str:
    """What `uic import table` says to every file, a section each; works in `folder`."""
    lines: list[str] = []
    arguments = sys.argv
    for number, odd in enumerate(ODD_FILES):
        own = folder / str(number)
        own.mkdir()
        with contextlib.chdir(own):
            lines += _said(odd)
    sys.argv = arguments
    return "\n".join(lines)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        SAID.write_text(what_import_says(Path(temporary)), encoding="utf-8")
