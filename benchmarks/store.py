"""The packed store against Feast's stock Redis layout, for the same memories, on one Redis.

    python benchmarks/store.py [--quick]

Both write the same memories to the same server (append-only file, every write synced):

- ours: records through `PackedStore` (bulk), and through Feast's own API with `UicOnlineStore`;
- stock_lists: Feast's Redis store with the parts of the memory as named float lists, which is what
  a Feast user would define;
- stock_bytes: Feast's Redis store with the same record as one Bytes feature.

Reads are compared with a bare MGET of the same keys. Latencies are of `get_online_features` in this
process: 1 user's memory, and the image vectors (12 floats) of 200 items.
"""

import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import redis
from feast import FeatureStore
from harness import alternate, arguments, median, report, say
from peers.stock_feast import NOW, STATE, byte_frame, list_frame, stock_bytes_of, stock_store

from uic.feature_repo.plugin.repository import apply_definitions, open_feature_store
from uic.feature_repo.store.connection import Address, connect
from uic.feature_repo.store.generations import Generation, Generations
from uic.feature_repo.store.item_vectors import packed_item_vectors
from uic.feature_repo.store.layout import ViewKeys
from uic.feature_repo.store.packed import MarkerMove, PackedStore
from uic.feature_repo.store.server import EmbeddedRedis
from uic.feature_repo.store.settings import StoreSettings
from uic.jobs.stream.topics.kafka_server import free_port
from uic.models.records.record import Records, empty_records, header_view, state_view

FLOATS = sum(STATE.values())  # 8 slots of width 32: a record of 1,276 bytes
BUNDLE = b"bundle-1"
ITEMS = 200
BATCH = 1000  # rows of one write through Feast
TURN = 50  # calls of one contender in a row


def memories(users: int) -> Records:
    records = empty_records(users, FLOATS)
    header = header_view(records)
    header["generation"], header["epoch"] = 1, 1
    header["bundle"] = np.void(BUNDLE)
    state_view(records)[:] = np.random.default_rng(0).normal(size=(users, FLOATS))
    return records


def in_batches(store: FeatureStore, view: str, frame: pd.DataFrame) -> None:
    for at in range(0, len(frame), BATCH):
        store.write_to_online_store(view, frame[at : at + BATCH])


