"""Memories read by a service that is not ours, with plain Feast and a repository of its own.

    python examples/feast_reader.py var/shop

All it takes is this package in the service's environment and the store's type in its own
`feature_store.yaml`. It needs no workspace: where Redis is stands in the yaml, too.
"""

import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import numpy as np
from feast import Entity, FeatureStore, FeatureView, Field, FileSource
from feast.types import Bytes, Int64
from feast.value_type import ValueType
from shop import open_shop

from uic.models.records.record import header_view

YAML = """\
project: uic
provider: local
registry: registry.db
entity_key_serialization_version: 3
online_store:
  type: uic.feature_repo.online_store.UicOnlineStore
  address: {address}
"""
user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
# The tags say how the view is stored: one packed value a user, under a key named `m`.
user_interest = FeatureView(
    name="user_interest",
    entities=[user],
    ttl=timedelta(0),
    schema=[Field(name="user_id", dtype=Int64), Field(name="memory", dtype=Bytes)],
    # Feast asks for an offline source; a service that only reads online does not use it.
    source=FileSource(path="unused.parquet", timestamp_field="event_timestamp"),
    tags={"layout": "packed", "packed_as": "memory", "key_name": "m"},
)


def main(folder: Path) -> None:
    """Make the repository, and read two users and one who is unknown."""
    address = open_shop(folder).store.status().address
    with tempfile.TemporaryDirectory() as repository:
        yaml = YAML.format(address=address)
        (Path(repository) / "feature_store.yaml").write_text(yaml, encoding="utf-8")
        store = FeatureStore(repository)
        store.apply([user, user_interest])
        answer = store.get_online_features(
            features=["user_interest:memory"],
            entity_rows=[{"user_id": 1}, {"user_id": 2}, {"user_id": 10**9}],
        ).to_dict()
    for number, memory in zip(answer["user_id"], answer["memory"], strict=True):
        print(f"user {number}: {'unknown' if memory is None else described(memory)}")


def described(memory: bytes) -> str:
    """What the header of a record says."""
    header = header_view(np.frombuffer(memory, np.uint8)[None, :])[0]
    return f"{int(header['events'])} events, {len(memory)} bytes"


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "var/feast-reader"))
