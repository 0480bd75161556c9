"""The sale calendar: what a day is, and every way in which a file can be wrong."""

import pickle
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uic.pipelines.sale_calendar import SaleCalendar, SaleCalendarError
from uic.pipelines.settings import SaleSettings

EXAMPLE = Path(__file__).parents[2] / "sale_calendar.yaml"
SINGLES_DAY = """
time_zone: Asia/Shanghai
sales:
  - {name: "11.11", first: 2025-11-11, last: 2025-11-11}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "calendar.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def test_a_sale_day_is_a_calendar_day_of_the_stated_zone(tmp_path):
    calendar = SaleCalendar.load(written(tmp_path, SINGLES_DAY))
    times = [
        ms("2025-11-10T15:59:59.999Z"),  # 23:59:59.999 on the 10th in Shanghai
        ms("2025-11-10T16:00:00.000Z"),
        ms("2025-11-11T15:59:59.999Z"),
        ms("2025-11-11T16:00:00.000Z"),
    ]
    assert calendar.covers(np.array(times)).tolist() == [False, True, True, False]
    assert calendar.covers(np.array(times).reshape(2, 2)).shape == (2, 2)


def test_a_day_on_which_the_clock_changes_is_as_long_as_it_is(tmp_path):
    text = SINGLES_DAY.replace("Asia/Shanghai", "Europe/Berlin").replace("11-11", "10-26")
    start, end = SaleCalendar.load(written(tmp_path, text)).edges_ms.tolist()
    assert (end - start) / 3_600_000 == 25


def test_a_day_without_a_midnight_begins_after_the_jump(tmp_path):
    text = SINGLES_DAY.replace("Asia/Shanghai", "America/Sao_Paulo").replace(
        "2025-11-11", "2018-11-04"
    )
    start, end = SaleCalendar.load(written(tmp_path, text)).edges_ms.tolist()
    assert start == ms("2018-11-04T03:00:00Z")
    assert (end - start) / 3_600_000 == 23


def test_the_example_holds_the_four_sales():
    calendar = SaleCalendar.load(EXAMPLE)
    noon = [ms(f"{day}T12:00:00+08:00") for day in ("2025-06-18", "2025-11-11", "2025-12-12")]
    black_fridays = [ms(f"{day}T12:00:00+08:00") for day in ("2023-11-24", "2024-11-29")]
    assert calendar.covers(np.array(noon + black_fridays)).all()
    assert not calendar.covers(np.array([ms("2025-06-17T12:00:00+08:00")])).any()


def test_the_empty_calendar_covers_nothing():
    assert not SaleCalendar.empty().covers(np.array([0, 2**60, -(2**60)])).any()
    assert SaleCalendar.empty().covers(np.empty(0, dtype=np.int64)).shape == (0,)


def test_a_calendar_travels_to_a_worker():
    calendar = SaleCalendar.load(EXAMPLE)
    copy = pickle.loads(pickle.dumps(calendar))
    assert copy == calendar
    assert np.array_equal(copy.edges_ms, calendar.edges_ms)


def test_the_fingerprint_is_of_the_days_and_not_of_the_names(tmp_path):
    one = SaleCalendar.load(written(tmp_path, SINGLES_DAY)).fingerprint()
    renamed = SaleCalendar.load(written(tmp_path, SINGLES_DAY.replace('"11.11"', '"Singles"')))
    moved = SaleCalendar.load(
        written(tmp_path, SINGLES_DAY.replace("last: 2025-11-11", "last: 2025-11-12"))
    )
    assert one == renamed.fingerprint()
    assert len({one, moved.fingerprint(), SaleCalendar.empty().fingerprint()}) == 3


def test_ranges_that_touch_are_one_range(tmp_path):
    two = SaleCalendar.of_days((date(2025, 11, 11), date(2025, 11, 12)), "UTC")
    one = SaleCalendar.load(
        written(
            tmp_path,
            "time_zone: UTC\nsales: [{name: both, first: 2025-11-11, last: 2025-11-12}]",
        )
    )
    assert two.fingerprint() == one.fingerprint()
    assert two.covers(np.array([ms("2025-11-12T00:00:00Z")])).all()


def test_a_written_calendar_reads_back(tmp_path):
    calendar = SaleCalendar.load(EXAMPLE)
    assert SaleCalendar.load(written(tmp_path, calendar.to_yaml())) == calendar


def test_settings_decide_what_a_calendar_is_for():
    drop = SaleSettings(calendar=EXAMPLE)
    keep = SaleSettings(calendar=EXAMPLE, behaviors="keep", impressions="keep")
    assert SaleCalendar.for_behaviors(drop).sales
    assert SaleCalendar.for_impressions(drop).sales
    assert not SaleCalendar.for_behaviors(keep).sales
    assert not SaleCalendar.for_impressions(keep).sales
    assert not SaleCalendar.of(SaleSettings()).sales


@given(
    days=st.sets(st.dates(date(1971, 1, 1), date(2100, 1, 1)), max_size=6),
    seconds=st.lists(st.integers(0, 4_102_444_800), max_size=50),
    zone=st.sampled_from(["UTC", "Asia/Shanghai", "America/New_York", "Australia/Lord_Howe"]),
)
def test_covers_agrees_with_asking_the_local_date(days, seconds, zone):
    # Around each sale day as well as anywhere.
    near = [
        int(datetime(d.year, d.month, d.day, tzinfo=ZoneInfo(zone)).timestamp()) + shift
        for d in days
        for shift in (-1, 0, 40_000, 86_399, 90_001)
    ]
    times = np.array([s * 1000 for s in seconds + near], dtype=np.int64)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    expected = [
        (epoch + timedelta(milliseconds=int(t))).astimezone(ZoneInfo(zone)).date() in days
        for t in times
    ]
    assert SaleCalendar.of_days(tuple(days), zone).covers(times).tolist() == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            SINGLES_DAY.replace("last: 2025-11-11", "last: 2025-11-10"),
            "sales[0] ('11.11'): reversed: first 2025-11-11 is after last 2025-11-10",
        ),
        (
            SINGLES_DAY + "  - {name: week, first: 2025-11-05, last: 2025-11-11}\n",
            "sales[0] ('11.11', from 2025-11-11) overlaps sales[1] ('week', to 2025-11-11)",
        ),
        (SINGLES_DAY.replace("Asia/Shanghai", "China"), "time_zone: found 'China', expected"),
        (SINGLES_DAY.replace("Asia/Shanghai", "../etc"), "time_zone: found '../etc'"),
        (SINGLES_DAY.replace("Asia/Shanghai", "8"), "time_zone: found 8, expected a name"),
        (SINGLES_DAY.replace("last:", "lst:"), "sales[0]: unknown key 'lst'"),
        (SINGLES_DAY + "zone: UTC\n", "unknown key 'zone'; the keys are time_zone, sales"),
        ("time_zone: UTC\n", "key 'sales' is missing"),
        (SINGLES_DAY.replace(", last: 2025-11-11", ""), "sales[0]: key 'last' is missing"),
        (SINGLES_DAY.replace('"11.11"', "11.11"), "sales[0].name: found 11.11, expected text"),
        (SINGLES_DAY.replace('"11.11"', '" "'), "sales[0].name: found ' '"),
        (SINGLES_DAY.replace("first: 2025-11-11", "first: 11.11"), "sales[0].first: found 11.11"),
        (SINGLES_DAY.replace("2025-11-11,", "2025-11-11T10:00:00,"), "sales[0].first: found"),
        (SINGLES_DAY.replace("2025-11-11", "2025-13-01"), "cannot be read as YAML"),
        (SINGLES_DAY.replace("last: 2025-11-11", "last: 9999-12-31"), "sales[0].last: found"),
        (SINGLES_DAY.replace("last: 2025-11-11", "last: null"), "sales[0].last: found None"),
        ("time_zone: UTC\nsales: soon\n", "sales: found 'soon', expected a list"),
        ("time_zone: UTC\nsales: [soon]\n", "sales[0]: found 'soon', expected a mapping"),
        (SINGLES_DAY + SINGLES_DAY, "key 'time_zone' is there twice"),
        ("", "the file: found None, expected a mapping with time_zone, sales"),
        ("sales: [", "cannot be read as YAML"),
        ("{[1]: 2}", "cannot be read as YAML"),
    ],
)
def test_a_bad_calendar_is_one_line_with_file_and_field(tmp_path, text, said):
    path = written(tmp_path, text)
    with pytest.raises(SaleCalendarError) as caught:
        SaleCalendar.load(path)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_missing_calendar_says_so(tmp_path):
    with pytest.raises(SaleCalendarError, match=r"none\.yaml: no such sale calendar"):
        SaleCalendar.load(tmp_path / "none.yaml")


def test_a_calendar_that_is_not_text_says_so(tmp_path):
    path = tmp_path / "calendar.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SaleCalendarError, match="cannot be read as UTF-8"):
        SaleCalendar.load(path)
