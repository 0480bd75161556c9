"""The peers of `benchmarks/sample_features.py`: joins as of a moment, as one would write them.

Each reads the same Parquet files and writes `n` and ten values an impression. A row is seen after
its time: DuckDB compares with `>`; Feast sees a row at its time, so its tables hold a millisecond
later, which is the smallest step of the log.
"""

from datetime import timedelta
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float32, Int64

OWNERS = ("user", "item")
CATEGORIES = ("kind", "place", "brand")
NUMBERS = ("price", "age")
COLUMNS = {owner: [f"{owner}_{name}" for name in (*CATEGORIES, *NUMBERS)] for owner in OWNERS}


def duckdb_features(folder: Path, output: Path) -> None:
    """One statement with two ASOF joins."""
    connection = duckdb.connect()
    connection.execute("SET enable_progress_bar = false")
    values = ", ".join(name for names in COLUMNS.values() for name in names)
    connection.execute(
        f"""
        COPY (
            SELECT n, {values}
            FROM read_parquet('{folder}/impressions.parquet') AS i
            ASOF LEFT JOIN read_parquet('{folder}/users.parquet') AS u
                ON i.user_id = u.user_id AND i.event_time > u.valid_from
            ASOF LEFT JOIN read_parquet('{folder}/items.parquet') AS t
                ON i.item_id = t.item_id AND i.event_time > t.valid_from
        ) TO '{output}' (FORMAT parquet)
        """
    )


def feast_repository(folder: Path) -> None:
    """Write Feast's tables and register two views of five features."""
    views: list[Entity | FeatureView] = []
    for owner in OWNERS:
        table = pq.read_table(folder / f"{owner}s.parquet")
        later = pc.add(table["valid_from"], pa.scalar(timedelta(milliseconds=1)))
        at = table.column_names.index("valid_from")
        seen = table.set_column(at, "valid_from", later.cast(pa.timestamp("us", "UTC")))
        path = folder / f"feast-{owner}s.parquet"
        pq.write_table(seen, path)
        entity = Entity(name=owner, join_keys=[f"{owner}_id"], value_type=ValueType.INT64)
        fields = [
            Field(name=f"{owner}_{name}", dtype=kind)
            for names, kind in ((CATEGORIES, Int64), (NUMBERS, Float32))
            for name in names
        ]
        source = FileSource(path=str(path), timestamp_field="valid_from")
        views += [
            entity,
            FeatureView(
                name=f"{owner}s", entities=[entity], schema=fields, source=source,
                ttl=timedelta(0), online=False,
            ),
        ]  # fmt: skip
    _store(folder).apply(views)


def feast_features(folder: Path, output: Path) -> None:
    """`get_historical_features` of the file offline store."""
    shown = pd.read_parquet(folder / "impressions.parquet")
    shown["event_timestamp"] = shown.pop("event_time").dt.tz_localize("UTC")
    names = [f"{owner}s:{name}" for owner in OWNERS for name in COLUMNS[owner]]
    job = _store(folder).get_historical_features(entity_df=shown, features=names)
    joined = job.to_df()
    joined[["n", *(name for of in COLUMNS.values() for name in of)]].to_parquet(output)


def _store(folder: Path) -> FeatureStore:
    return FeatureStore(
        config=RepoConfig(
            project="benchmark", provider="local", registry=str(folder / "registry.db"),
            offline_store={"type": "file"}, online_store=None, entity_key_serialization_version=3,
        )
    )  # fmt: skip
