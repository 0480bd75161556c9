"""The preset `public` beside two public logs: how often users come, and what they come back to.

Each figure of the simulated log lies between those of KuaiRand (with the histories before its 14
days, which have one time a user) and of the Alibaba brands, or is off by at most `FACTOR`.
Run with `pytest -s` to see them.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uic.pipelines.importers.ali_brand import AliBrand
from uic.pipelines.importers.kuairand import KuaiRand
from uic.pipelines.importers.run import run_import
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.settings import LogSettings
from uic.pipelines.simulator import SimulationPlan
from uic.pipelines.simulator.write import write_simulation

FACTOR = 1.5
DAY_MS = 86_400_000
# Clicks of a user that repeats are counted in, so that long histories and short ones compare.
FIRST = 30


def figures(log: EventLog) -> dict[str, float]:
    columns = ["user_id", "item_id", "category_id", "behavior", "log_time"]
    files = [pq.read_table(file.path, columns=columns) for file in log.behavior_files()]
    table = pa.concat_tables(files, promote_options="permissive")
    clicks = table.filter(pa.compute.equal(table["behavior"].cast(pa.string()), "click"))
    users, items, categories, times = (
        clicks[name].cast(pa.int64()).to_numpy()
        for name in ("user_id", "item_id", "category_id", "log_time")
    )
    order = np.lexsort((times, users))
    users, items, categories, days = (
        column[order] for column in (users, items, categories, times // DAY_MS)
    )
    count = np.unique(users, return_counts=True)[1]
    visited = np.unique(np.stack([users, days]), axis=1)
    active = np.unique(visited[0], return_counts=True)[1]
    gaps = np.diff(visited[1])[np.diff(visited[0]) == 0]
    span = days.max() - days.min() + 1
    found = {
        f"{name}, {part}": float(np.quantile(values, part))
        for name, values in {
            "share of days with a click": active / span,
            "clicks a day with any": count / active,
            "days between days with clicks": gaps,
        }.items()
        for part in (0.25, 0.5, 0.75, 0.9)
    }
    found["users at 0.9 by users at 0.1"] = np.quantile(count, 0.9) / np.quantile(count, 0.1)
    same = np.diff(users) == 0
    found["same category as the click before"] = (np.diff(categories) == 0)[same].mean()
    ends = np.cumsum(count)
    long = np.flatnonzero(count >= FIRST)
    for name, values in (("item", items), ("category", categories)):
        firsts = [
            values[end - n : end - n + FIRST]
            for end, n in zip(ends[long], count[long], strict=True)
        ]
        found[f"different in {FIRST} clicks: {name}"] = float(
            np.mean([len(np.unique(first)) for first in firsts]) if firsts else np.nan
        )
    return found


def simulated(folder: Path, preset: str) -> dict[str, float]:
    log = EventLog(folder / preset)
    write_simulation(SimulationPlan.preset(preset, users=1000), log, LogSettings())
    return figures(log)


@pytest.fixture(scope="module")
def public_logs(shared_data, tmp_path_factory) -> list[dict[str, float]]:
    folder = tmp_path_factory.mktemp("public")
    found = []
    for name, importer in (
        ("kuairand", KuaiRand(shared_data / "kuairand_pure_14d")),
        ("brands", AliBrand(shared_data / "ali_brand_2013/behaviors.parquet", "Asia/Shanghai")),
    ):
        log = EventLog(folder / name)
        run_import(importer, log, time_zone="Asia/Shanghai", partitions=4)
        found.append(figures(log))
    return found


def outside(one: dict[str, float], others: list[dict[str, float]]) -> set[str]:
    return {
        name
        for name, value in one.items()
        if not min(other[name] for other in others) / FACTOR
        <= value
        <= max(other[name] for other in others) * FACTOR
    }


def test_the_public_preset_is_like_public_logs_and_the_plain_one_is_not(public_logs, tmp_path):
    public, plain = (simulated(tmp_path, preset) for preset in ("public", "plain"))
    for name, value in public.items():
        real = ", ".join(f"{log[name]:.3f}" for log in public_logs)
        print(f"{name:38} {value:8.3f} plain {plain[name]:8.3f}, real {real}")  # noqa: T201 - with -s
    assert outside(public, public_logs) == set()
    assert len(outside(plain, public_logs)) > 3
