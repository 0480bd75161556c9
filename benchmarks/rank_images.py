"""Ranking 200 candidates with image features against the same ranker without (DICM, section 7.7).

    python benchmarks/rank_images.py [--quick]

One process, one Redis, 100,000 items that show 5,000 images. Users have 1,000 events in the view
`user_sequence`; all rankers read the last 100. The service is the whole application called in this
process, without a socket: parsing, the read from Redis, scoring, and the answer. Requests to all
rankers take turns. Image vectors are precomputed, in the store, and in the service's cache.

The paper's service went from 21 to 24 ms. What images add here: 12 floats of each candidate, and
the aggregated vectors of the behaviours, by a sum or by attention of each candidate over each
event, which is a network and not a look-up.
"""

import asyncio
import gc
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import httpx
import numpy as np
from harness import arguments, report, say
from prerank import percentiles, workspace_with_redis
from rank import CANDIDATES, ITEMS, make_bundle, make_events, users_of, write_items

from uic.feature_repo.plugin.repository import apply_definitions, open_feature_store
from uic.feature_repo.snapshots.item_images import ItemImages
from uic.feature_repo.snapshots.published_values import load_values
from uic.feature_repo.store.item_store import open_item_store
from uic.feature_repo.store.layout import SEQUENCE, ViewKeys
from uic.feature_repo.store.opened import open_memories
from uic.feature_repo.store.packed import PackedStore
from uic.feature_repo.store.settings import StoreSettings
from uic.jobs.config.context import open_context
from uic.jobs.serving.http.app import create_app
from uic.jobs.serving.http.service import Service
from uic.jobs.serving.read.metrics import ServiceMetrics
from uic.jobs.stream.fold.sequence_fill import write_rings
from uic.models.bundles.shelf import BundleShelf
from uic.models.images.additions import add_image_features
from uic.models.images.features import ImageFeatures
from uic.models.records.sequence_ring import SequenceRing
from uic.pipelines.images.embed import EmbedRequest, embedded, write_item_images

IMAGES, FEATURES, EVENTS, LIMIT = 5_000, 64, 1_000, 100
WITHOUT = {"ad_image": False, "behavior_images": False, "aggregator": "sum"}
# Each basic net of the paper's figure 5 that looks at items, without and with images.
RANKERS: dict[str, dict[str, Any]] = {
    "mlp": WITHOUT,
    "mlp_ad_image": {"behavior_images": False},
    "mlp_sum": {"aggregator": "sum"},
    "mlp_joint": {},
    "din": {"basic_net": "din", **WITHOUT},
    "din_sum": {"basic_net": "din", "aggregator": "sum"},
    "din_joint": {"basic_net": "din"},
}


def main() -> None:
    options = arguments((__doc__ or "").splitlines()[0]).parse_args()
    turns = 20 if options.quick else 1_000
    with workspace_with_redis("uic-rank-images-") as workspace:
        services = prepare(workspace)
        seconds = asyncio.run(measure(services, turns))
    figures = {name: percentiles(values) for name, values in seconds.items()}
    ratios = {
        f"{name}_{point}_over_{net}": figures[name][f"{point}_ms"] / figures[net][f"{point}_ms"]
        for net in ("mlp", "din")
        for name in RANKERS
        if name.startswith(f"{net}_")
        for point in ("p50", "p99")
    }
    report(
        "rank_images",
        ours={
            "candidates": CANDIDATES,
            "events": LIMIT,
            "items": ITEMS,
            "images": IMAGES,
            "requests": turns,
            **{name: found for name, found in figures.items() if "_" in name},
        },
        peers={f"{net}_without_images": figures[net] for net in ("mlp", "din")},
        ratios=ratios,
        targets={name: "<=1.1" for name in ratios if "_p99_" in name},
        packages=("torch", "numpy", "feast", "fastapi", "redis"),
    )


def prepare(workspace: Path) -> dict[str, Service]:
    """Items with images, the sequences of all users, and a service of each ranker."""
    settings = StoreSettings()
    apply_definitions(open_feature_store(settings, workspace), workspace)
    write_items(workspace)
    features = image_features(workspace)
    ring, users = SequenceRing(), users_of(EVENTS)
    rings = ring.append(ring.empty(len(users)), make_events(EVENTS, np.random.default_rng(0)))
    with open_memories(settings, workspace) as store:
        keys = ViewKeys.of_sequences(settings.project)
        write_rings(PackedStore(store.client, keys, layout=SEQUENCE), ring, users, rings)
    context, metrics = open_context(workspace, None), ServiceMetrics()
    services = {}
    for number, (name, chosen) in enumerate(RANKERS.items(), 1):
        bundle = make_bundle(
            BundleShelf(workspace / "bundles"),
            "dicm",
            version=f"{number:04d}",
            history_limit=LIMIT,
            images="shop",
            image_width=FEATURES,
            image_encoder=features.encoder,
            **chosen,
        )
        path = workspace / "item_images" / f"version={number:03d}"
        request = EmbedRequest(features.path, bundle.path, path, number, 1_700_000_000_000)
        write_item_images(request, features, bundle, embedded(bundle, features.features))
        with open_item_store(settings, workspace) as items:
            load_values(ItemImages.open(path), items.vectors, items.versions)
        started = time.perf_counter()
        services[name] = Service.open(context, "dicm", metrics, history_from="log")
        say(f"{name}: opened in {time.perf_counter() - started:.1f} s")
    gc.collect()
    gc.freeze()  # as `Service.start` does, which also begins the watching
    return services


def image_features(workspace: Path) -> ImageFeatures:
    """Random features; each image is shown by twenty items."""
    features = np.random.default_rng(2).normal(size=(IMAGES, FEATURES)).astype(np.float32)
    sums = [hashlib.sha256(str(row).encode()).hexdigest() for row in range(IMAGES)]
    shown = {item: sums[item % IMAGES] for item in range(ITEMS)}
    path = workspace / "images" / "shop"
    return add_image_features(path, [features], sums, shown, encoder="benchmark").features


async def measure(services: dict[str, Service], turns: int) -> dict[str, list[float]]:
    """Seconds of each ranker's requests, in turns."""
    random, users = np.random.default_rng(1), users_of(EVENTS).tolist()
    bodies = [
        json.dumps(
            {
                "user_id": user,
                "item_ids": random.choice(ITEMS, CANDIDATES, replace=False).tolist(),
            }
        )
        for user in users
    ]
    clients = {
        name: httpx.AsyncClient(
            transport=httpx.ASGITransport(create_app(service)), base_url="http://rank"
        )
        for name, service in services.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in services}
    for turn in range(-5, turns):
        for name, client in clients.items():
            started = time.perf_counter()
            answer = await client.post(
                "/v1/rank",
                content=bodies[turn % len(bodies)],
                headers={"Content-Type": "application/json"},
            )
            took = time.perf_counter() - started
            if answer.status_code != 200 or answer.json()["degraded"]:
                raise RuntimeError(answer.text[:300])
            if turn >= 0:  # the first ones pay for first times
                seconds[name].append(took)
    for name, client in clients.items():
        await client.aclose()
        await services[name].stop()
    return seconds


if __name__ == "__main__":
    main()
