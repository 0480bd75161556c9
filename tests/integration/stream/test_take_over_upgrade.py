"""Another `state.yaml` while the old one is read and streamed: nothing is lost or wrong."""

import threading
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.pipelines.memories.conftest import untrained_bundle
from uic.jobs.stream.run.detached import stop_stream
from uic.jobs.stream.run.lag import lag_of
from uic.jobs.stream.run.planner import Planner, RunOptions
from uic.jobs.stream.topics.event_files import LoggedPayload, write_event_file
from uic.jobs.stream.topics.produce import payload_of
from uic.jobs.workspace.workspace import Workspace
from uic.models.state.definition import StateDefinition
from uic.pipelines.importers.table import TableColumns

pytestmark = pytest.mark.timeout(900)

LAST = date(2026, 3, 5)
DAY_MS = 86_400_000
START_MS = int(np.datetime64("2026-03-01", "ms").astype(np.int64))
ONCE = 500
PARTS: dict[str, Any] = {
    "items": {"kind": "counts", "by": "item", "size": 16},
    "last": {"kind": "recent", "size": 4},
}
CHANGED = {**PARTS, "last": {"kind": "recent", "size": 6}}
SETTINGS = """
stream:
  source: files
  files: {files}
  checkpoint_seconds: 2.0
  archive_roll_seconds: 2.0
memories:
  warm_up_days: 2
"""


def state_of(parts: dict[str, Any]) -> StateDefinition:
    return StateDefinition.of_document({"version": 1, "parts": parts}, "a test")


class Producer(threading.Thread):
    """Writes a file of 40 events every four seconds: a stream of files takes one after another."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.written, self.ends = folder, 0, threading.Event()
        self.users: set[int] = set()

    def run(self) -> None:
        draw = np.random.default_rng(3)
        while not self.ends.is_set():
            rows = []
            for at in range(self.written, self.written + 40):
                user, item = int(draw.integers(1, 60)), int(draw.integers(1, 50))
                time_ms = START_MS + 5 * DAY_MS + 100 * at
                payload = payload_of(user, item, item % 8, "click", time_ms)
                rows.append(LoggedPayload(payload, 0, at, time_ms))
                self.users.add(user)
            write_event_file(self.folder / f"0-{self.written:09d}.jsonl.gz", rows)
            self.written += 40
            self.ends.wait(4)


@pytest.fixture
def workspace(tmp_path: Path):
    """Five days of forty users, and of one who came on the first of them; generation 1 is live."""
    var = tmp_path / "var"
    var.mkdir()
    (var / "uic.yaml").write_text(SETTINGS.format(files=tmp_path / "events"))
    made = Workspace(var)
    draw = np.random.default_rng(1)
    users = np.append(draw.integers(1, 41, 2000), ONCE)
    table = pd.DataFrame({"user": users, "item": draw.integers(1, 50, 2001)})
    table["shelf"] = table.item % 8
    times = draw.integers(START_MS, START_MS + 5 * DAY_MS, 2000)
    table["time"] = np.append(times, START_MS + 1000)
    table.to_csv(tmp_path / "bought.csv", index=False)
    columns = TableColumns("user", "item", "time", category_id="shelf")
    made.import_table(tmp_path / "bought.csv", columns)
    for version, parts in (("1", PARTS), ("2", CHANGED)):
        path = made.context.bundles / "mimn" / version
        untrained_bundle(path, seed=int(version), state=state_of(parts))
    made.store.start()
    try:
        made.build_memories("mimn/1", LAST)
        made.load()
        made.switch(1)
        yield made
    finally:
        for generation in (1, 2):
            stop_stream(made.context, generation)
        made.store.stop()


def folded(workspace: Workspace, generation: int, events: int) -> None:
    """Wait until a generation has folded all that was produced."""
    planner = Planner(workspace.context, RunOptions(generation=generation))
    until = time.monotonic() + 300
    while lag_of(planner, generation).events or not planner.generations.markers(generation).get(2):
        assert time.monotonic() < until
        time.sleep(0.5)
    assert planner.generations.markers(generation)[2][0] == events - 1


def test_a_changed_state_is_filled_in_and_switched_to_while_the_old_one_streams(workspace):
    workspace.audit(sample_rate=1, ask_broker=False).require_no_mismatch()
    producer = Producer(workspace.config.stream.files)
    producer.start()
    try:
        workspace.stream.start(1)
        assert workspace.upgrade("mimn/2") == 2
        assert producer.is_alive()
        assert (workspace.context.memories / "live").resolve().name == "generation=002"
    finally:
        producer.ends.set()
        producer.join()
    folded(workspace, 2, producer.written)
    built = {snapshot.generation: snapshot.manifest for snapshot in workspace.snapshots()}
    assert built[2]["taken"]["parts"] == ["items"]
    assert built[2]["learns_from_ms"] == START_MS + 3 * DAY_MS
    audit = workspace.audit(sample_rate=1, ask_broker=False)
    audit.require_no_mismatch()
    assert [(one.number, one.state) for one in audit.generations] == [(1, "retired"), (2, "live")]
    users = [one.users for one in audit.generations]
    # Those who came only while it ran are as many as it had time to write.
    assert users[1] == len({*range(1, 41), *producer.users, ONCE})
    assert workspace.user(ONCE).view.events == 0
    assert workspace.user(ONCE).view.parts["items.distinct"] == 1