def percentiles(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, dict[str, float]]:
    """p50 and p99 in milliseconds; the callers take turns of `TURN` calls, as in a busy service."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(max(1, repeats // TURN)):
        for name, run in calls.items():
            run()
            for _ in range(TURN):
                started = time.perf_counter()
                run()
                seconds[name].append(time.perf_counter() - started)
    return {
        name: {
            "p50_ms": float(f"{1000 * statistics.median(values):.4g}"),
            "p99_ms": float(f"{1000 * np.percentile(values, 99):.4g}"),
        }
        for name, values in seconds.items()
    }


def open_ours(folder: Path, port: int, client: redis.Redis) -> tuple[FeatureStore, PackedStore]:
    keys = ViewKeys.of_memories("uic")
    generations = Generations(client, keys)
    generations.register(Generation(1, 0, BUNDLE, "mimn/1", 44 + 2 * FLOATS, {}, "benchmark"))
    generations.complete(1, np.zeros(0, dtype=np.int64))
    generations.switch(1, 0)
    feast = open_feature_store(StoreSettings(address=f"127.0.0.1:{port}"), folder)
    apply_definitions(feast, folder)
    return feast, PackedStore(client, keys)


def live_item_version(client: redis.Redis) -> None:
    versions = Generations(client, ViewKeys("uic", "item_image"))
    versions.register(Generation(1, 0, b"bundle-1", "dicm/1", 80, {}, "version=001"))
    versions.complete(1, np.zeros(0, np.int64))
    versions.switch(1, delay_seconds=0)


def measure(folder: Path, users: int, calls: int) -> None:
    # Feast's own store knows no Unix sockets: all are asked by TCP.
    port = free_port()
    server = EmbeddedRedis(folder / "redis", ("--port", str(port), "--bind", "127.0.0.1"))
    server.start()
    client = connect(Address("127.0.0.1", port))
    try:
        ours, packed = open_ours(folder, port, client)
        (folder / "stock").mkdir()
        stock = stock_store(folder / "stock", port)
        records, ids = memories(users), np.arange(users)
        offset = iter(range(1, 1000))

        def write_packed() -> None:
            at = next(offset)
            header_view(records)["offset"] = at
            for start in range(0, users, 2000):
                part = slice(start, start + 2000)
                packed.write(1, ids[part], records[part], [MarkerMove(1, 0, at)])

        clock = iter(NOW + timedelta(seconds=second) for second in range(1000))

        def write_ours_by_feast() -> None:
            header_view(records)["offset"] = next(offset)
            in_batches(ours, "user_interest", byte_frame(records, NOW))

        def write_stock_bytes() -> None:
            in_batches(stock, "packed_bytes", byte_frame(records, next(clock)))

        def write_stock_lists() -> None:
            frame = list_frame(records).assign(event_timestamp=next(clock))
            in_batches(stock, "lists", frame)

        say(f"writes of {users:,} memories")
        writes = alternate(
            {
                "packed": write_packed,
                "ours_by_feast": write_ours_by_feast,
                "stock_bytes": write_stock_bytes,
                "stock_lists": write_stock_lists,
            },
            repeats=3,
        )
        keys = packed.keys.entities(1, ids)
        say("reads in bulk")
        list_features = [f"lists:{name}" for name in STATE]
        rows = [{"user_id": int(user)} for user in ids[:1000]]
        reads = alternate(
            {
                "packed": lambda: [
                    packed.read(1, ids[at : at + 2000]) for at in range(0, users, 2000)
                ],
                "mget": lambda: [client.mget(keys[at : at + 2000]) for at in range(0, users, 2000)],
                "stock_lists": lambda: stock.get_online_features(list_features, rows),
                "stock_bytes": lambda: stock.get_online_features(["packed_bytes:memory"], rows),
            },
            repeats=3,
        )
        vectors = np.random.default_rng(1).normal(size=(ITEMS, 12)).astype("<f4")
        items = {"item_id": np.arange(ITEMS), "event_timestamp": NOW}
        live_item_version(client)
        values = packed_item_vectors(1, b"bundle-1", 1, vectors)
        ours.write_to_online_store(
            "item_image", pd.DataFrame(items | {"embedding": [row.tobytes() for row in values]})
        )
        stock.write_to_online_store(
            "item_image", pd.DataFrame(items | {"embedding": list(vectors)})
        )
        one = [{"user_id": 5}]
        shown = [{"item_id": item} for item in range(ITEMS)]
        item_keys = ViewKeys("uic", "item_image").entities(1, np.arange(ITEMS))
        say("latencies through get_online_features")
        user_ms = percentiles(
            {
                "ours": lambda: ours.get_online_features(["user_interest:memory"], one),
                "stock_lists": lambda: stock.get_online_features(list_features, one),
                "stock_bytes": lambda: stock.get_online_features(["packed_bytes:memory"], one),
                "mget": lambda: client.mget(keys[5:6]),
            },
            calls,
        )
        item_ms = percentiles(
            {
                "ours": lambda: ours.get_online_features(["item_image:embedding"], shown),
                "stock": lambda: stock.get_online_features(["item_image:embedding"], shown),
                "mget": lambda: client.mget(item_keys),
            },
            calls,
        )
        sizes = [client.memory_usage(key) for key in keys[:: max(1, users // 1000)]]
        finish(users, writes, reads, user_ms, item_ms, sizes, stock_bytes_of(port))
    finally:
        client.close()
        server.stop()


def finish(  # noqa: PLR0917 - one for each measurement
    users: int,
    writes: dict[str, list[float]],
    reads: dict[str, list[float]],
    user_ms: dict[str, dict[str, float]],
    item_ms: dict[str, dict[str, float]],
    sizes: list[int],
    stock_hash_bytes: float,
) -> None:
    rate = {name: users / median(values) for name, values in writes.items()}
    read_rows = {"packed": users, "mget": users, "stock_lists": 1000, "stock_bytes": 1000}
    read = {name: min(read_rows[name], users) / median(reads[name]) for name in reads}
    bytes_per_user = statistics.median(sizes)

    def figures(name: str) -> dict[str, float]:
        return {
            "writes_per_s": round(rate[name]),
            "bulk_reads_per_s": round(read[name]),
            "user_p50_ms": user_ms[name]["p50_ms"],
            "user_p99_ms": user_ms[name]["p99_ms"],
        }

    report(
        "store",
        ours={
            "users": users,
            "record_bytes": 44 + 2 * FLOATS,
            "writes_per_s": round(rate["packed"]),
            "writes_by_feast_per_s": round(rate["ours_by_feast"]),
            "bulk_reads_per_s": round(read["packed"]),
            "user_p50_ms": user_ms["ours"]["p50_ms"],
            "user_p99_ms": user_ms["ours"]["p99_ms"],
            "items_200_p50_ms": item_ms["ours"]["p50_ms"],
            "items_200_p99_ms": item_ms["ours"]["p99_ms"],
            "bytes_per_user": bytes_per_user,
            "bytes_per_user_mean": round(statistics.mean(sizes), 1),
        },
        peers={
            "stock_lists": figures("stock_lists"),
            "stock_bytes": figures("stock_bytes"),
            "stock_items": {
                "items_200_p50_ms": item_ms["stock"]["p50_ms"],
                "items_200_p99_ms": item_ms["stock"]["p99_ms"],
            },
            "stock_hash_of_lists_and_bytes": {"bytes_per_user": stock_hash_bytes},
            "bare_mget": {
                "bulk_reads_per_s": round(read["mget"]),
                "user_p50_ms": user_ms["mget"]["p50_ms"],
                "items_200_p50_ms": item_ms["mget"]["p50_ms"],
            },
        },
        ratios={
            "writes_over_stock_lists": rate["packed"] / rate["stock_lists"],
            "writes_over_stock_bytes": rate["packed"] / rate["stock_bytes"],
            "writes_by_feast_over_stock_lists": rate["ours_by_feast"] / rate["stock_lists"],
            "user_p50_over_stock_lists": user_ms["stock_lists"]["p50_ms"]
            / user_ms["ours"]["p50_ms"],
            "user_p99_over_stock_lists": user_ms["stock_lists"]["p99_ms"]
            / user_ms["ours"]["p99_ms"],
            "user_p50_over_stock_bytes": user_ms["stock_bytes"]["p50_ms"]
            / user_ms["ours"]["p50_ms"],
            "items_p50_over_stock": item_ms["stock"]["p50_ms"] / item_ms["ours"]["p50_ms"],
            "items_p99_over_stock": item_ms["stock"]["p99_ms"] / item_ms["ours"]["p99_ms"],
            "bulk_read_over_bare_mget": read["packed"] / read["mget"],
            "user_over_bare_mget": user_ms["mget"]["p50_ms"] / user_ms["ours"]["p50_ms"],
            "items_over_bare_mget": item_ms["mget"]["p50_ms"] / item_ms["ours"]["p50_ms"],
            "bytes_per_user": bytes_per_user,
        },
        targets={
            "writes_over_stock_lists": ">=10",
            "user_p50_over_stock_lists": ">=2",
            "user_p99_over_stock_lists": ">=2",
            "items_p50_over_stock": ">=2",
            "items_p99_over_stock": ">=2",
            "bytes_per_user": "<=1352",
        },
        packages=("feast", "redis", "hiredis", "numpy"),
    )


def main() -> None:
    options = arguments("packed store against Feast's stock Redis layout").parse_args()
    warnings.filterwarnings("ignore")  # Feast's own, on every apply
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        measure(
            Path(folder),
            users=2000 if options.quick else 20_000,
            calls=100 if options.quick else 1000,
        )


if __name__ == "__main__":
    main()
