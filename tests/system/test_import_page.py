"""`docs/import.md`: people's files, made in their very form; each block runs word for word."""

import json
import re
import shlex
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import typer

from uic.jobs.cli import app, main
from uic.jobs.workspace.workspace import Workspace
from uic.pipelines.log.event_log import EventLog

pytestmark = pytest.mark.slow
PAGE = (Path(__file__).parents[2] / "docs" / "import.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"^## ([^\n]*)\n(?:(?!^## ).)*?^```sh\n(.*?)^```$", PAGE, re.M | re.S))
RANKED = "From there to a ranking"
USERS, ITEMS, DAYS, A_DAY = 40, 30, 6, 3


class Seen(NamedTuple):
    """A user saw an item, clicked or not."""

    at: datetime
    user: int
    item: int
    clicked: bool


def seen() -> list[Seen]:
    draw = np.random.default_rng(3)
    first = datetime(2025, 3, 1, 8, tzinfo=UTC)
    return [
        Seen(
            first + timedelta(days=day, minutes=20 * step, seconds=user),
            user,
            int(draw.integers(1, ITEMS + 1)),
            bool(draw.integers(0, 2)),
        )
        for day in range(DAYS)
        for step in range(A_DAY)
        for user in range(1, USERS + 1)
        if day < DAYS - user % 3  # so that the last events of users are of several days
    ]


def json_lines(folder: Path) -> None:
    frame = pd.DataFrame(seen())
    for day, rows in frame.groupby(frame["at"].dt.day):
        part = folder / "shown" / f"day=2025-03-{day:02}" / "part-0.json.zst"
        part.parent.mkdir(parents=True)
        with pa.CompressedOutputStream(str(part), "zstd") as stream:
            for row in rows.itertuples():
                item = {"id": f"i{row.item}", "shelf": f"s{row.item % 5}"}
                at = f"{row.at:%Y-%m-%dT%H:%M:%SZ}"
                line = {"user": {"id": f"u{row.user}"}, "item": item, "at": at}
                stream.write(json.dumps({**line, "clicked": row.clicked}).encode() + b"\n")


def pandas_file(folder: Path) -> None:
    rows = pd.DataFrame(seen()).rename(columns={"user": "customer", "item": "article"})
    rows["bought"] = rows["at"].dt.tz_convert("Europe/London").dt.tz_localize(None)
    rows["amount"] = np.where(rows.index % 9 == 0, -1.0, 2.5)
    rows.loc[4, "customer"] = None
    assert rows["customer"].dtype == "float64"
    rows[["customer", "article", "bought", "amount"]].to_parquet(folder / "orders.parquet")


def movielens(folder: Path) -> None:
    lines = [
        f"{row.user}::{row.item}::{4 + row.clicked if row.item % 4 else 2}::{row.at:%s}\n"
        for row in seen()
    ]
    (folder / "ml-1m").mkdir()
    (folder / "ml-1m" / "ratings.dat").write_text("".join(lines))
    movies = [f"{n}::Title (2000)::{'Drama|War' if n % 2 else 'War'}\n" for n in range(1, ITEMS)]
    (folder / "ml-1m" / "movies.dat").write_text("".join(movies))


def retailrocket(folder: Path) -> None:
    lines = ["timestamp,visitorid,event,itemid,transactionid\n"]
    for number, row in enumerate(seen()):
        event = ("view", "view", "addtocart", "transaction")[number % 4]
        order = number if event == "transaction" else ""
        time = int(row.at.timestamp() * 1000)
        lines.append(f"{time},{row.user},{event},{row.item},{order}\n")
    (folder / "events.csv").write_text("".join(lines))


def yoochoose(folder: Path) -> None:
    clicks, buys = list[str](), list[str]()
    for number, row in enumerate(seen()):
        time = f"{row.at:%Y-%m-%dT%H:%M:%S}.277Z"
        clicks.append(f"{row.user},{time},{row.item},{('0', 'S', row.item % 12 + 1)[number % 3]}\n")
        if row.clicked:
            buys.append(f"{row.user},{time},{row.item},12462,1\n")
    (folder / "yoochoose-clicks.dat").write_text("".join(clicks))
    (folder / "yoochoose-buys.dat").write_text("".join(buys))


def mind(folder: Path) -> None:
    parts: dict[str, list[str]] = {"train": [], "dev": []}
    for number, row in enumerate(seen()):
        part = parts["dev" if row.at.day == DAYS else "train"]
        shown = f"N{row.item}-{int(row.clicked)} N{row.item % ITEMS + 1}-0"
        time = f"{row.at:%m/%d/%Y %I:%M:%S %p}"
        part.append(f"{number}\tU{row.user}\t{time}\tN1 N2 N{row.user % 9 + 3}\t{shown}\n")
    news = [f"N{n}\tsports\tgolf\tTitle\t\thttps://x\t[]\t[]\n" for n in range(1, ITEMS + 1)]
    for part, lines in parts.items():
        (folder / part).mkdir()
        (folder / part / "behaviors.tsv").write_text("".join(lines))
        (folder / part / "news.tsv").write_text("".join(news))


# What makes the files, and the behaviours, impressions and users that are in the log then.
EVENTS = len(seen())
PAID = sum(number % 9 > 0 and number != 4 for number in range(EVENTS))
MADE: dict[str, tuple[Callable[[Path], None], Callable[[], tuple[int, int]]]] = {
    "JSON Lines in a folder of days": (
        json_lines,
        lambda: (sum(row.clicked for row in seen()), EVENTS),
    ),
    "Parquet from pandas": (pandas_file, lambda: (PAID - USERS, 2 * USERS)),
    "Parquet from pandas, the whole log": (pandas_file, lambda: (PAID, 0)),
    "MovieLens": (movielens, lambda: (sum(row.item % 4 > 0 for row in seen()), 0)),
    "RetailRocket": (retailrocket, lambda: (EVENTS, 0)),
    "Yoochoose": (yoochoose, lambda: (EVENTS + sum(row.clicked for row in seen()), 0)),
    "MIND": (mind, lambda: (sum(row.clicked for row in seen()) + 3 * USERS, 2 * EVENTS)),
}


def uic(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", shlex.split(line))
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code, line


@pytest.mark.parametrize("title", MADE)
def test_from_a_file_to_a_model_as_the_page_says(
    title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, counts = MADE[title]
    make(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UIC_WORKSPACE", raising=False)
    for line in BLOCKS[title].splitlines():
        uic(line, monkeypatch)
    log = EventLog(tmp_path / "var" / "log")
    files = log.behavior_files(), log.impression_files()
    assert tuple(sum(file.rows for file in found) for found in files) == counts()
    metrics = json.loads((tmp_path / "var/bundles/average_pooling/0001/metrics.json").read_text())
    assert metrics["test"]["impressions"] > 0


@pytest.mark.parametrize(
    ("title", "user", "items"),
    [
        ("JSON Lines in a folder of days", "u12", ["i7", "i8"]),
        ("Parquet from pandas, the whole log", 12, [7, 8]),
        ("MovieLens", 12, [7, 9]),
        ("RetailRocket", 12, [7, 8]),
        ("MIND", "U12", ["N7", "N8"]),
    ],
)
def test_from_a_file_to_a_ranking_by_its_own_ids(
    title: str,
    user: int | str,
    items: list[int] | list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    MADE[title][0](tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UIC_WORKSPACE", raising=False)
    brought, sampled, _ = BLOCKS[title].splitlines()
    uic("uic state init", monkeypatch)
    workspace = Workspace(tmp_path / "var")
    try:
        for line in (brought, sampled, *BLOCKS[RANKED].splitlines()):
            uic(line, monkeypatch)
        answer = workspace.rank(user, items)
    finally:
        workspace.close()
        workspace.store.stop()
    assert (answer.user_id, answer.degraded) == (user, False)
    assert sorted(one.item_id for one in answer.items) == items
    assert all(one.known for one in answer.items)
    assert answer.memory_events > 0


def test_every_section_with_a_block_is_run() -> None:
    assert set(BLOCKS) == {*MADE, RANKED}


def test_the_examples_of_the_help_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = typer.main.get_command(app).commands["import"].commands["table"]
    examples = re.findall(r"uic import table .*", command.epilog)
    assert len(examples) == 2
    monkeypatch.chdir(tmp_path)
    json_lines(tmp_path)
    movielens(tmp_path)
    for number, line in enumerate(examples):
        uic(f"{line} -w {number}", monkeypatch)
