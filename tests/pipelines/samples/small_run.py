"""A small log to make samples of, and the samples that were made."""

from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from uic.models.published import read_manifest
from uic.models.samples.schema import SAMPLES, SAMPLES_KIND, SAMPLES_SCHEMA_VERSION
from uic.pipelines.samples.run import SamplesRequest
from uic.pipelines.settings import SaleSettings, SamplesSettings

FIRST, LAST = date(2025, 3, 8), date(2025, 3, 10)
DAY = 86_400_000
ORIGIN = (FIRST - date(1970, 1, 1)).days * DAY


def random_tables(behaviors=4000, impressions=900, users=60, seed=3):
    """Behaviours of the ten days to LAST and impressions of its last three."""
    draw = np.random.default_rng(seed)
    times = np.sort(ORIGIN + draw.integers(-7 * DAY, 3 * DAY, behaviors))
    shown = np.sort(ORIGIN + draw.integers(0, 3 * DAY, impressions))
    return (
        pa.table(
            {
                "user_id": draw.integers(0, users, behaviors),
                "item_id": draw.integers(0, 500, behaviors),
                "category_id": draw.integers(0, 9, behaviors),
                "behavior": draw.integers(0, 4, behaviors).astype(np.int8),
                "event_time": pa.array(times, pa.timestamp("ms")),
            }
        ),
        pa.table(
            {
                "user_id": draw.integers(0, users, impressions),
                "item_id": draw.integers(0, 500, impressions),
                "category_id": draw.integers(0, 9, impressions),
                "event_time": pa.array(shown, pa.timestamp("ms")),
                "clicked": draw.random(impressions) < 0.3,
            }
        ),
    )


def request_for(log, name="s", *, first=FIRST, last=LAST, sale=None, zone="UTC", **settings):
    return SamplesRequest(
        log.root, log.root.parent / "samples" / name, first, last, zone,
        SamplesSettings(**{"window_days": 3, "history_cap": 20, **settings}),
        sale or SaleSettings(),
    )  # fmt: skip


def contents(root):
    """Every file under a folder, with its bytes."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


def rows(root):
    manifest = read_manifest(root, SAMPLES_KIND, SAMPLES_SCHEMA_VERSION)
    files = [root / entry["path"] for entry in manifest["files"]]
    table = ds.dataset(files, schema=SAMPLES).to_table()
    return table.sort_by([("dt", "ascending"), ("user_id", "ascending")])
