"""What was served beside the log: the same memories and scores, and every way of not being so."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from uic.models.bundles.bundle import load_bundle
from uic.models.memory.state import MemoryState
from uic.pipelines.audit.memories import AuditRequest
from uic.pipelines.audit.report import AuditMismatchError, require_no_mismatch
from uic.pipelines.audit.served import audit_served
from uic.pipelines.audit.settings import AuditSettings
from uic.pipelines.log.event_log import EventLog

ITEMS = [1, 2, 3]


def answers(bench, number, users):
    """Rows as the service writes them, scored with the memories of the store."""
    bundle = load_bundle(bench.workspace / "bundles" / "mimn" / "1")
    table = pq.read_table(EventLog(bench.workspace / "log").items_file())
    category = dict(zip(*(column.to_pylist() for column in table.columns[:2]), strict=True))
    vectors = bundle.embed(np.array(ITEMS), np.array([category[item] for item in ITEMS]))
    rows = []
    for user in users:
        record = bench.record(number, user)
        state = MemoryState.unpack(record, bundle.memory.layout)
        with torch.no_grad():
            owners = torch.zeros(len(ITEMS), dtype=torch.int64)
            logits = bundle.model.head(bundle.model.reading(state, owners, vectors))
        rows.append(
            {
                "user_id": user,
                "item_ids": ITEMS,
                "probabilities": logits.sigmoid().tolist(),
                "bundle": "mimn/1",
                "generation": number,
                "memory": record.tobytes(),
            }
        )
    return rows


def audit(bench, rows):
    folder = bench.workspace / "serving" / "features" / "dt=2024-03-06"
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "1.parquet")
    request = AuditRequest(
        log=bench.workspace / "log",
        memories=bench.workspace / "memories",
        bundles=bench.workspace / "bundles",
        scratch=bench.workspace / "spool",
        settings=AuditSettings(),
    )
    return audit_served(request, folder.parent)


def test_answers_before_and_after_more_events_are_what_log_and_model_say(bench):
    number = bench.build()
    rows = answers(bench, number, [1, 2, 2])
    bench.stream(number)
    found = audit(bench, rows + answers(bench, number, [2, 0]))
    assert (found.answers, found.memories, found.matched, found.differing) == (5, 5, 5, 0)
    assert found.scored == 15
    assert found.largest_difference < 1e-6
    require_no_mismatch([], found)


def test_a_served_memory_with_one_wrong_bit_is_differing(bench):
    number = bench.build()
    [row] = answers(bench, number, [1])
    spoilt = bytearray(row["memory"])
    spoilt[200] ^= 1
    found = audit(bench, [row | {"memory": bytes(spoilt)}])
    assert (found.matched, found.differing) == (0, 1)
    with pytest.raises(AuditMismatchError, match="1 memories differ"):
        require_no_mismatch([], found)


def test_a_probability_that_the_model_does_not_give_is_a_mismatch(bench):
    number = bench.build()
    [row] = answers(bench, number, [1])
    other = [row["probabilities"][0] + 0.01, *row["probabilities"][1:]]
    found = audit(bench, [row | {"probabilities": other}])
    assert found.matched == 1
    assert found.largest_difference == pytest.approx(0.01, abs=1e-5)
    with pytest.raises(AuditMismatchError, match=r"probabilities by up to 0\.01"):
        require_no_mismatch([], found)


def test_answers_without_a_memory_and_an_empty_folder_are_nothing_to_judge(bench, tmp_path):
    number = bench.build()
    [row] = answers(bench, number, [1])
    found = audit(bench, [row, row | {"memory": None, "user_id": 999}])
    assert (found.answers, found.matched) == (1, 1)
    request = AuditRequest(tmp_path, tmp_path, tmp_path, tmp_path, AuditSettings())
    assert audit_served(request, tmp_path / "none") is None
