"""Times on the way in: units, zones, days, fractions, and what cannot be true."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.pipelines.imported import behaviors, rejects, run
from uic.models.errors import BadInputError
from uic.models.hashing import stable_hash
from uic.pipelines.importers.plausible import ImplausibleTimesError
from uic.pipelines.importers.table import TableColumns, TableImporter, TimeUnit
from uic.pipelines.importers.taobao import Taobao
from uic.pipelines.importers.times import unit_or_format
from uic.pipelines.log.event_log import EventLog

ZONE = "America/Los_Angeles"
NOON_MS = 1_709_294_400_000  # 2024-03-01 12:00 UTC


def csv(path: Path, *times: Any) -> Path:
    path.write_text("u,i,t\n" + "".join(f"1,{row},{time}\n" for row, time in enumerate(times)))
    return path


def table(
    path: Path, unit: TimeUnit | str = TimeUnit.MILLISECONDS, zone: str | None = None, log="UTC"
) -> TableImporter:
    columns = TableColumns("u", "i", "t", time_unit=unit, time_zone=zone)
    return TableImporter(path, columns, log_zone=log)


def times(log: EventLog) -> list[int]:
    return [row[4] for row in behaviors(log)]


def days(log: EventLog) -> list[date]:
    return [file.dt for file in log.behavior_files()]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([NOON_MS // 1000] * 2, "these look like seconds: say `--time-unit s`"),
        ([NOON_MS * 1000], "these look like microseconds: say `--time-unit us`"),
        ([NOON_MS * 10**6], "these look like nanoseconds: say `--time-unit ns`"),
        ([1, 300, 711], "1 to 711 look like numbers of days or steps"),
        ([4_102_444_800_000], "read as 2100-01-01 00:00 to 2100-01-01 00:00"),
        ([9, 8 * 10**8], r"read as 1970-01-01 00:00 to 1970-.*--any-time takes them as they are"),
        ([-5, -6], "read as before 1970 to before 1970"),
    ],
)
def test_a_file_of_times_that_cannot_be_true_is_refused_with_a_guess(
    tmp_path: Path, values: list[int], message: str
) -> None:
    log = EventLog(tmp_path / "log")
    with pytest.raises(ImplausibleTimesError, match=message):
        run(table(csv(tmp_path / "t.csv", *values)), log, any_time=False)
    assert log.epochs() == ()
    assert not list(log.root.rglob("*.parquet"))
    parquet = tmp_path / "t.parquet"
    pq.write_table(pa.table({"u": [1] * len(values), "i": [2] * len(values), "t": values}), parquet)
    with pytest.raises(ImplausibleTimesError, match=message):
        run(table(parquet), log, any_time=False)


def test_a_row_with_an_absurd_time_is_a_reject_unless_any_time_may_come(tmp_path: Path) -> None:
    file = csv(tmp_path / "t.csv", NOON_MS, 5, NOON_MS + 1, 4_102_444_800_000, NOON_MS + 2)
    log = EventLog(tmp_path / "log")
    summary = run(table(file), log, any_time=False)
    assert rejects(summary) == [(3, "implausible_time"), (5, "implausible_time")]
    assert times(log) == [NOON_MS, NOON_MS + 1, NOON_MS + 2]
    everything = EventLog(tmp_path / "everything")
    run(table(file), everything, any_time=True)
    assert len(times(everything)) == 5


def test_other_formats_are_judged_alike(tmp_path: Path) -> None:
    file = tmp_path / "taobao.csv"
    file.write_text("1,1,1,pv,1511544070\n1,1,1,pv,0\n1,1,1,pv,1511544071\n1,1,1,pv,4102444800\n")
    log = EventLog(tmp_path / "log")
    found = rejects(run(Taobao(file), log, any_time=False))
    assert found == [(2, "implausible_time"), (4, "implausible_time")]
    file.write_text("1,1,1,pv,1511544070000\n")
    with pytest.raises(ImplausibleTimesError, match="these look like ms, this format has s"):
        run(Taobao(file), EventLog(tmp_path / "other"), any_time=False)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("s", NOON_MS // 1000),
        ("seconds", NOON_MS // 1000),
        ("ms", NOON_MS),
        ("milliseconds", NOON_MS),
        ("us", NOON_MS * 1000 + 999),
        ("ns", NOON_MS * 10**6 + 999_999),
        ("iso", "2024-03-01T12:00:00"),
        ("iso", "2024-03-01T14:00:00.0009+02:00"),
        ("%m/%d/%Y %I:%M:%S %p", "03/01/2024 12:00:00 PM"),
        ("%d.%m.%Y %H:%M %z", "01.03.2024 13:00 +0100"),
    ],
)
def test_the_units_of_a_time(tmp_path: Path, word: str, value: object) -> None:
    log = EventLog(tmp_path / "log")
    run(table(csv(tmp_path / "t.csv", value), unit_or_format(word)), log, any_time=False)
    assert times(log) == [NOON_MS]


def test_local_times_are_of_the_zone_that_is_named(tmp_path: Path) -> None:
    file = csv(tmp_path / "t.csv", "2024-07-01 23:30:00", "2024-07-02T00:30:00")
    parquet = tmp_path / "t.parquet"
    local = [datetime(2024, 7, 1, 23, 30), datetime(2024, 7, 2, 0, 30)]  # noqa: DTZ001 - as in a file
    pq.write_table(pa.table({"u": [1, 1], "i": [0, 1], "t": local}), parquet)
    half_past_ten = int(datetime(2024, 7, 1, 22, 30, tzinfo=UTC).timestamp() * 1000)
    for number, source in enumerate((file, parquet)):
        log = EventLog(tmp_path / f"log-{number}")
        importer = table(source, TimeUnit.ISO, log="Europe/London")
        with pytest.raises(BadInputError, match=r"no zone.*--time-zone UTC or --time-zone Europe"):
            run(importer, log, time_zone="Europe/London")
        importer = table(source, TimeUnit.ISO, "Europe/London", log="Europe/London")
        run(importer, log, time_zone="Europe/London")
        assert times(log) == [half_past_ten, half_past_ten + 3_600_000]
        assert days(log) == [date(2024, 7, 1), date(2024, 7, 2)]


@pytest.mark.parametrize(
    ("word", "text"), [("iso", "2016-05-09"), ("iso", "20160509"), ("%m/%d/%Y", "05/09/2016")]
)
def test_a_day_is_that_day_of_the_log(tmp_path: Path, word: str, text: str) -> None:
    parquet = tmp_path / "t.parquet"
    dates = pa.array([date(2016, 5, 9)])
    pq.write_table(pa.table({"u": [1], "i": [0], "t": dates}), parquet)
    file = csv(tmp_path / "t.csv", text)
    for zone in (ZONE, "UTC", "Asia/Shanghai"):
        for number, source in enumerate((file, parquet)):
            log = EventLog(tmp_path / f"{zone}-{number}".replace("/", "-"))
            run(table(source, unit_or_format(word), log=zone), log, time_zone=zone)
            assert days(log) == [date(2016, 5, 9)], (zone, source)


def test_fractions_are_cut_alike_in_csv_and_parquet(tmp_path: Path) -> None:
    micros = np.array([1_711_843_199_999_600, 1_711_843_199_999_000, 1_711_843_200_000_999])
    texts = [str(time) + "Z" for time in micros.astype("datetime64[us]")]
    parquet = tmp_path / "t.parquet"
    stamps = pa.array(micros, pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({"u": [1, 1, 1], "i": [0, 1, 2], "t": stamps}), parquet)
    expected = sorted((micros // 1000).tolist())
    odd = csv(tmp_path / "odd.csv", *texts[:2], texts[2].replace("Z", "+00:00:00"))
    for number, source in enumerate((csv(tmp_path / "t.csv", *texts), parquet, odd)):
        log = EventLog(tmp_path / f"log-{number}")
        run(table(source, TimeUnit.ISO), log)
        assert times(log) == expected
        assert days(log) == [date(2024, 3, 30), date(2024, 3, 31)]


@pytest.mark.parametrize(
    ("text", "way"),
    [("2024-03-01 12:00", "`--time-unit iso`"), ("11/12/2019 2:14 PM", "a format like")],
)
def test_texts_without_a_unit_name_the_column_and_the_way(
    tmp_path: Path, text: str, way: str
) -> None:
    with pytest.raises(BadInputError, match=rf"column t holds no whole numbers, .*{way}"):
        run(table(csv(tmp_path / "t.csv", text)), EventLog(tmp_path / "log"))


@pytest.mark.parametrize(
    ("word", "form"), [("iso", "ISO 8601"), ("%d.%m.%Y", r"the form '%d\.%m\.%Y'")]
)
def test_a_column_without_any_time_is_refused_by_its_name(
    tmp_path: Path, word: str, form: str
) -> None:
    file = csv(tmp_path / "t.csv", 1709294400, "", "n/a")
    message = rf"t\.csv: column t holds no times of {form}, found '1709294400': say --time-unit"
    with pytest.raises(BadInputError, match=message):
        run(table(file, unit_or_format(word)), EventLog(tmp_path / "log"))


def test_a_text_that_is_no_time_costs_its_row_where_others_are(tmp_path: Path) -> None:
    log, file = EventLog(tmp_path / "log"), csv(tmp_path / "t.csv", "never", "2024-03-01", "")
    summary = run(table(file, TimeUnit.ISO), log)
    assert rejects(summary) == [(2, "wrong_type"), (4, "missing_field")]
    assert days(log) == [date(2024, 3, 1)]


def test_an_unknown_unit_is_refused() -> None:
    with pytest.raises(BadInputError, match="--time-unit: found 'weeks', expected one of s, ms"):
        unit_or_format("weeks")


def test_the_span_of_what_was_published(tmp_path: Path) -> None:
    file = csv(tmp_path / "t.csv", "2023-12-31", "2024-01-01", "2024-01-01", "2024-01-02 10:00")
    span = run(table(file, TimeUnit.ISO), EventLog(tmp_path / "log")).publication.span
    assert span is not None
    assert (span.first_ms, span.last_ms) == (1_703_980_800_000, 1_704_189_600_000)
    assert span.median_rows_a_day == 1
    assert span.share_by_year == {2023: 0.25, 2024: 0.75}


def test_repeated_rows_are_counted_and_kept(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("u,i,t\n1,7,5\n1,7,5\n1,7,6\n2,7,5\n1,7,5\n")
    published = run(table(file), EventLog(tmp_path / "log")).publication
    assert (published.behaviors, published.repeated) == (5, 2)


def test_an_item_has_the_category_of_its_newest_event(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    # Item 5 has category 8 at 20:00 in the first partition, and 3 at 10:00 in the second.
    first, second = (
        next(user for user in range(99) if stable_hash(user) % np.uint64(2) == partition)
        for partition in (0, 1)
    )
    late, early = 20 * 3_600_000, 10 * 3_600_000
    file.write_text(f"u,i,c,t\n{first},5,8,{late}\n{second},5,3,{early}\n{first},5,7,{early}\n")
    log = EventLog(tmp_path / "log")
    run(TableImporter(file, TableColumns("u", "i", "t", category_id="c")), log)
    items = log.items_file()
    assert items is not None
    assert pq.read_table(items).to_pylist() == [{"item_id": 5, "category_id": 8}]
