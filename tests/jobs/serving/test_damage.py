"""What is damaged around a running service degrades answers, and never makes a 5xx."""

import numpy as np

from tests.jobs.serving.running import running_service
from tests.jobs.serving.shop import Shop
from uic.feature_repo.store.opened import open_memories


def test_damage_degrades_its_own_user_and_a_damaged_registry_is_survived(shop: Shop):
    bundle = shop.bundle("0001")
    records = shop.generation(1, bundle, np.full(20, 5))
    damaged = records[1].copy()
    damaged[-bundle.memory.layout.floats * 2 :].view(np.float16)[:] = np.nan
    with open_memories(shop.settings, shop.workspace) as store:
        key = store.memories.keys.prefix(1) + (2).to_bytes(8, "big")
        store.client.set(key, damaged.tobytes())
    with running_service(shop.workspace) as service:
        requests = [{"user_id": user, "item_ids": [1001, 1002]} for user in (1, 2, 3)]
        together = service.client.post("/v1/rank:batch", json={"requests": requests})
        answers = together.json()["answers"]
        assert [answer["reasons"] for answer in answers] == [[], ["not_finite"], []]
        assert all(item["probability"] for answer in answers for item in answer["items"])

        (registry,) = shop.workspace.rglob("feast.db")
        good = registry.read_bytes()
        registry.write_bytes(b"garbage")
        failures = 'uic_serve_look_failures_total{probe="registry",stage="rank"}'
        service.wait_until(lambda: service.metric(failures) > 0)
        assert service.client.post("/v1/rank", json=requests[0]).status_code == 200

        # A bundle whose manifest lacks a field is not served, and the next one is.
        broken = shop.bundle("0002", current=False).path / "manifest.json"
        broken.write_text(broken.read_text().replace('"files"', '"fails"'))
        pointer = shop.workspace / "bundles" / "mimn" / "CURRENT"
        pointer.write_text("0002\n")
        bundles = 'uic_serve_look_failures_total{probe="bundle",stage="rank"}'
        service.wait_until(lambda: service.metric(bundles) > 0)
        registry.write_bytes(good)
        shop.bundle("0003", current=False)
        pointer.write_text("0003\n")
        service.wait_until(lambda: service.ready()["bundle"] == "mimn/0003")
        assert set(service.ready()["looked_seconds_ago"]["rank"]) >= {"bundle", "registry"}
        assert service.rank(1, [1001])["items"]
