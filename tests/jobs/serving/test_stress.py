"""The service while things change or fail under load: nobody gets a failed answer."""

import json
import time
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.load.generator import LoadPlan
from tests.jobs.serving.running import Load, RunningService, running_service
from tests.jobs.serving.shop import Shop
from uic.feature_repo.store.opened import open_memories
from uic.pipelines.log.event_log import EventLog

pytestmark = pytest.mark.slow

ITEMS = list(range(1000, 1040))
USERS = range(1, 21)
LENGTHS = [30] * len(USERS)


@pytest.fixture(scope="module")
def changing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shop, RunningService]]:
    """A shop whose bundles, generations and store change from test to test."""
    shop = Shop.open(tmp_path_factory.mktemp("shop"))
    try:
        bundle = shop.bundle("0001")
        shop.generation(1, bundle, LENGTHS)
        with running_service(shop.workspace, store_timeout_ms="500") as service:
            yield shop, service
    finally:
        shop.stop()


def load(service: RunningService, seconds: float, rate: float = 20.0) -> Load:
    bodies = [json.dumps({"user_id": user, "item_ids": ITEMS}).encode() for user in USERS]
    return Load(LoadPlan(service.url, bodies, rate, seconds, timeout_seconds=60))


def scores_by_user(load: Load) -> dict[int, list[tuple]]:
    """The distinct scores that each user was given, in the order of their first answer."""
    scores: dict[int, list[tuple]] = {}
    for answer in load.bodies():
        ranked = tuple((item["item_id"], round(item["probability"], 6)) for item in answer["items"])
        known = scores.setdefault(answer["user_id"], [])
        if not known or known[-1] != ranked:
            known.append(ranked)
    return scores


def test_a_bundle_is_swapped_without_a_failed_request_and_scores_change_once(changing):
    shop, service = changing
    old = service.ready()["bundle_hash"]
    going = load(service, seconds=8)
    with going.running():
        time.sleep(1)
        # Trained on from the first: it reads its memories.
        shop.bundle("0002", seed=2, compatible=(bytes.fromhex(old),))
        service.wait_until(lambda: service.ready()["bundle"] == "mimn/0002")
        time.sleep(1)
    assert going.result.failed == 0
    assert int(going.result.degraded.sum()) == 0
    assert {len(scores) for scores in scores_by_user(going).values()} == {2}
    assert {answer["bundle"] for answer in going.bodies()} == {"mimn/0001", "mimn/0002"}
    assert {answer["memory_bundle"] for answer in going.bodies()} == {old}


def test_a_generation_is_switched_without_a_failed_request_and_scores_change_once(changing):
    shop, service = changing
    # A memory of another bundle, which does not become the current one: its own readout reads it.
    other = shop.bundle("0003", seed=3, current=False)
    going = load(service, seconds=8)
    with going.running():
        time.sleep(1)
        shop.generation(2, other, LENGTHS, seed=5, switch=False)
        service.wait_until(lambda: service.ready()["reads_also"] == ["mimn/0003"])
        with open_memories(shop.settings, shop.workspace) as store:
            store.generations.switch(2, shop.settings.switch_delay_seconds)
        service.wait_until(lambda: service.rank(1, ITEMS)["generation"] == 2)
        time.sleep(1)
    assert going.result.failed == 0
    assert int(going.result.degraded.sum()) == 0
    assert {len(scores) for scores in scores_by_user(going).values()} == {2}
    pairs = {(answer["generation"], answer["bundle"]) for answer in going.bodies()}
    assert pairs == {(1, "mimn/0002"), (2, "mimn/0003")}


def test_a_store_that_is_killed_costs_personal_scores_and_no_answer(changing):
    shop, service = changing
    counted = sum(
        service.metric(f'uic_serve_degraded_total{{reason="{reason}"}}')
        for reason in ("store_unavailable", "circuit_open")
    )
    going = load(service, seconds=12)
    with going.running():
        time.sleep(1)
        shop.server.kill()
        service.wait_until(lambda: "circuit_open" in service.rank(1, ITEMS)["reasons"])
        assert service.client.get("/readyz").status_code == 200
        shop.server.start()
        returned = time.monotonic()
        service.wait_until(lambda: not service.rank(1, ITEMS)["degraded"])
        recovered = time.monotonic() - returned
        time.sleep(0.5)
    assert recovered <= 2.0
    assert going.result.failed == 0
    answers = going.bodies()
    degraded = [answer for answer in answers if answer["degraded"]]
    assert degraded
    assert {reason for answer in degraded for reason in answer["reasons"]} <= {
        "store_unavailable",
        "circuit_open",
    }
    assert all(len(answer["items"]) == len(ITEMS) for answer in degraded)
    now = sum(
        service.metric(f'uic_serve_degraded_total{{reason="{reason}"}}')
        for reason in ("store_unavailable", "circuit_open")
    )
    assert now - counted >= len(degraded)


def test_a_damaged_bundle_is_not_swapped_in(changing):
    shop, service = changing
    before = service.ready()["bundle"]
    shop.bundle("0009", seed=9, current=False)
    (shop.shelf.path("mimn", "0009") / "config.json").write_text("{}")
    (shop.shelf.root / "mimn" / "CURRENT").write_text("0009\n")
    service.wait_until(lambda: "nothing was swapped" in service.log.read_text())
    assert "config.json" in service.log.read_text()
    assert service.ready()["bundle"] == before
    assert not service.rank(1, ITEMS)["degraded"]


def test_new_items_are_known_once_the_log_has_them(changing):
    shop, service = changing
    new = 1000 + 500
    assert service.rank(1, [new])["reasons"] == ["unknown_item"]
    shop.write_items(items=501, name="more")
    service.wait_until(lambda: service.rank(1, [new])["reasons"] == [])


def test_an_item_table_made_anew_under_its_old_name_is_another_version(changing):
    shop, service = changing
    new = 1700
    before = service.ready()["items"]
    assert service.rank(1, [new])["reasons"] == ["unknown_item"]
    path = EventLog(shop.workspace / "log").items_file()
    replace_items(shop.workspace / "log", path, new)
    service.wait_until(lambda: service.rank(1, [new])["reasons"] == [])
    after = service.ready()["items"]
    assert after != before
    assert after.split(":")[0] == before.split(":")[0]


def replace_items(log, path, item):
    """Another item table in the place of `path`, as after `rm -r log` and an import."""
    table = pq.read_table(path)
    row = {"item_id": [item], "category_id": [0]}
    pq.write_table(pa.concat_tables([table, pa.table(row, schema=table.schema)]), path)
    for manifest in (log / "manifests").glob("*.json"):
        document = json.loads(manifest.read_text())
        for entry in document["files"]:
            if log / entry["path"] == path:
                entry["bytes"] = path.stat().st_size
        manifest.write_text(json.dumps(document))
