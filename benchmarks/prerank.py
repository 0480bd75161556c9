"""4,000 candidates: two towers and a funnel of 400 against the full ranker over all of them.

    python benchmarks/prerank.py [--quick]

One process, one Redis, 100,000 items. Users have 1,000 events in the view `user_sequence`; both
models read their last 100. The service is the whole application called in this process, without a
socket: parsing, the read from Redis, scoring, and the answer. Requests of all kinds take turns, and
each is of another user, so no vector of a user is kept from before. Weights are random, which costs
the same; the towers have ids only, since vectors of images are read from a cache.
"""

import asyncio
import json
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import httpx
import numpy as np
from harness import arguments, report, say
from rank import CATEGORIES, ITEMS, make_bundle, make_events, users_of, write_items

from uic.feature_repo.plugin.repository import apply_definitions, open_feature_store
from uic.feature_repo.store.connection import STORE_FOLDER
from uic.feature_repo.store.layout import SEQUENCE, ViewKeys
from uic.feature_repo.store.opened import open_memories
from uic.feature_repo.store.packed import PackedStore
from uic.feature_repo.store.server import EmbeddedRedis
from uic.feature_repo.store.settings import StoreSettings
from uic.jobs.config.context import open_context
from uic.jobs.serving.http.app import create_app
from uic.jobs.serving.http.service import Service
from uic.jobs.serving.read.metrics import ServiceMetrics, forget_metrics, share_metrics
from uic.jobs.serving.score.prerank import PrerankScorer
from uic.jobs.stream.fold.sequence_fill import write_rings
from uic.models.bundles.shelf import BundleShelf
from uic.models.records.sequence_ring import SequenceRing

CANDIDATES, KEPT, EVENTS = 4_000, 400, 1_000
RANKER = "din"
ENVIRONMENT = {
    "UIC_SERVE__MAX_CANDIDATES": str(CANDIDATES),
    "UIC_SERVE__PRERANK_KEEP": str(KEPT),
    # What is slow shall be measured, and not answered without.
    "UIC_SERVE__STORE_TIMEOUT_MS": "5000",
    "UIC_SERVE__REQUEST_TIMEOUT_MS": "60000",
}
Call = Callable[[int], Awaitable[None]]


def main() -> None:
    options = arguments((__doc__ or "").splitlines()[0]).parse_args()
    turns = 20 if options.quick else 300
    with workspace_with_redis("uic-prerank-") as workspace:
        prepare(workspace)
        context = open_context(workspace, None)
        started = time.perf_counter()
        service = Service.open(
            context, RANKER, ServiceMetrics(), history_from="log", prerank_bundle="prerank"
        )
        say(f"service opened in {time.perf_counter() - started:.1f} s")
        seconds = asyncio.run(measure(service, turns))
    figures = {name: percentiles(values) for name, values in seconds.items()}
    full = figures.pop("full_ranker")
    report(
        "prerank",
        ours={
            "candidates": CANDIDATES,
            "kept": KEPT,
            "items": ITEMS,
            "categories": CATEGORIES,
            "requests": turns,
            **figures,
        },
        peers={f"{RANKER}_over_all": full},
        ratios={
            "full_p50_over_prerank_p50": full["p50_ms"] / figures["prerank_service"]["p50_ms"],
            "full_p50_over_funnel_p50": full["p50_ms"] / figures["funnel_service"]["p50_ms"],
            "full_p99_over_funnel_p99": full["p99_ms"] / figures["funnel_service"]["p99_ms"],
        },
        targets={"full_p50_over_prerank_p50": ">=10", "full_p50_over_funnel_p50": ">=3"},
        packages=("torch", "numpy", "feast", "fastapi", "redis"),
    )


@contextmanager
def workspace_with_redis(prefix: str) -> Iterator[Path]:
    """A workspace of its own with an embedded Redis, for services in this process."""
    os.environ |= ENVIRONMENT
    metrics_folder = share_metrics()
    with tempfile.TemporaryDirectory(prefix=prefix) as folder:
        workspace = Path(folder)
        server = EmbeddedRedis(workspace / STORE_FOLDER)
        server.start()
        try:
            yield workspace
        finally:
            server.stop()
            forget_metrics(metrics_folder)


def prepare(workspace: Path) -> None:
    """Items, bundles, and the sequences of all users."""
    settings = StoreSettings()
    apply_definitions(open_feature_store(settings, workspace), workspace)
    write_items(workspace)
    shelf = BundleShelf(workspace / "bundles")
    without = {"ad_image": False, "behavior_images": False, "image_ids": False}
    make_bundle(shelf, "prerank", **without)
    make_bundle(shelf, RANKER, history_limit=100)
    ring = SequenceRing()
    users = users_of(EVENTS)
    rings = ring.append(ring.empty(len(users)), make_events(EVENTS, np.random.default_rng(0)))
    with open_memories(settings, workspace) as store:
        keys = ViewKeys.of_sequences(settings.project)
        write_rings(PackedStore(store.client, keys, layout=SEQUENCE), ring, users, rings)


async def measure(service: Service, turns: int) -> dict[str, list[float]]:
    """Seconds of each kind of request, in turns."""
    assert service.prerank is not None
    stage, random = service.prerank, np.random.default_rng(1)
    users = users_of(EVENTS).tolist()
    shown = [random.choice(ITEMS, CANDIDATES, replace=False) for _ in range(8)]
    bodies = [
        json.dumps({"user_id": users[turn % len(users)], "item_ids": shown[turn % 8].tolist()})
        for turn in range(len(users) * 8)
    ]
    transport = httpx.ASGITransport(create_app(service))
    async with httpx.AsyncClient(transport=transport, base_url="http://prerank") as client:

        async def post(path: str, turn: int) -> None:
            answer = await client.post(
                path,
                content=bodies[turn % len(bodies)],
                headers={"Content-Type": "application/json"},
            )
            if answer.status_code != 200 or answer.json()["degraded"]:
                raise RuntimeError(answer.text[:300])

        async def forward(turn: int) -> None:
            user = users[turn % len(users)]
            record = records[user]
            await stage.scorer.answer(user, shown[turn % 8], record)

        fetched = await stage.reader.fetch(users)
        records = dict(zip(users, fetched.values, strict=True))
        kinds: dict[str, Call] = {
            "prerank_forward": forward,
            "prerank_service": lambda turn: post("/v1/prerank", turn),
            "funnel_service": lambda turn: post("/v1/funnel", turn),
            "full_ranker": lambda turn: post("/v1/rank", turn),
        }
        seconds: dict[str, list[float]] = {name: [] for name in kinds}
        for turn in range(-3, turns):
            for place, (name, call) in enumerate(kinds.items()):
                stage.use(without_users(stage.scorer))
                started = time.perf_counter()
                await call(turn + 3 + place)
                if turn >= 0:  # the first ones pay for first times
                    seconds[name].append(time.perf_counter() - started)
    await service.stop()
    return seconds


def without_users(scorer: PrerankScorer) -> PrerankScorer:
    """The same vectors of items, and no vector of a user kept from an earlier request."""
    fresh = PrerankScorer(scorer.bundle, scorer.table, vectors=scorer.matrix[:0])
    fresh.matrix = scorer.matrix  # not a copy, which would be cold
    return fresh


def percentiles(seconds: list[float]) -> dict[str, float]:
    """p50 and p99 in milliseconds."""
    low, high = np.percentile(seconds, [50, 99]) * 1e3
    return {"p50_ms": round(float(low), 3), "p99_ms": round(float(high), 3)}


if __name__ == "__main__":
    main()
