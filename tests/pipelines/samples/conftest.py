"""A slow, obvious reference for samples: one impression at a time, from plain rows."""

from bisect import bisect_left
from collections import Counter, defaultdict
from datetime import date, datetime, timedelta
from functools import cache
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.pipelines.samples.small_run import random_tables
from uic.pipelines.days import CalendarDays, day_number
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.writer import LogWriter, Part
from uic.pipelines.sale_calendar import SaleCalendar
from uic.pipelines.samples.plan import SamplesPlan
from uic.pipelines.settings import SamplesSettings


def make_plan(
    first,
    last,
    *,
    zone="UTC",
    sale=(),
    keep_behaviors=False,
    keep_impressions=False,
    buckets=1,
    **settings,
):
    """A plan whose sale days are `sale`, in the plan's zone."""
    calendar = SaleCalendar.of_days(tuple(sale), zone)
    return SamplesPlan(
        first=first,
        last=last,
        time_zone=zone,
        samples=SamplesSettings(**settings),
        dropped_behaviors=SaleCalendar.empty() if keep_behaviors else calendar,
        dropped_impressions=SaleCalendar.empty() if keep_impressions else calendar,
        buckets=buckets,
    )


def columns(table):
    """The columns of a table as lists; times as milliseconds, behaviours as codes."""
    found = {}
    for name in table.column_names:
        values = table.column(name)
        if pa.types.is_timestamp(values.type):
            values = values.cast(pa.int64())
        if pa.types.is_dictionary(values.type):
            codes = {"click": 0, "cart": 1, "favourite": 2, "buy": 3}
            found[name] = [codes[text] for text in values.to_pylist()]
        else:
            found[name] = values.to_pylist()
    return SimpleNamespace(**found)


@cache
def _day_of_quarter(quarter, zone):
    return datetime.fromtimestamp(quarter * 900, ZoneInfo(zone)).date()


