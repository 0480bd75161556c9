"""Collects the numbers of a workspace, from what its commands have left there.

What was not run is left out: the page shows what there is, and never a figure of another run.
"""

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq

from uic.feature_repo.store.errors import StoreError
from uic.feature_repo.store.opened import OpenedStore, open_memories
from uic.jobs.checks.audit import REPORT_NAME
from uic.jobs.config.context import Context
from uic.jobs.demo.run import STATE_NAME
from uic.jobs.replay.run import FOLDER, LIVE_NAME, RESULT_NAME
from uic.models.bundles.shelf import BundleShelf
from uic.models.training.metrics import Metrics, auc, auc_interval
from uic.models.training.popularity import remarks_of
from uic.pipelines.log.event_log import EventLog

# MIMN section 4.5 and the authors' UIC: about 2.7 TB for 600 million users.
PAPER_BYTES_PER_USER: Final = 4500
_SAMPLED_KEYS: Final = 2000
# The day is cut into pieces of this length for the curve of AUC; shorter ones have few clicks.
HOURS: Final = 3


def collect(context: Context) -> dict[str, Any]:
    """Everything that the page shows, as JSON."""
    document: dict[str, Any] = {
        "demo": _json(context.workspace / STATE_NAME),
        "log": _log(context),
        "samples": _samples(context),
        "models": _models(context),
        "live": _live(context),
        "store": _store(context),
        "audit": _json(context.reports / REPORT_NAME),
    }
    return {name: found for name, found in document.items() if found}


def _json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def _log(context: Context) -> dict[str, Any] | None:
    log = EventLog(context.log)
    days: dict[str, dict[str, int]] = {}
    for name, files in (
        ("behaviors", log.behavior_files()),
        ("impressions", log.impression_files()),
    ):
        for file in files:
            of_day = days.setdefault(file.dt.isoformat(), {"behaviors": 0, "impressions": 0})
            of_day[name] += file.rows
    if not days:
        return None
    epochs = [f"{epoch.number}: {epoch.kind} {epoch.name}" for epoch in log.epochs()]
    return {
        "time_zone": log.time_zone(),
        "days": dict(sorted(days.items())),
        "behaviors": sum(day["behaviors"] for day in days.values()),
        "impressions": sum(day["impressions"] for day in days.values()),
        "epochs": epochs,
    }


def _samples(context: Context) -> dict[str, Any] | None:
    found = _json(context.samples / "default" / "manifest.json")
    if found is None:
        return None
    grouping = found["grouping"]
    return {
        "first": found["first"],
        "last": found["last"],
        "groups": found["groups"],
        "impressions": found["impressions"],
        "grouped_bytes": grouping["bytes"],
        "one_row_per_impression_bytes": grouping["one_row_per_impression_bytes"],
        "ratio": grouping["ratio"],
        "raw_ratio": grouping["raw_ratio"],
    }


def _models(context: Context) -> list[dict[str, Any]]:
    shelf = BundleShelf(context.bundles)
    rows = []
    for model in shelf.models():
        for version in shelf.versions(model):
            metrics = _json(shelf.path(model, version) / "metrics.json") or {}
            rows.append({"model": model, "version": version, **_test_of(metrics)})
    return sorted(rows, key=lambda row: -((row["test"] or {}).get("auc") or 0.0))


def _test_of(metrics: dict[str, Any]) -> dict[str, Any]:
    """The part of a bundle's metrics that the page shows, with an interval and remarks."""
    test, baselines = metrics.get("test"), metrics.get("baselines")
    interval: tuple[float | None, float | None] = (None, None)
    if test:
        measured = Metrics.from_json({"gauc_impressions": 0, **test})
        low, high = auc_interval(measured)
        interval = (None, None) if np.isnan(low) else (low, high)
    lines = remarks_of(metrics)
    return {
        "test": test,
        "test_days": metrics.get("test_days"),
        "validation": metrics.get("validation"),
        "curve": metrics.get("curve", []),
        "baselines": baselines,
        "interval": interval,
        "remarks": lines,
    }


def _live(context: Context) -> dict[str, Any] | None:
    found = _json(context.workspace / FOLDER / RESULT_NAME)
    if found is None:
        return None
    table = pq.read_table(context.workspace / FOLDER / LIVE_NAME)
    times = table.column("event_time").to_numpy().view(np.int64)
    clicked = table.column("clicked").to_numpy()
    start = int(times.min()) // 3_600_000 * 3_600_000
    piece = (times - start) // (HOURS * 3_600_000)
    curve = []
    for at in np.unique(piece).tolist():
        here = piece == at
        row: dict[str, Any] = {"hour": at * HOURS, "impressions": int(here.sum())}
        for name in ("live", "midnight", "none"):
            value = auc(table.column(name).to_numpy()[here], clicked[here])
            row[name] = None if np.isnan(value) else value
        curve.append(row)
    return {**found, "auc_by_hour": curve}


def _store(context: Context) -> dict[str, Any] | None:
    """Bytes a user in Redis, and how evenly the slots are written; None while it is away."""
    try:
        with open_memories(context.config.store, context.workspace) as store:
            number = store.generations.live()
            generation = store.generations.get(number)
            keys = _some_keys(store, number)
            pipe = store.memories.client.pipeline(transaction=False)
            for key in keys:
                pipe.memory_usage(key, samples=0)
            used = np.array(pipe.execute(), np.float64)
    except StoreError:
        return None
    if not len(used):
        return None
    return {
        "generation": number,
        "users": generation.rows,
        "record_bytes": generation.record_bytes,
        "redis_bytes_per_user": float(used.mean()),
        "paper_bytes_per_user": PAPER_BYTES_PER_USER,
    }


def _some_keys(store: OpenedStore, number: int) -> list[bytes]:
    found: list[bytes] = []
    pattern = store.memories.keys.prefix(number) + b"*"
    for key in store.memories.client.scan_iter(match=pattern, count=1000):
        found.append(key)
        if len(found) >= _SAMPLED_KEYS:
            break
    return found
