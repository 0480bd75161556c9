"""The Flink job itself, on files: its plan, what it refuses, how it stops and goes on."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from uic.feature_repo.store.packed import PackedStore
from uic.jobs.drills.log import batch_fold
from uic.jobs.stream.fold.status import read_status
from uic.jobs.stream.letters.dead_letters import read_dead_letters
from uic.jobs.stream.run.planner import Planner, RunOptions
from uic.jobs.stream.run.supervisor import Supervisor
from uic.jobs.stream.topics.event_files import LoggedPayload, read_lines, write_event_file
from uic.jobs.stream.topics.produce import payload_of
from uic.models.bundles.bundle import load_bundle
from uic.models.memory.fold import MemoryFolder

# Java takes a minute to start on a busy machine.
pytestmark = pytest.mark.timeout(1200)

NOW_MS = 1_772_000_000_000
FAST = {"checkpoint_seconds": 2.0, "archive_roll_seconds": 2.0, "task_restarts": 0, "attempts": 1}


def _good(count: int, seed: int) -> list[bytes]:
    draw = np.random.default_rng(seed)
    return [
        payload_of(user, item, item % 100, "click", NOW_MS)
        for user, item in zip(
            draw.integers(0, 300, count).tolist(),
            draw.integers(0, 5000, count).tolist(),
            strict=True,
        )
    ]


def _mutated(count: int, seed: int) -> list[bytes]:
    """Good payloads with bytes changed, cut, doubled or nested, and some that never were JSON."""
    draw = np.random.default_rng(seed)
    spoiled = []
    for payload in _good(count, seed + 1):
        text = bytearray(payload)
        kind = draw.integers(0, 6)
        at = int(draw.integers(0, len(text)))
        if kind == 0:
            text[at] = int(draw.integers(0, 256))
        elif kind == 1:
            del text[at:]
        elif kind == 2:
            text[at:at] = draw.bytes(3)
        elif kind == 3:
            text = bytearray(b"[" * at + bytes(text))
        elif kind == 4:
            text = text.replace(b'"user_id"', b'"user"', 1)
        else:
            text = bytearray(draw.bytes(40))
        spoiled.append(bytes(text))
    return spoiled


def _write(folder: Path, partition: int, payloads: list[bytes], first: int = 0) -> None:
    rows = [
        LoggedPayload(payload, partition, first + offset, NOW_MS + offset)
        for offset, payload in enumerate(payloads)
    ]
    write_event_file(folder / f"{partition}-{first:09d}.jsonl.gz", rows)


def _assert_equals_batch_fold(context, rejected: int | None = None) -> None:
    planner = Planner(context, RunOptions(generation=1))
    folder = MemoryFolder(load_bundle(context.bundles / "mimn" / "untrained"), 1)
    paths = sorted(context.config.stream.files.glob("*.gz"))
    expected = batch_fold(
        (row for path in paths for row in read_lines(path)), folder, context.config.log
    )
    users = np.array(sorted(expected.memories), np.int64)
    records, found = PackedStore(planner.client, planner.keys).read(1, users, folder.record_bytes)
    assert found.all()
    wanted = np.stack([expected.memories[user] for user in users.tolist()])
    assert (records == wanted).all()
    letters = {
        (letter.partition, letter.offset): letter.reason
        for letter in read_dead_letters(context.workspace / "stream" / "dead-letters")
    }
    assert letters == expected.rejects
    if rejected is not None:
        assert len(letters) >= rejected


def test_malformed_events_are_dead_letters_and_the_job_never_restarts(trial, tmp_path):
    files = tmp_path / "events"
    mixed = _good(4000, 1) + _mutated(10_000, 2)
    np.random.default_rng(3).shuffle(mixed)
    # A user is in one partition: the fuzzed ids may be anyone's, so there is only one.
    _write(files, 0, mixed)
    context = trial(source="files", files=files, **FAST)
    said: list[str] = []
    told = []
    planner = Planner(context, RunOptions(until_end=True))
    Supervisor(planner, said.append, lambda *how_far: told.append(how_far)).run()
    assert said[-1] == "attempt 1 finished"
    assert (told[0], told[-1]) == (
        ("events read", 0, 14_000),
        ("events read", 14_000, 14_000),
    )
    _assert_equals_batch_fold(context, rejected=8000)
    planner = Planner(context, RunOptions())
    status = read_status(planner.client, "uic", 1)
    assert status.totals["events"] == 14_000  # each came once: nothing was started again
    assert set(status.rejects()) >= {"malformed", "missing_field"}


def test_a_watching_job_takes_new_files_and_stops_with_a_savepoint(trial, tmp_path):
    files = tmp_path / "events"
    _write(files, 0, _good(500, 1))
    context = trial(source="files", files=files, **FAST)
    planner = Planner(context, RunOptions())
    said: list[str] = []
    supervisor = Supervisor(planner, said.append)
    running = threading.Thread(target=supervisor.run)
    running.start()
    try:
        _wait_for_marker(planner, 499, running)
        _write(files, 0, _good(300, 2), first=500)
        _write(files, 0, _good(200, 3), first=800)
        _wait_for_marker(planner, 999, running)
    finally:
        supervisor.request_stop()
        running.join(400)
    assert re.search(r"attempt 1 stopped \(savepoint .*savepoint", said[-1])
    _assert_equals_batch_fold(context)


def _wait_for_marker(planner, offset, running):
    until = time.monotonic() + 500
    while planner.generations.markers(1).get(1, {}).get(0, -1) < offset:
        assert running.is_alive()
        assert time.monotonic() < until
        time.sleep(0.2)


def test_one_scan_and_one_call_of_the_fold(trial, tmp_path):
    """Dead letters and archive share them; else every event would be folded twice."""
    files = tmp_path / "events"
    _write(files, 0, _good(10, 1))
    context = trial(source="files", files=files)
    plan, _ = Planner(context, RunOptions()).plan(1, 1)
    path = tmp_path / "plan.json"
    path.write_text(plan.model_dump_json())
    script = (
        "import sys; from uic.jobs.stream.run.attempt import _prepare_process; "
        "from uic.jobs.stream.fold.plan import JobPlan; "
        "plan = JobPlan.model_validate_json(open(sys.argv[1]).read()); _prepare_process(plan); "
        "from uic.jobs.stream.run.job import build; print(build(plan).explain())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        capture_output=True,
        text=True,
        env={**os.environ},
        timeout=500,
        check=True,
    )
    executed = done.stdout.split("== Optimized Execution Plan ==")[1]
    assert executed.count("TableSourceScan(") == 1
    assert executed.count("fold_events(") == 1
    assert "Sink(table=[default_catalog.default_database.dead_letters]" in executed
    assert "Sink(table=[default_catalog.default_database.archive]" in executed


@pytest.mark.parametrize("lines", [["{"], [json.dumps({"payload": "e30=", "log_partition": 0})]])
def test_a_broken_event_file_is_refused_before_flink_starts(trial, tmp_path, lines):
    import gzip

    from uic.models.errors import BadInputError

    (tmp_path / "events").mkdir()
    with gzip.open(tmp_path / "events" / "a.jsonl.gz", "wt") as stream:
        stream.write("\n".join(lines))
    context = trial(source="files", files=tmp_path / "events")
    with pytest.raises(BadInputError, match=r"a\.jsonl\.gz: line 1"):
        Supervisor(Planner(context, RunOptions(until_end=True)), print).run()
