"""A stream notes how far the records are, where the workspace limits how far they may be behind."""

import time

from uic.feature_repo.store.folded_until import FoldedUntil
from uic.jobs.stream.run.lag_watch import LagWatch
from uic.jobs.stream.run.metrics_relay import LAG_FILE
from uic.jobs.stream.run.planner import Planner, RunOptions
from uic.jobs.stream.topics.event_files import LoggedPayload, write_event_file
from uic.jobs.stream.topics.produce import payload_of

LONG_AGO_MS = 1_772_323_200_000
LIMITED = """\
version: 1
parts: {last: {kind: recent, size: 4}}
freshness: {at_most: 10m}
"""


def test_a_stream_notes_when_each_partition_had_nothing_left(trial, tmp_path) -> None:
    folder = tmp_path / "events"
    for partition in range(2):
        rows = [
            LoggedPayload(
                payload_of(partition, 1, 1, "click", LONG_AGO_MS), partition, at, LONG_AGO_MS
            )
            for at in range(3)
        ]
        write_event_file(folder / f"{partition}.jsonl.gz", rows)
    planner = Planner(trial(source="files", files=folder), RunOptions())
    plan, _ = planner.plan(1, 1)
    folded = FoldedUntil(planner.client, planner.keys, str(planner.address))
    watch = LagWatch(planner, plan)

    def mark(first: int, second: int) -> None:
        marks = {
            f"{plan.epoch}:{partition}": f"{offset}@{LONG_AGO_MS}"
            for partition, offset in enumerate((first, second))
        }
        planner.client.hset(planner.keys.markers(1), mapping=marks)

    mark(2, 2)
    watch.look()  # no file of the workspace asks
    assert folded.read(1) == LONG_AGO_MS
    (planner.context.workspace / "state.yaml").write_text(LIMITED)
    mark(2, 0)
    watch.look()
    assert folded.read(1) == LONG_AGO_MS
    mark(2, 2)
    started = int(time.time() * 1000)
    with watch:
        pass  # a stream that ends looks once more
    assert started <= folded.read(1) <= int(time.time() * 1000)
    assert not (plan.run_folder / LAG_FILE).exists()
