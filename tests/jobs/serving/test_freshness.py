"""A service says how far its records are behind, and does what `state.yaml` wants of it."""

import time

import pytest

from tests.jobs.serving.running import running_service
from tests.jobs.serving.shop import FIRST_ITEM, Shop
from uic.feature_repo.store.folded_until import FoldedUntil
from uic.feature_repo.store.markers import marker_text
from uic.feature_repo.store.opened import open_memories
from uic.jobs.serving.read.freshness import RecordsFreshness
from uic.models.state.freshness import Freshness, WhenBehind

PARTS = "version: 1\nparts: {last: {kind: recent, size: 4}}\n"
ITEMS = [FIRST_ITEM, FIRST_ITEM + 7, FIRST_ITEM + 11]
DAY_MS = 86_400_000


def mark(store, times: dict[str, int]) -> FoldedUntil:
    """Set the markers of generation 1; how long ago is said in milliseconds."""
    generations = store.generations
    now = int(time.time() * 1000)
    fields = {name: marker_text(9, now - ago) for name, ago in times.items()}
    generations._client.hset(generations.keys.markers(1), mapping=fields)
    return FoldedUntil(generations._client, generations.keys, "redis")


def test_the_partition_furthest_behind_decides_once_a_stream_has_looked(shop: Shop) -> None:
    shop.generation(1, shop.bundle("0001"), [3])
    now = int(time.time() * 1000)
    with open_memories(shop.settings, shop.workspace) as store:
        folded = mark(store, {"1:0": DAY_MS, "2:0": 5_000, "2:1": 60_000})
        assert now - folded.read(1) == pytest.approx(5_000, abs=2_000)
        folded.note(1, 2, {0: 0, 1: 0})  # partition 1 is a minute behind
        assert now - folded.read(1) == pytest.approx(60_000, abs=2_000)
        folded.note(1, 2, {0: 0, 1: now})  # it was quiet, and nothing is left
        assert now - folded.read(1) == pytest.approx(5_000, abs=2_000)
        folded.note(1, 2, {0: 0, 1: now, 2: 0})  # one that nothing was ever folded of
        assert folded.read(1) == 0


def test_what_was_seen_long_ago_says_nothing() -> None:
    clock = [100.0]
    fresh = RecordsFreshness(monotonic=lambda: clock[0])
    assert fresh.behind_seconds(1_000.0) is None
    fresh.found(Freshness(at_most=600_000, then=WhenBehind.REFUSE), 0)
    assert fresh.wanted(fresh.behind_seconds(600.0)) is None
    assert fresh.wanted(fresh.behind_seconds(601.0)) is WhenBehind.REFUSE
    clock[0] = 131.0
    assert fresh.behind_seconds(601.0) is None


@pytest.mark.slow
def test_a_service_follows_the_file_and_the_stream(shop: Shop) -> None:
    bundle = shop.bundle("0001")
    shop.generation(1, bundle, [30, 40])
    file = shop.workspace / "state.yaml"
    file.write_text(PARTS)

    def policy(then: str) -> None:
        file.write_text(f"{PARTS}freshness: {{at_most: 10m, then: {then}}}\n")

    with running_service(shop.workspace) as service:
        body = {"user_id": 1, "item_ids": ITEMS}
        before = service.rank(1, ITEMS)
        assert (before["records_behind_seconds"], before["reasons"]) == (None, [])
        with open_memories(shop.settings, shop.workspace) as store:
            mark(store, {"1:0": 2 * DAY_MS})
            policy("serve")
            service.wait_until(lambda: service.rank(1, ITEMS)["degraded"])
            served = service.rank(1, ITEMS)
            assert served["reasons"] == ["records_behind"]
            assert served["records_behind_seconds"] == pytest.approx(2 * 86_400, abs=60)
            assert served["items"] == before["items"]
            assert service.metric("uic_serve_records_behind_seconds") > 86_400
            policy("default")
            service.wait_until(lambda: service.rank(1, ITEMS)["items"] != before["items"])
            defaulted, new = service.rank(1, ITEMS), service.rank(10**6, ITEMS)
            assert defaulted["items"] == new["items"]
            assert defaulted["reasons"] == ["records_behind"]
            assert set(new["reasons"]) == {"records_behind", "unknown_user"}
            policy("refuse")
            service.wait_until(
                lambda: service.client.post("/v1/rank", json=body).status_code == 503
            )
            refused = service.client.post("/v1/rank", json=body)
            assert "behind the log, freshness in state.yaml allows 10m" in refused.json()["detail"]
            assert "retry-after" in refused.headers
            assert service.metric('uic_serve_degraded_total{reason="records_behind"}') > 3
            # The stream goes on, then the file says nothing any more.
            mark(store, {"1:0": 1_000})
            service.wait_until(
                lambda: service.client.post("/v1/rank", json=body).status_code == 200
            )
            assert service.rank(1, ITEMS)["records_behind_seconds"] < 60
            mark(store, {"1:0": DAY_MS})
            file.write_text(PARTS)
            service.wait_until(lambda: service.rank(1, ITEMS)["records_behind_seconds"] is None)
            assert service.rank(1, ITEMS)["items"] == before["items"]
