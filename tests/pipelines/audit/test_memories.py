"""The audit on a real Redis: nothing to say of a right store, and every way of being wrong."""

import json
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from tests.pipelines.audit.conftest import SNAPSHOT_DAY, everybody
from tests.pipelines.memories.conftest import write_log
from uic.models.hashing import stable_hash
from uic.models.records.record import header_view
from uic.pipelines.audit.compare import Verdict
from uic.pipelines.audit.log_tail import LogTail
from uic.pipelines.audit.report import AuditMismatchError, require_no_mismatch
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.memories.exclude import ExcludeRule


def only(**counts):
    """Counts by verdict, zero where not named."""
    return {verdict: counts.get(verdict.name.lower(), 0) for verdict in Verdict}


def test_a_loaded_snapshot_matches_the_log_to_the_bit(bench):
    number = bench.build()
    found = bench.audit(number)
    assert found.users == 30
    assert found.counts == only(matched=30)
    assert found.largest_difference == 0
    require_no_mismatch([found])


def test_what_was_streamed_after_the_snapshot_matches_too(bench):
    number = bench.build()
    before = bench.audit(number).events
    bench.stream(number)
    found = bench.audit(number)
    assert found.counts == only(matched=30)
    assert found.events == 800 > before


def test_one_flipped_bit_of_one_memory_is_differing(bench):
    number = bench.build()
    spoilt = bench.record(number, 7)
    spoilt[0, 100] ^= 1
    bench.put(number, 7, spoilt)
    found = bench.audit(number)
    assert found.counts == only(matched=29, differing=1)
    assert found.largest_difference > 0
    [example] = found.examples
    assert (example.user_id, example.verdict) == (7, Verdict.DIFFERING)
    with pytest.raises(
        AuditMismatchError, match=r"1 differing of 30 users \(user 7 differing"
    ) as e:
        require_no_mismatch([found])
    assert e.value.exit_code == 3


def test_a_wrong_header_is_differing_though_its_numbers_are_right(bench):
    number = bench.build()
    spoilt = bench.record(number, 7)
    header_view(spoilt)["events"] += 1
    bench.put(number, 7, spoilt)
    assert bench.audit(number).counts == only(matched=29, differing=1)


def test_a_position_that_the_log_never_had_is_differing(bench):
    number = bench.build()
    spoilt = bench.record(number, 7)
    header_view(spoilt)["offset"] += 1_000_000
    bench.put(number, 7, spoilt)
    assert bench.audit(number).counts == only(matched=29, differing=1)


def test_a_user_whom_the_store_lost_is_missing(bench):
    number = bench.build()
    bench.remove(number, 3)
    found = bench.audit(number)
    assert found.counts == only(matched=29, missing=1)
    assert [example.user_id for example in found.examples] == [3]


def test_a_user_whom_the_log_does_not_know_is_extra(bench):
    number = bench.build()
    bench.put(number, 9_000, bench.record(number, 3))
    found = bench.audit(number)
    assert found.counts == only(matched=30, extra=1)
    assert found.users == 31


def test_an_old_memory_of_somebody_who_has_clicked_since_is_behind(bench):
    number = bench.build()
    old = bench.record(number, 0)
    bench.stream(number)
    bench.put(number, 0, old)
    assert bench.audit(number).counts == only(matched=29, behind=1)


class Archived:
    """The log's own later files as a tail; `late` shows them only to who waits."""

    def __init__(self, tail: LogTail, *, late: bool) -> None:
        self._now = LogTail() if late else tail
        self._tail = tail
        self.waited_for: list[dict[int, dict[int, int]]] = []

    def read(self) -> LogTail:
        return self._now

    def wait_for(self, positions: dict[int, dict[int, int]]) -> LogTail:
        self.waited_for.append(positions)
        return self._tail


def cut_log_at_snapshot(folder: Path) -> LogTail:
    """Make the log what it was at the snapshot; what streamed since is the tail."""
    log = EventLog(folder / "log")
    (epoch,) = log.epochs()
    later = [
        replace(file, path=shutil.copy(file.path, folder / f"{file.dt}.parquet"))
        for file in log.behavior_files(SNAPSHOT_DAY + timedelta(days=1))
    ]
    whole = everybody()
    end = np.datetime64(SNAPSHOT_DAY + timedelta(days=1), "ms")
    early = whole.filter(whole.column("event_time").to_numpy() < end)
    shutil.rmtree(folder / "log")
    write_log(folder / "log", early)
    return LogTail(tuple(later), {1: epoch.last_offsets})


def test_memories_that_log_and_archive_do_not_reach_are_not_judged_which_is_no_pass(
    bench, tmp_path
):
    number = bench.build()
    bench.stream(number)
    cut_log_at_snapshot(tmp_path)
    found = bench.audit(number)
    assert found.counts[Verdict.AHEAD] > 5
    assert found.mismatches == found.counts[Verdict.AHEAD]
    with pytest.raises(AuditMismatchError, match="neither log nor archive has"):
        require_no_mismatch([found])


