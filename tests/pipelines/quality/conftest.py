"""Small logs and samples, written with the real schemas; a fault is one changed value."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uic.models.published import file_entry
from uic.models.samples.schema import SAMPLES
from uic.pipelines.log.event_log import Epoch, EventLog
from uic.pipelines.log.schemas import BEHAVIOR_EVENTS, IMPRESSIONS

Row = dict[str, Any]


def at(day: date, seconds: int) -> datetime:
    """A time of a UTC day, as the schemas hold it: without a zone."""
    start = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
    return datetime.fromtimestamp(start + seconds, UTC).replace(tzinfo=None)


def nullable(schema: pa.Schema) -> pa.Schema:
    """The schema of a writer that did not promise that there are no nulls."""
    return pa.schema([field.with_nullable(True) for field in schema])


@dataclass
class LogFolder:
    """A log under construction: rows by day; `publish` writes and names the files."""

    root: Path
    days: Sequence[date]
    behaviors: dict[date, list[Row]] = field(default_factory=dict)
    impressions: dict[date, list[Row]] = field(default_factory=dict)

    def publish(self, time_zone: str = "UTC", files_a_day: int = 1) -> EventLog:
        entries = []
        for table, schema, by_day in (
            ("behaviors", BEHAVIOR_EVENTS, self.behaviors),
            ("impressions", IMPRESSIONS, self.impressions),
        ):
            for day, rows in by_day.items():
                for part in range(files_a_day):
                    path = self.root / table / f"dt={day}" / f"{part}.parquet"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    share = rows[part::files_a_day]
                    pq.write_table(pa.Table.from_pylist(share, nullable(schema)), path)
                    entry = file_entry(self.root, path, len(share))
                    entries.append({"table": table, "dt": day.isoformat(), **entry})
        log = EventLog(self.root)
        manifest = {"name": "test", "epoch": 1, "time_zone": time_zone, "files": entries}
        epoch = Epoch(1, "import", "test", 2, {0: 0, 1: 0}, {0: 10_000, 1: 10_000})
        with log.locked():
            log.publish(epoch, manifest)
        return log


def behavior_row(day: date, seconds: int, partition: int, offset: int) -> Row:
    time = at(day, seconds)
    return {
        "user_id": 7 + partition, "item_id": 11, "category_id": 3, "behavior": "click",
        "event_time": time, "log_time": time, "epoch": 1, "partition": partition, "offset": offset,
    }  # fmt: skip


@pytest.fixture
def log_folder(tmp_path: Path) -> LogFolder:
    """Five days; each with 2 x 20 behaviours in two partitions and 40 impressions, 10 clicked."""
    days = [date(2024, 3, day) for day in range(1, 6)]
    folder = LogFolder(tmp_path / "var" / "log", days)
    for number, day in enumerate(days):
        folder.behaviors[day] = [
            behavior_row(day, 60 * place, partition, 20 * number + place)
            for partition in range(2)
            for place in range(20)
        ]
        folder.impressions[day] = [
            {
                "user_id": 7, "item_id": 11, "category_id": 3,
                "event_time": at(day, 60 * place), "clicked": place % 4 == 0,
            }
            for place in range(40)
        ]  # fmt: skip
    return folder


def group_row(user_id: int, day: date) -> Row:
    """A group with two events of history and two impressions, one clicked."""
    return {
        "user_id": user_id,
        "dt": day,
        "history_item_ids": [1, 2],
        "history_category_ids": [1, 1],
        "history_behaviors": [0, 3],
        "history_times": [at(day, 1), at(day, 2)],
        "item_ids": [5, 6],
        "category_ids": [1, 1],
        "event_times": [at(day, 3), at(day, 4)],
        "labels": [True, False],
        "history_lengths": [2, 2],
    }


@pytest.fixture(name="group_row")
def group_row_fixture() -> Callable[[int, date], Row]:
    """Makes one sound group of a user and a day."""
    return group_row


@pytest.fixture
def write_samples(tmp_path: Path) -> Callable[[list[Row]], tuple[Path, dict[str, Any]]]:
    """Writes groups as one file; gives the folder and the manifest to be."""

    def write(rows: list[Row]) -> tuple[Path, dict[str, Any]]:
        root = tmp_path / "var" / "samples" / "tiny"
        root.mkdir(parents=True, exist_ok=True)
        path = root / "part.parquet"
        pq.write_table(pa.Table.from_pylist(rows, nullable(SAMPLES)), path)
        files = [file_entry(root, path, len(rows))]
        return root, {"kind": "samples", "schema_version": 1, "files": files}

    return write
