"""Columns of events in the stream, in the log that its archive becomes, and in an audit's tail."""

from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from uic.jobs.config.config import Config
from uic.jobs.config.context import Context
from uic.jobs.stream.fold.batch import readable_columns
from uic.jobs.stream.fold.noted import note_declared, noted_as_read
from uic.jobs.stream.letters.archive import epoch_folder
from uic.jobs.stream.letters.compact import compact
from uic.jobs.stream.letters.tail import ArchiveTail
from uic.jobs.stream.topics.event_files import LoggedPayload, line_of
from uic.models.features.event_columns import EventColumn
from uic.models.features.raw import MISSING, category_of
from uic.models.memory.fold import MemoryFolder
from uic.pipelines.log.columns import BEHAVIOR_EVENTS, event_batch, with_columns
from uic.pipelines.log.epochs import EpochHandOverError, EventColumnError, NotedColumn
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.events import EventParser
from uic.pipelines.log.writer import LogWriter, Part
from uic.pipelines.memories.exclude import Exclusion
from uic.pipelines.memories.read import read_events
from uic.pipelines.samples.log_parts import log_parts
from uic.pipelines.settings import LogSettings

DAY = date(2026, 3, 1)
DAY_MS = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp() * 1000)
PRICE = EventColumn(name="price", kind="number", field="price")
SHOP = EventColumn(name="shop", kind="categorical", field="shop_id")
FEATURES = (
    "version: 1\nevent: {price: {type: number}, shop: {type: categorical, column: shop_id}}\n"
)


class SeenFolder(MemoryFolder):
    """A fold that tells what it was given."""

    def fold(self, records, events):
        self.columns = {name: values.tolist() for name, values in events.columns.items()}
        return super().fold(records, events)


def noted(column: EventColumn, first: int = 0) -> NotedColumn:
    return NotedColumn(column=column, first_offsets={0: first, 1: first})


@pytest.fixture
def reading(bench, folder):
    """A fold function that reads columns, and the folder that tells what it got."""

    def make(*columns: NotedColumn):
        seen = SeenFolder(folder._bundle, 1)
        parser = EventParser(LogSettings(), [one.column for one in columns])
        return bench.function(parser=parser, columns=columns, folder=seen), seen

    return make


def test_a_fold_gets_the_columns_that_its_bundle_reads(reading, send, make_payload):
    function, seen = reading(noted(PRICE), noted(SHOP))
    rows = [
        (make_payload(1, 5, price=2.5, shop_id="A"), 0, 0),
        (make_payload(1, 6, price=3, brand=1), 0, 1),
    ]
    assert send(function, rows) == [None, None]
    assert seen.columns == {"price": [2.5, 3.0], "shop": [category_of("A"), MISSING]}


def test_a_value_of_the_wrong_type_is_a_dead_letter_and_changes_nothing(
    reading, send, make_payload, bench
):
    function, _ = reading(noted(PRICE))
    rows = [
        (make_payload(1, 5, price=2.5), 0, 0),
        (make_payload(1, 6, price="2.5"), 0, 1),
        (make_payload(1, 7, shop_id=[]), 0, 2),
    ]
    assert send(function, rows) == [None, "wrong_type", None]
    assert bench.memories([1]) == [bench.folded([(1, 5, 0, 0), (1, 7, 0, 2)])[1]]
    assert function.counters.totals["rejected_wrong_type"] == 1
    assert bench.store().markers(1, 1)[0].offset == 2


def test_before_a_column_begins_it_has_no_value_whatever_was_sent(reading, send, make_payload):
    function, seen = reading(noted(PRICE, first=2))
    rows = [(make_payload(1, 5 + at, price=price), 0, at) for at, price in enumerate((1, "x", 3))]
    assert send(function, rows) == [None, None, None]
    np.testing.assert_array_equal(seen.columns["price"], [np.nan, np.nan, 3.0])


@pytest.fixture
def context(tmp_path: Path) -> Context:
    context = Context(tmp_path, Config(), None)
    EventLog(context.log).append_epoch(
        kind="topic", name="behaviours.abc", partitions=2, first_offsets={0: 0, 1: 0}
    )
    return context