@pytest.mark.parametrize("late", [False, True])
def test_what_the_archive_has_behind_the_log_is_judged(bench, tmp_path, late):
    """Of a live store the last seconds are archived only later: the audit waits for them."""
    number = bench.build()
    bench.stream(number)
    spoilt = bench.record(number, 7)
    spoilt[0, 60] ^= 1
    bench.put(number, 7, spoilt)
    tail = Archived(cut_log_at_snapshot(tmp_path), late=late)
    found = bench.audit(number, tail=tail)
    assert found.counts == only(matched=29, differing=1)
    assert found.events == 800
    assert bool(tail.waited_for) is late


def test_a_log_that_was_compacted_while_the_audit_waited_is_not_judged(bench, tmp_path):
    number = bench.build()
    bench.stream(number)
    tail = Archived(cut_log_at_snapshot(tmp_path), late=True)

    def wait_for(positions):
        path = tmp_path / "log" / "epochs.json"
        document = json.loads(path.read_text())
        document["epochs"][0]["last_offsets"]["0"] += 1
        path.write_text(json.dumps(document))
        return LogTail()

    tail.wait_for = wait_for
    found = bench.audit(number, tail=tail)
    assert found.counts[Verdict.AHEAD] > 5
    assert found.counts[Verdict.DIFFERING] == 0


def test_a_live_store_whose_markers_are_behind_the_log_is_no_pass(bench, tmp_path):
    """It was put back to an older copy, and nobody has sent an event since."""
    number = bench.build()
    path = tmp_path / "log" / "epochs.json"
    document = json.loads(path.read_text())
    document["epochs"][0] |= {"kind": "topic", "name": "behaviours.x"}
    path.write_text(json.dumps(document))
    ready = bench.audit(number)
    assert ready.counts == only(matched=30)
    assert ready.unpassed == 800 - ready.events
    require_no_mismatch([ready])  # it waits for its stream
    bench.store.generations.switch(number, 0)
    with pytest.raises(AuditMismatchError, match=f"not passed {ready.unpassed} offsets"):
        require_no_mismatch([bench.audit(number)])
    bench.stream(number)
    require_no_mismatch([bench.audit(number)])


def test_a_log_that_has_an_event_twice_is_no_pass(bench, tmp_path):
    number = bench.build()
    (first, *_) = EventLog(tmp_path / "log").behavior_files()
    tail = Archived(LogTail((first,)), late=False)
    found = bench.audit(number, tail=tail)
    assert found.repeated == first.rows
    with pytest.raises(AuditMismatchError, match=f"the log has {first.rows} positions twice"):
        require_no_mismatch([found])


def test_a_sample_is_the_same_users_in_log_and_store(bench):
    number = bench.build()
    found = bench.audit(number, rate=0.4)
    taken = [u for u in range(30) if int(stable_hash([u], 8)[0]) < 0.4 * 2**64]
    assert found.counts == only(matched=len(taken))
    assert 0 < len(taken) < 30


def test_a_sample_of_few_users_takes_one_at_least(bench):
    number = bench.build()
    lowest = min(range(30), key=lambda user: int(stable_hash([user], 8)[0]))
    found = bench.audit(number, rate=1e-9)
    assert found.counts == only(matched=1)
    record = bench.record(number, lowest)
    record[0, -1] ^= 1
    bench.put(number, lowest, record)
    assert bench.audit(number, rate=1e-9).counts == only(differing=1)


def test_an_audit_that_compared_nobody_is_no_pass(bench):
    number = bench.build()
    for user in range(30):
        bench.remove(number, user)
    found = bench.audit(number, rate=1e-9)
    assert found.users == 0
    with pytest.raises(AuditMismatchError, match=f"generation {number}: no user was compared"):
        require_no_mismatch([found])


def test_what_a_generation_leaves_out_is_left_out_by_its_audit(bench):
    rule = ExcludeRule(name="robot", users=(1,))
    number = bench.build(rules=(rule,))
    assert bench.audit(number).counts == only(matched=29)
    assert bench.audit(bench.build()).counts == only(matched=30)
    # A memory of the robot from a generation that kept it.
    bench.put(number, 1, bench.record(number, 2))
    assert bench.audit(number).counts == only(matched=29, extra=1)


def test_forgotten_users_are_neither_missing_nor_allowed_back(bench):
    number = bench.build()
    kept = bench.record(number, 5)
    bench.store.generations.forget(5)
    assert bench.audit(number).counts[Verdict.MISSING] == 0
    bench.put(number, 5, kept)
    assert bench.audit(number).counts == only(matched=29, extra=1)


def test_another_machine_gets_a_tolerance_for_numbers_only(bench, monkeypatch):
    number = bench.build()
    near = bench.record(number, 7)
    near[0, 100] ^= 1
    bench.put(number, 7, near)
    wrong = bench.record(number, 8)
    header_view(wrong)["last_event_time_ms"] += 1
    bench.put(number, 8, wrong)
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "another")
    found = bench.audit(number)
    assert found.tolerance == 0.05
    assert found.counts == only(matched=28, within_tolerance=1, differing=1)


def test_the_audit_leaves_no_scratch_files(bench):
    bench.audit(bench.build())
    assert not (bench.workspace / "spool").exists()
