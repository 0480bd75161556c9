"""Small published sample directories, written the way the samples pipeline writes them."""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uic.models.features.definition import FeatureSet
from uic.models.published import file_entry, publish_manifest
from uic.models.samples.schema import SAMPLES_KIND, SAMPLES_SCHEMA_VERSION, samples_schema

Rows = list[dict[str, Any]]


def group_row(
    user_id: int, dt: date, history: list[int], shown: list[tuple[int, int, int]]
) -> dict[str, Any]:
    """One group; `shown` is (item, label, history length); category = item modulo 10."""
    items, labels, seen = ([row[part] for row in shown] for part in range(3))
    return {
        "user_id": user_id,
        "dt": dt,
        "history_item_ids": history,
        "history_category_ids": [item % 10 for item in history],
        "history_behaviors": [0] * len(history),
        "history_times": [1000 * step for step in range(len(history))],
        "item_ids": items,
        "category_ids": [item % 10 for item in items],
        "event_times": [1_000_000 + step for step in range(len(items))],
        "labels": [bool(label) for label in labels],
        "history_lengths": seen,
    }


def random_rows(
    groups: int,
    *,
    seed: int = 0,
    longest: int = 12,
    items: int = 40,
    days: int = 3,
    most_impressions: int = 5,
) -> Rows:
    """Random groups over `days` days from 2024-01-01; clicks follow the item's parity."""
    generator = np.random.default_rng(seed)
    rows = []
    for index in range(groups):
        length = int(generator.integers(0, longest + 1))
        shown = int(generator.integers(1, most_impressions + 1))
        ids = generator.integers(0, items, shown)
        labels = (ids % 2) ^ (generator.random(shown) < 0.1)
        seen = np.sort(generator.integers(0, length + 1, shown))
        rows.append(
            group_row(
                user_id=index // days,
                dt=date(2024, 1, 1 + index % days),
                history=generator.integers(0, items, length).tolist(),
                shown=list(zip(ids.tolist(), labels.tolist(), seen.tolist(), strict=True)),
            )
        )
    return rows


def publish_samples(
    root: Path,
    rows: Rows,
    *,
    files: int = 2,
    row_group_size: int = 7,
    version: int | None = None,
    features: FeatureSet | None = None,
    labels: tuple[str, ...] = (),
) -> Path:
    """Write rows as a published samples directory of `files` files."""
    features = features or FeatureSet()
    root.mkdir(parents=True, exist_ok=True)
    entries = []
    for index in range(files):
        path = root / f"bucket-{index:05d}.parquet"
        table = pa.Table.from_pylist(rows[index::files], schema=samples_schema(features, labels))
        pq.write_table(table, path, row_group_size=row_group_size)
        entries.append(file_entry(root, path, rows=table.num_rows))
    manifest = {
        "kind": SAMPLES_KIND,
        "schema_version": SAMPLES_SCHEMA_VERSION if version is None else version,
        "files": entries,
        "features": features.to_json(),
        "labels": list(labels),
    }
    publish_manifest(root, manifest)
    return root


@pytest.fixture
def make_rows() -> Callable[..., Rows]:
    return random_rows


@pytest.fixture
def make_row() -> Callable[..., dict[str, Any]]:
    return group_row


@pytest.fixture
def make_samples(tmp_path: Path) -> Callable[..., Path]:
    """Write rows under a name and return the directory."""

    def make(rows: Rows, name: str = "small", **options: Any) -> Path:
        return publish_samples(tmp_path / "samples" / name, rows, **options)

    return make
