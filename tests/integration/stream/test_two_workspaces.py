"""Two workspaces, one topic and one store: only the one whose log has the epochs streams."""

import shutil
from dataclasses import replace

import pytest

from uic.feature_repo.store.claim import StoreClaim
from uic.feature_repo.store.errors import StoreClaimError
from uic.feature_repo.store.layout import claim_key
from uic.jobs.stream.run.planner import Planner, RunOptions
from uic.jobs.stream.run.start_positions import ForeignEpochError
from uic.jobs.stream.topics.kafka_server import KafkaServer
from uic.pipelines.log.event_log import EventLog

pytestmark = pytest.mark.kafka


def test_a_new_machine_without_the_log_does_not_take_the_topic_for_the_import(
    trial, kafka: KafkaServer, tmp_path
):
    kafka.create_topic("shared", 2)
    first = trial(brokers=kafka.brokers, topic="shared")
    EventLog(first.log).append_epoch(
        kind="import", name="shop", partitions=2, first_offsets={0: 0, 1: 0}
    )
    here = Planner(first, RunOptions())
    here.client.hset(here.keys.markers(1), mapping={"1:0": 23_000, "1:1": 23_719})
    plan, _ = here.plan(1, 1)
    here.client.hset(here.keys.markers(1), "2:0", 0)
    assert here.generations.get(1).epochs == {1: "shop", 2: f"shared.{plan.topic_id}"}
    # Bundles and settings came along, and the address of the store.
    store = first.config.store.model_copy(update={"address": str(here.address)})
    second = replace(
        first,
        workspace=tmp_path / "second",
        config=first.config.model_copy(update={"store": store}),
    )
    shutil.copytree(first.bundles, second.bundles)
    there = Planner(second, RunOptions())
    with pytest.raises(StoreClaimError, match="uic store adopt"):
        there.plan(1, 1)
    # Without a claim, as in a store of an older version, the epochs speak.
    here.client.delete(claim_key(here.keys.project))
    with pytest.raises(ForeignEpochError, match=r"folded epoch 1 \(shop\), .* is shared\."):
        there.plan(1, 1)
    assert not EventLog(second.log).epochs()
    assert StoreClaim(here.client, store, first.workspace, "redis").read() is None