@pytest.fixture
def archive(context, make_payload):
    """Archive payloads of partition 0, one a second from midnight."""

    def write(first: int, *fields: dict) -> list[LoggedPayload]:
        times = [DAY_MS + 1000 * (first + at) for at in range(len(fields))]
        rows = [
            LoggedPayload(make_payload(1, 5, event_time=time, **more), 0, first + at, time)
            for at, (time, more) in enumerate(zip(times, fields, strict=True))
        ]
        folder = epoch_folder(context.workspace / "stream" / "archive", 1) / f"dt={DAY}" / "part=0"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"part-{first}").write_bytes(b"".join(line_of(row) for row in rows))
        return rows

    return write


def from_log(context: Context, *columns: EventColumn) -> list[tuple]:
    """(offset, values…) of the events that a fold of the log takes."""
    files = EventLog(context.log).behavior_files()
    files += ArchiveTail(context, context.workspace / "tail", streams=False).read().files
    rows: list[tuple] = []
    for part in log_parts(files, with_columns(BEHAVIOR_EVENTS, columns)):
        batch = event_batch(read_events(part, {}, Exclusion(), columns)[0], np.array([1]))
        given = [batch.columns[column.name].tolist() for column in columns]
        rows += zip(batch.offsets.tolist(), *given, strict=True)
    return rows


def from_stream(rows: list[LoggedPayload], *columns: NotedColumn) -> list[tuple]:
    times = np.array([row.log_time_ms for row in rows])
    offsets = np.array([row.offset for row in rows])
    parser = EventParser(LogSettings(), [one.column for one in columns])
    parsed = parser.parse([row.payload for row in rows], times)
    events = readable_columns(parsed, columns, np.zeros(len(rows), np.int64), offsets)
    given = [events.columns[one.column.name].tolist() for one in columns]
    return list(zip(offsets[events.index].tolist(), *given, strict=True))


def test_the_log_of_the_archive_has_what_the_stream_folded(context, archive):
    """The file of features changes meanwhile; bundles read one column, the other, or both."""
    rows = archive(0, {"price": 1}, {"price": "x"}, {"shop_id": "A"})
    compact(context, DAY)  # nothing was declared: the log has no column yet
    context.features.write_text(FEATURES)
    epoch = note_declared(context, EventLog(context.log).epochs()[0], [PRICE])
    rows += archive(3, {"price": 4}, {"price": "x", "shop_id": "B"}, {"price": 6, "shop_id": 1.5})
    compact(context, DAY)
    context.features.write_text("version: 1\n")  # what a bundle reads is kept all the same
    rows += archive(6, {"price": 7, "shop_id": "C"}, {"shop_id": []})
    assert [len(file_rows) for file_rows in (rows, from_log(context))] == [8, 8]
    for read in ((PRICE,), (SHOP,), (PRICE, SHOP)):
        streamed = from_stream(rows, *noted_as_read(epoch, read))
        assert str(from_log(context, *read)) == str(streamed)
    assert [row[0] for row in from_log(context, PRICE)] == [0, 1, 2, 3, 5, 6, 7]
    assert [row[0] for row in from_log(context, SHOP)] == [0, 1, 2, 3, 4, 6]
    compact(context, DAY)
    assert len(from_log(context, PRICE, SHOP)) == 5
    assert pq.read_schema(EventLog(context.log).behavior_files()[-1].path).names[-2:] == [
        "event.price",
        "event.shop",
    ]


def test_a_bundle_that_reads_a_column_as_another_kind_is_refused(context):
    context.features.write_text(FEATURES)
    epoch = EventLog(context.log).epochs()[0]
    other = EventColumn(name="shop", kind="number", field="shop")
    with pytest.raises(EventColumnError, match=r"event.shop: the bundle reads it as number, epoch"):
        note_declared(context, epoch, [other])


def test_a_bundles_column_is_read_from_the_field_that_the_site_names(context):
    context.features.write_text(FEATURES)
    trained = EventColumn(name="shop", kind="categorical", field="shop")
    epoch = note_declared(context, EventLog(context.log).epochs()[0], [trained])
    assert [one.column for one in noted_as_read(epoch, [trained])] == [SHOP]


def test_a_column_that_is_noted_while_a_day_is_published_is_not_left_out_of_it(context):
    """Between the look at the epoch and the lock: else the log would lack what streams read."""
    log = EventLog(context.log)
    before = log.epochs()[0]
    log.note_columns(1, [PRICE])
    writer = LogWriter(log, Part("late"), time_zone="UTC", topic=before)
    with pytest.raises(EpochHandOverError, match=r"columns of epoch 1 .* were noted by another"):
        writer.__enter__()
