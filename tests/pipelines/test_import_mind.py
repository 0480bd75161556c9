"""MIND's two files, in their very form: tabs, no header, US times, lists in a column."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.pipelines.imported import behaviors, rejects, run
from uic.models.errors import BadInputError
from uic.pipelines.importers.mind import MindNews
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.text_ids import category_number_of, number_of

LINES = (
    "1\tU1\t11/11/2019 9:05:58 AM\tN10 N11 N12\tN1-0 N2-1",
    "2\tU2\t11/11/2019 8:00:00 AM\t\tN3-1",
    "3\tU1\t11/12/2019 1:11:02 PM\tN10 N11 N12\tN3-0",
)
NEWS = (
    'N1\tsports\tsoccer\tA "quoted title\tText, and more\thttps://x\t[]\t[]',
    "N2\tnews\tnewsus\tTitle\t\thttps://y\t[]\t[]",
    "N10\tsports\tgolf\tTitle\t\thttps://z\t[]\t[]",
)


def ms(day: int, hour: int, minute: int, second: int) -> int:
    return int(datetime(2019, 11, day, hour, minute, second, tzinfo=UTC).timestamp()) * 1000


def tsv(path: Path, *lines: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / "log")


def impressions(log: EventLog) -> list[tuple]:
    rows = [row for file in log.impression_files() for row in pq.read_table(file.path).to_pylist()]
    names = ("user_id", "item_id", "clicked")
    return sorted((row["event_time"].day, *(row[name] for name in names)) for row in rows)


def test_each_news_is_an_impression_and_histories_end_before_the_first(
    tmp_path: Path, log: EventLog
) -> None:
    file, news = tsv(tmp_path / "behaviors.tsv", *LINES), tsv(tmp_path / "news.tsv", *NEWS)
    summary = run(MindNews([file], [news]), log, any_time=False)
    u1, u2 = number_of("U1"), number_of("U2")
    n1, n2, n3, n10, n11, n12 = (number_of(f"N{n}") for n in (1, 2, 3, 10, 11, 12))
    sport, us, unknown = (category_number_of(word) for word in ("sports", "news", "unknown"))
    begin = ms(11, 8, 0, 0)
    assert behaviors(log) == [
        (u1, n10, sport, "click", begin - 3000),
        (u1, n11, unknown, "click", begin - 2000),
        (u1, n12, unknown, "click", begin - 1000),
        (u2, n3, unknown, "click", begin),
        (u1, n2, us, "click", ms(11, 9, 5, 58)),
    ]
    expected = [(11, u1, n1, False), (11, u1, n2, True), (11, u2, n3, True), (12, u1, n3, False)]
    assert impressions(log) == sorted(expected)
    assert summary.rejects == {}
    assert summary.remarks == (
        "times of the file have no zone and were taken as UTC; --time-zone ZONE says another",
    )


def test_a_user_of_two_parts_has_one_history(tmp_path: Path, log: EventLog) -> None:
    train = tsv(tmp_path / "train" / "behaviors.tsv", *LINES)
    dev = tsv(
        tmp_path / "dev" / "behaviors.tsv",
        "1\tU1\t11/15/2019 8:55:22 AM\tN10 N11 N12 N2\tN1-1",
        "2\tU9\t11/15/2019 8:56:22 AM\tN11\tN1-0",
    )
    run(MindNews([train, dev]), log)
    u1, u9 = number_of("U1"), number_of("U9")
    begin = ms(11, 8, 0, 0)
    earlier = [(row[0], row[4]) for row in behaviors(log) if row[4] < begin]
    assert sorted(earlier) == sorted(
        [(u1, begin - 3000), (u1, begin - 2000), (u1, begin - 1000), (u9, begin - 1000)]
    )
    assert {row[2] for row in behaviors(log)} == {0}
    without = EventLog(tmp_path / "without")
    run(MindNews([train, dev], prior_history=False), without)
    assert [row[4] for row in behaviors(without) if row[4] < begin] == []


def test_what_is_wrong_costs_its_line_or_its_news(tmp_path: Path, log: EventLog) -> None:
    file = tsv(
        tmp_path / "behaviors.tsv",
        *LINES,
        "4\tU3\tyesterday\tN10\tN1-0",
        "5\t\t11/12/2019 1:11:02 PM\tN10\tN1-0",
        "6\tU4\t11/12/2019 1:11:02 PM\tN10\tN1 N2-1",
        "7\tU4",
    )
    summary = run(MindNews([file]), log)
    assert sorted(rejects(summary)) == [
        (4, "wrong_type"), (5, "missing_field"), (6, "wrong_type"), (7, "malformed"),
    ]  # fmt: skip
    path = log.ids_file("user")
    assert path is not None
    assert sorted(pq.read_table(path)["text"].to_pylist()) == ["U1", "U2", "U4"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["1,2,3"], r"behaviors\.tsv: no line has a time like .*is it the behaviors\.tsv of MIND"),
        (["1\tU1\t11/11/2019 9:05:58 AM\t\tN1 N2"], r"no row could be imported; first: .*line 1"),
    ],
)
def test_another_file_is_one_line(
    tmp_path: Path, log: EventLog, lines: list[str], message: str
) -> None:
    with pytest.raises(BadInputError, match=message):
        run(MindNews([tsv(tmp_path / "behaviors.tsv", *lines)]), log)
    assert log.epochs() == ()


def test_times_are_of_the_zone_that_is_said(tmp_path: Path, log: EventLog) -> None:
    file = tsv(tmp_path / "behaviors.tsv", LINES[1])
    with pytest.raises(BadInputError, match=r"have no zone \(2019-11-11T08:00:00\)"):
        run(MindNews([file], log_zone="Europe/London"), log, time_zone="Europe/London")
    run(MindNews([file], time_zone="America/New_York"), log)
    assert [row[4] for row in behaviors(log)] == [ms(11, 13, 0, 0)]
