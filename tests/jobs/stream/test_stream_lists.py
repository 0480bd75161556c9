"""Lists of what was shown in the stream, in its archive, its log and an audit's tail."""

import json

import numpy as np
import pytest

from tests.jobs.stream.conftest import NOW_MS, SmallBundle
from uic.jobs.stream.fold.fold_function import FoldFunction
from uic.models.memory.fold import MemoryFolder
from uic.models.records.record import header_view, state_view
from uic.models.state.definition import StateDefinition
from uic.pipelines.log.events import EventParser
from uic.pipelines.settings import LogSettings

STATE = StateDefinition.of_document(
    {
        "version": 1,
        "parts": {
            "clicked": {"kind": "rates", "by": "item", "exposures": ["shown"],
                        "successes": ["click"], "size": 8},
            "items": {"kind": "counts", "size": 8},
        },
    },
    "test",
)  # fmt: skip


class BundleOfLists(SmallBundle):
    """The small network with parts, one of which reads what was shown."""

    state = STATE


def shown(user: int, *items: int, **other) -> bytes:
    event = {
        "user_id": user, "behavior": "shown", "request_id": 1, "event_time": NOW_MS,
        "item_ids": items, "category_ids": [item % 10 for item in items],
    }  # fmt: skip
    return json.dumps(event | other).encode()


@pytest.fixture
def reading(bench):
    """A fold function of a bundle that reads lists."""
    folder = MemoryFolder(BundleOfLists(), 1)
    function: FoldFunction = bench.function(
        folder=folder, parser=EventParser(LogSettings(), lists=True)
    )
    return function, folder


def record_of(bench, folder: MemoryFolder, user: int):
    [record], _ = bench.store().read(1, np.array([user]), folder.record_bytes)
    return record


def test_the_memory_is_that_of_the_behaviours_and_the_parts_have_both(
    reading, bench, send, make_payload
):
    function, folder = reading
    rows = [
        (make_payload(1, 5), 0, 0),
        (shown(1, 5, 6, 7), 0, 1),
        (make_payload(1, 6), 0, 2),
        (shown(2, 5), 1, 0),
        (shown(1, 8, category_ids=[]), 0, 3),
    ]
    assert send(function, rows) == [None, None, None, None, "shown_lists"]
    record = record_of(bench, folder, 1)
    header = header_view(record[None])
    assert (header["events"][0], header["offset"][0]) == (2, 2)
    alone = np.frombuffer(bench.folded([(1, 5, 0, 0), (1, 6, 0, 2)])[1], np.uint8)[None]
    floats = folder.state_floats
    assert state_view(record[None], floats).tobytes() == state_view(alone).tobytes()
    totals = function.counters.totals
    assert (totals["events"], totals["folded"]) == (5, 4)
    only_shown = header_view(record_of(bench, folder, 2)[None])
    assert (only_shown["events"][0], only_shown["epoch"][0]) == (0, 1)


def test_a_list_that_comes_again_changes_nothing(reading, bench, send, make_payload):
    function, folder = reading
    rows = [(shown(1, 5, 6), 0, 0), (make_payload(1, 5), 0, 1), (shown(1, 5), 0, 2)]
    send(function, rows)
    once = record_of(bench, folder, 1)
    again = bench.function(folder=folder, parser=EventParser(LogSettings(), lists=True))
    bench.set_marker(0, 0)  # an older copy of the marker: the records know better
    assert send(again, rows[1:]) == [None, None]
    assert record_of(bench, folder, 1).tobytes() == once.tobytes()
    assert again.counters.totals["folded"] == 0


def test_a_bundle_that_reads_no_lists_passes_them(bench, send, make_payload):
    function = bench.function()
    assert send(function, [(make_payload(1, 5), 0, 0), (shown(1, 5, 6), 0, 1)]) == [None, None]
    assert bench.memories([1]) == [bench.folded([(1, 5, 0, 0)])[1]]
    assert bench.store().markers(1, 1)[0].offset == 1


def test_lists_are_in_no_sequence(reading, send, make_payload):
    function, _ = reading
    kept = []

    class Sequences:
        def append(self, users, events):
            kept.extend(events.item_ids.tolist())
            return 0

    function.sequences = Sequences()
    send(function, [(shown(1, 5, 6), 0, 0), (make_payload(1, 9), 0, 1)])
    assert kept == [9]
