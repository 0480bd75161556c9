"""Memories, a live generation, and what Feast is asked, for the tests of its doors."""

from datetime import UTC, datetime

import numpy as np
import pandas as pd
import redis
from feast import FeatureStore, RepoConfig

from uic.feature_repo.store.generations import Generation, Generations
from uic.feature_repo.store.layout import ViewKeys
from uic.feature_repo.store.settings import StoreSettings
from uic.models.records.record import Records, empty_records, header_view, state_view

BUNDLE = b"bundle-1"
NOW = datetime(2024, 5, 1, tzinfo=UTC)
USERS = [1, 2, 2**40, -5]
FLOATS = 616


def memories(offset: int = 1, users: int = len(USERS)) -> Records:
    records = empty_records(users, FLOATS)
    header = header_view(records)
    header["generation"], header["epoch"] = 1, 1
    header["offset"] = offset + np.arange(users)
    header["bundle"] = np.void(BUNDLE)
    header["last_event_time_ms"] = 1_714_000_000_500
    header["events"] = 7
    state_view(records)[:] = np.random.default_rng(0).normal(size=(users, FLOATS))
    return records


def frame(records: Records, users: list[int] = USERS) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "user_id": users,
            "event_timestamp": pd.Timestamp(NOW),
            "memory": [record.tobytes() for record in records],
        }
    )


def with_options(store: FeatureStore, **options: object) -> FeatureStore:
    """The same repository with other settings of its online store: Feast's own, and ours."""
    config, update = store.config, dict(options)
    ours = {name: update.pop(name) for name in options if name in StoreSettings.model_fields}
    settings = config.online_store.settings.model_copy(update=ours)
    online = config.online_store.model_copy(update=update | {"settings": settings})
    arguments = config.model_dump(by_alias=True, exclude={"online_config", "online_store"})
    return FeatureStore(config=RepoConfig(**arguments | {"online_store": online}))


def live_generation(client: redis.Redis) -> Generations:
    generations = Generations(client, ViewKeys.of_memories("uic"))
    generations.register(
        Generation(
            number=1,
            rows_expected=0,
            bundle=BUNDLE,
            bundle_name="mimn/1",
            record_bytes=44 + 2 * FLOATS,
            positions={},
            snapshot="generation=001/dt=2024-04-30",
        )
    )
    generations.complete(1, np.array([], dtype=np.int64))
    generations.switch(1, 0)
    return generations


ROWS = [{"user_id": user} for user in (1, 99, -5, 2**40, 1)]
EXPECTED = [0, None, 3, 2, 0]


def expected_bytes(records: Records) -> list[bytes | None]:
    return [None if at is None else records[at].tobytes() for at in EXPECTED]
