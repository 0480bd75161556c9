"""Rows that are in the log more than once."""

import numpy as np
import pyarrow as pa

from tests.pipelines.quality.test_log_gates import DAY, failed, judge_behaviors
from uic.pipelines.quality.repetitions import Repetitions
from uic.pipelines.quality.rows import JudgedRows


def test_exact_repetitions_are_counted_and_remarked_on(log_folder):
    rows = log_folder.behaviors[DAY]
    # Logged twice: another offset, the same event.
    for place in (3, 5):
        rows[place]["event_time"] = rows[4]["event_time"]
    rows[6] |= {"event_time": rows[4]["event_time"], "behavior": "buy"}  # another event
    report = judge_behaviors(log_folder)
    assert report.frame["rows.repeated"].tolist()[:5] == [0, 0, 2, 0, 0]
    (remark,) = report.remarks
    assert remark.startswith("2 of 200 behaviours (1.00%) repeat another one to the millisecond")
    assert "most on 2024-03-03 (2); each counts" in remark
    assert failed(report) == set()


def test_repetitions_of_a_large_day_are_estimated():
    times = np.arange(40_000) // 2  # each twice
    batch = pa.RecordBatch.from_pydict(
        {
            "user_id": times % 100,
            "item_id": times,
            "event_time": pa.array(times, pa.timestamp("ms")),
            "behavior": pa.array(["click"] * 40_000).dictionary_encode(),
        }
    )
    repetitions = Repetitions(12_000_000)  # one hash in four is kept
    repetitions.add(JudgedRows(batch, 0, 86_400_000, 0))
    assert repetitions.count() % 4 == 0
    assert 19_000 < repetitions.count() < 21_000
