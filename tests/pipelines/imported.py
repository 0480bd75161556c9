"""Runs an importer, and reads back what it made."""

import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from uic.pipelines.importers.run import ImportSummary, run_import
from uic.pipelines.log.event_log import EventLog


def run(importer: Any, log: EventLog, **options: Any) -> ImportSummary:
    """Times may be small numbers here, unless a test says `any_time=False`."""
    defaults = {"time_zone": "UTC", "partitions": 2, "any_time": True}
    return run_import(importer, log, **{**defaults, **options})


def behaviors(log: EventLog) -> list[tuple]:
    """(user, item, category, behavior, time in ms), by time and user."""
    rows = []
    for file in log.behavior_files():
        table = pq.read_table(file.path)
        columns = [table[name].to_pylist() for name in ("user_id", "item_id", "category_id")]
        columns.append(table["behavior"].cast(pa.string()).to_pylist())
        columns.append(table["event_time"].cast(pa.int64()).to_pylist())
        rows += list(zip(*columns, strict=True))
    return sorted(rows, key=lambda row: (row[4], row[0]))


def rejects(summary: ImportSummary) -> list[tuple[int, str]]:
    assert summary.rejects_path is not None
    lines = summary.rejects_path.read_text().splitlines()
    return [(entry["line"], entry["reason"]) for entry in map(json.loads, lines)]
