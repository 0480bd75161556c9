"""A replayed day goes where the stream reads: the same epoch, the same offsets."""

import numpy as np
import pytest

from uic.feature_repo.store.opened import open_memories
from uic.jobs.replay.destination import destination_of
from uic.jobs.replay.hold_back import ReplayError
from uic.jobs.replay.run import wait_until_folded
from uic.jobs.stream.run.planner import Planner, RunOptions
from uic.jobs.stream.topics.produce import Outgoing, payload_of
from uic.pipelines.log.event_log import EventLog

TIME_MS = 1_700_000_000_000


def outgoing(count: int) -> Outgoing:
    users = np.arange(count, dtype=np.int64)
    payloads = [payload_of(user, 1, 1, "click", TIME_MS) for user in users.tolist()]
    return Outgoing(payloads, users, np.full(count, TIME_MS))


def check(context, kind: str) -> None:
    destination = destination_of(context, kind)
    assert not any(destination.ends().values())
    assert destination.send([outgoing(40)]) == 40
    assert destination.send([outgoing(20)]) == 20
    assert sum(destination.ends().values()) == 60
    plan, _ = Planner(context, RunOptions(generation=1)).plan(1, 1)
    assert plan.ends == destination.ends()
    [epoch] = [one for one in EventLog(context.log).epochs() if one.number == plan.epoch]
    assert epoch.name == destination.epoch_name()
    with open_memories(context.config.store, context.workspace) as store:
        # Nothing streams: the replay says so, instead of ranking with old memories.
        with pytest.raises(ReplayError, match="is it running"):
            wait_until_folded(context, store, 1, destination, seconds=0.1)
        key = store.generations.keys.markers(1)
        for partition, end in destination.ends().items():
            store.client.hset(key, f"{plan.epoch}:{partition}", end - 1)
        wait_until_folded(context, store, 1, destination, seconds=0.1)


def test_files(trial, tmp_path):
    check(trial(source="files", files=tmp_path / "events"), "files")


@pytest.mark.kafka
def test_a_topic(trial, kafka):
    kafka.create_topic("replayed", 3)
    check(trial(source="kafka", brokers=kafka.brokers, topic="replayed"), "kafka")


def test_another_kind_is_refused(trial):
    with pytest.raises(ReplayError, match="--to pigeon: expected files or kafka"):
        destination_of(trial(), "pigeon")
