"""Producers: pace, files, and dead letters that are sent again."""

import json

import numpy as np
import pyarrow as pa
import pytest

from uic.jobs.stream.letters.dead_letters import DeadLetter, sendable
from uic.jobs.stream.topics.event_files import read_lines, scan_folder
from uic.jobs.stream.topics.produce import (
    PRODUCER_SETTINGS,
    Outgoing,
    Pace,
    log_payloads,
    payload_of,
    simulated_payloads,
    write_files,
)
from uic.models.features.event_columns import EventColumn
from uic.models.hashing import stable_hash
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.writer import LogWriter, Part


def _outgoing(users: list[int], time_ms: int = 1_700_000_000_000) -> Outgoing:
    return Outgoing(
        [payload_of(user, 7, 1, "click", time_ms) for user in users],
        np.array(users, np.int64),
        np.full(len(users), time_ms, np.int64),
    )


def test_producers_are_idempotent_and_partition_as_java_does():
    assert PRODUCER_SETTINGS["enable.idempotence"] is True
    assert PRODUCER_SETTINGS["partitioner"] == "murmur2_random"


def test_an_event_on_the_wire():
    assert payload_of(1, 2, 3, "buy", 4) == (
        b'{"user_id":1,"item_id":2,"category_id":3,"behavior":"buy","event_time":4}'
    )


def test_columns_of_events_are_sent_as_the_log_has_them(tmp_path):
    log = EventLog(tmp_path / "log")
    table = pa.table(
        {
            "user_id": [1, 2, 3],
            "item_id": [1, 2, 3],
            "category_id": [0, 0, 0],
            "behavior": pa.array([0, 0, 0], pa.int8()),
            "event_time": pa.array([7, 8, 9], pa.timestamp("ms")),
            "event.price": pa.array([1.5, None, 2.0], pa.float64()),
            "event.shop": pa.array([4, 5, None], pa.int64()),
        }
    )
    with LogWriter(log, Part("test"), time_zone="UTC", partitions=1) as writer:
        writer.add_behaviors(table)
        writer.note_columns(
            [
                EventColumn(name="price", kind="number", field="price"),
                EventColumn(name="shop", kind="categorical", field="shop_id"),
            ]
        )
        writer.publish()
    (batch,) = log_payloads(log, now=False)
    further = [list(json.loads(payload).items())[5:] for payload in batch.payloads]
    assert further == [[("price", 1.5), ("shop_id", 4)], [("shop_id", 5)], [("price", 2.0)]]


def test_files_go_on_where_the_last_ones_end(tmp_path):
    assert write_files([_outgoing([1, 2, 3, 4])], tmp_path, partitions=1) == 4
    assert write_files([_outgoing([5, 6])], tmp_path, partitions=1) == 2
    (files,) = scan_folder(tmp_path).values()
    assert [(file.first, file.last) for file in files] == [(0, 3), (4, 5)]


def test_a_users_events_are_in_one_partition(tmp_path):
    users = list(range(50)) * 2
    write_files([_outgoing(users)], tmp_path, partitions=4)
    for partition, files in scan_folder(tmp_path).items():
        for row in read_lines(files[0].path):
            user = json.loads(row.payload)["user_id"]
            assert int(stable_hash([user])[0] % 4) == partition


def test_the_limit_holds(tmp_path):
    assert write_files([_outgoing([1, 2]), _outgoing([3, 4])], tmp_path, 1, limit=3) == 3


def test_pace_without_a_rate_lets_everything_go_up_to_the_limit():
    pace = Pace(limit=10)
    assert pace.next_share(8) == 8
    pace.sent = 8
    assert pace.next_share(8) == 2
    pace.sent = 10
    assert pace.next_share(8) == 0


def test_pace_holds_a_rate():
    import time

    pace = Pace(events_per_second=200)
    began = time.monotonic()
    while pace.sent < 40:
        pace.sent += pace.next_share(1000)
    assert 0.1 < time.monotonic() - began < 5


@pytest.mark.parametrize("now", [False, True])
def test_simulated_events_are_events(now):
    import time

    batch = next(simulated_payloads(20, 3, 1, now=now))
    event = json.loads(batch.payloads[0])
    assert event["user_id"] == batch.user_ids[0]
    recent = event["event_time"] > (time.time() - 60) * 1000
    assert recent is now


def test_only_letters_with_a_user_are_sent_again():
    letters = [
        DeadLetter(1, 0, 0, 5, "partition_moved", payload_of(9, 1, 1, "click", 1)),
        DeadLetter(1, 0, 1, 5, "malformed", b"{"),
        DeadLetter(1, 0, 2, 5, "malformed", None),
        DeadLetter(1, 0, 3, 5, "wrong_type", b'{"user_id": true}'),
    ]
    outgoing, chosen = sendable(letters)
    assert [letter.offset for letter in chosen] == [0]
    assert outgoing.user_ids.tolist() == [9]
