"""The peer of `benchmarks/store.py`: Feast's own Redis layout for the same memories."""

import statistics
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
from feast.types import Array, Bytes, Float32, Int64
from feast.value_type import ValueType

from uic.feature_repo.store.connection import Address, connect
from uic.models.records.record import Records, state_view

STATE = {"M": 256, "S": 256, "h": 32, "r": 32, "g": 8, "pool": 32}
NOW = datetime(2024, 1, 1, tzinfo=UTC)


def stock_store(folder: Path, port: int) -> FeatureStore:
    """Feast as it comes, in database 1 of the same server."""
    config = RepoConfig(
        project="stock",
        provider="local",
        registry={"registry_type": "file", "path": str(folder / "registry.db")},
        online_store={"type": "redis", "connection_string": f"127.0.0.1:{port},db=1"},
        offline_store={"type": "file"},
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=config)
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
    item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.INT64)

    def view(name: str, entity: Entity, fields: list[Field]) -> FeatureView:
        key = Field(name=entity.join_key, dtype=Int64)
        source = FileSource(
            name=f"{name}_source",
            path=str(folder / f"{name}.parquet"),
            timestamp_field="event_timestamp",
        )
        return FeatureView(
            name=name, entities=[entity], ttl=timedelta(0), schema=[key, *fields], source=source
        )

    lists = [Field(name=name, dtype=Array(Float32)) for name in STATE]
    numbers = [Field(name=name, dtype=Int64) for name in ("epoch", "partition", "position")]
    store.apply(
        [
            user,
            item,
            view("lists", user, lists + numbers),
            view("packed_bytes", user, [Field(name="memory", dtype=Bytes)]),
            view("item_image", item, [Field(name="embedding", dtype=Array(Float32))]),
        ]
    )
    return store


def list_frame(records: Records) -> pd.DataFrame:
    states = state_view(records).astype(np.float32)
    columns: dict[str, Any] = {"user_id": np.arange(len(records)), "event_timestamp": NOW}
    start = 0
    for name, width in STATE.items():
        columns[name] = list(states[:, start : start + width])
        start += width
    return pd.DataFrame(columns | {"epoch": 1, "partition": 0, "position": 1})


def byte_frame(records: Records, time: datetime) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "user_id": np.arange(len(records)),
            "event_timestamp": time,
            "memory": [record.tobytes() for record in records],
        }
    )


def stock_bytes_of(port: int) -> float:
    """Bytes a user of the stock layout: both views of a user lie in one hash."""
    with connect(Address("127.0.0.1", port, db=1)) as client:
        sizes = [
            client.memory_usage(key, samples=0)
            for key in client.scan_iter(count=1000)
            if b"user_id" in key
        ]
    return statistics.median(sizes) if sizes else 0.0