def day_of(time, zone):
    """The local day of a time in ms; every zone's offset is a multiple of 15 minutes."""
    return _day_of_quarter(time // 900_000, zone)


def on_sale(calendar, time):
    """Whether a time is on one of the calendar's days."""
    local = day_of(time, calendar.time_zone)
    return any(sale.first <= local <= sale.last for sale in calendar.sales)


def user_events(behaviors, plan):
    """user -> [(log time, (item, category, behaviour, event time))] in log order, no sale days."""
    rows = columns(behaviors)
    found = defaultdict(list)
    for user, _, _, log_time, *event in sorted(
        zip(
            rows.user_id, rows.epoch, rows.offset, rows.log_time,
            rows.item_id, rows.category_id, rows.behavior, rows.event_time, strict=True,
        )
    ):  # fmt: skip
        if not on_sale(plan.dropped_behaviors, log_time):
            found[user].append((log_time, tuple(event)))
    return found


def user_impressions(impressions, plan):
    """(day, user) -> [(time, place, item, category, clicked)] in order, no sale days."""
    rows = columns(impressions)
    found = defaultdict(list)
    for place, (user, time, *shown) in enumerate(
        zip(
            rows.user_id, rows.event_time, rows.item_id, rows.category_id, rows.clicked,
            strict=True,
        )
    ):  # fmt: skip
        day = day_of(time, plan.time_zone)
        if plan.first <= day <= plan.last and not on_sale(plan.dropped_impressions, time):
            found[day, user].append((time, place, *shown))
    return {key: sorted(found[key]) for key in sorted(found)}


def busy_days(events, plan):
    """user -> the days on which that user did more than a person does."""
    return {
        user: [
            day
            for day, count in Counter(
                day_of(log_time, plan.time_zone) for log_time, _ in of_user
            ).items()
            if count > plan.samples.max_events_per_day
        ]
        for user, of_user in events.items()
        if len(of_user) > plan.samples.max_events_per_day
    }


def reference(behaviors, impressions, plan):
    """What the samples must be: (user, day) -> [(item, category, time, label, what it sees)].

    `behaviors` and `impressions` are tables in the order of the log.
    """
    settings = plan.samples
    window = timedelta(days=settings.window_days) // timedelta(milliseconds=1)
    events = user_events(behaviors, plan)
    busy = busy_days(events, plan)
    groups = {}
    for (day, user), shown in user_impressions(impressions, plan).items():
        day_start = CalendarDays(plan.time_zone).start_ms(day_number(day))
        reach = day_of(day_start - window, plan.time_zone)
        if any(reach <= of_user <= day for of_user in busy.get(user, ())):
            continue
        log_times = [log_time for log_time, _ in events.get(user, ())]
        history = [event for _, event in events.get(user, ())]

        def cut(time, day_start=day_start):
            return day_start if settings.cut == "day_start" else time

        first_time = shown[0][0]
        in_window = bisect_left(log_times, first_time - window)
        before = bisect_left(log_times, cut(first_time))
        oldest = min(max(in_window, before - settings.history_cap), before)
        groups[user, day] = [
            (item, category, time, clicked, history[oldest : bisect_left(log_times, cut(time))])
            for time, _, item, category, clicked in shown
        ]
    return groups


def assert_same(table, expected):
    """Every row of `table` is what `expected` (of `reference`) says, in its order."""
    rows = columns(table.select(["user_id", "dt", "history_lengths"]))
    assert list(zip(rows.user_id, rows.dt, strict=True)) == list(expected)
    flat = {}
    for name in table.column_names[2:]:
        values = table.column(name).combine_chunks()
        offsets = [0, *values.value_lengths().to_numpy().cumsum().tolist()]
        flat[name] = (values.flatten(), offsets)
    lists = {name: columns(pa.table({"v": values})).v for name, (values, _) in flat.items()}
    events = list(
        zip(
            lists["history_item_ids"],
            lists["history_category_ids"],
            lists["history_behaviors"],
            lists["history_times"],
            strict=True,
        )
    )
    shown = list(
        zip(
            lists["item_ids"],
            lists["category_ids"],
            lists["event_times"],
            lists["labels"],
            strict=True,
        )
    )
    event_offsets, shown_offsets = flat["history_item_ids"][1], flat["item_ids"][1]
    lengths = lists["history_lengths"]
    for group, (key, impressions) in enumerate(expected.items()):
        history = events[event_offsets[group] : event_offsets[group + 1]]
        start = shown_offsets[group]
        assert shown_offsets[group + 1] - start == len(impressions), key
        for at, (*impression, sees) in enumerate(impressions, start):
            assert shown[at] == tuple(impression), key
            assert history[: lengths[at]] == sees, key
        assert len(history) == max(len(sees) for *_, sees in impressions), key


def write_log(root, behaviors, impressions, zone="UTC", name="test"):
    """An import of these tables as an event log under `root`."""
    log = EventLog(root)
    with LogWriter(log, Part(name), time_zone=zone) as writer:
        writer.add_behaviors(behaviors)
        writer.add_impressions(impressions)
        writer.publish()
    return log


def read_files(files):
    """All rows of files of a log, in their order."""
    tables = [pq.ParquetFile(file.path).read() for file in files]
    return pa.concat_tables(
        [
            table.drop_columns(["source"]) if "source" in table.column_names else table
            for table in tables
        ]
    ).unify_dictionaries()


def read_log(log):
    """All behaviours and impressions of a log, in its order, whatever their day."""
    return read_files(log.behavior_files()), read_files(log.impression_files())


@pytest.fixture(scope="session")
def oracle():
    """The functions above, since test modules do not import each other."""
    return SimpleNamespace(
        plan=make_plan,
        reference=reference,
        assert_same=assert_same,
        write_log=write_log,
        read_log=read_log,
        read_behaviors=lambda log: read_files(log.behavior_files()),
        days=lambda first, last: [first + timedelta(n) for n in range((last - first).days + 1)],
        day=date,
    )


@pytest.fixture
def log(oracle, tmp_path):
    return oracle.write_log(tmp_path / "log", *random_tables())
