"""Grouped samples: ours on Beam's DirectRunner against row-wise Beam, DuckDB and Polars.

    python benchmarks/samples.py [--quick] [--repeats 2] [--no-row-wise]

A simulated log of 5 million behaviours over 67 days and 1 million impressions of its last 7 days,
the same Parquet files for all. Each contender runs in a fresh process, in turn; the time is from
the call to the written output, imports before it. Every output is read back and hashed row by row
in one order: they must be equal, or the benchmark fails. Then ours alone, at 1, 5 and 20 million
behaviours, for the cost per event.
"""

import hashlib
import shutil
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from harness import arguments, in_process, median, report, say
from peers.samples_jobs import duckdb_samples, polars_samples, row_wise_beam_samples

from uic.models.samples.schema import SAMPLES
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.writer import LogWriter, Part
from uic.pipelines.samples.run import SamplesRequest, make_samples
from uic.pipelines.settings import SaleSettings, SamplesSettings
from uic.pipelines.simulator.generator import Simulation, behaviors_table, impressions_table
from uic.pipelines.simulator.plan import SimulationPlan

DAYS, SHOWN_DAYS = 67, 7
# In a small run Beam's own second is most of ours, so only the other Beam pipeline is a fair peer.
QUICK_TARGETS = {"row_wise_beam": ">=1"}
TARGETS = {"row_wise_beam": ">=10", "duckdb": ">=1", "polars": ">=0.5", "flat_cost": "<=1.5"}
# Behaviours of a user of average activity in a day, and of an impression: what `sized` uses too.
ORGANIC, PER_IMPRESSION = 1.5 * 4.55, 0.217


def plan_for(behaviors: int) -> SimulationPlan:
    """About so many behaviours, and a fifth of that as impressions of the last week."""
    daily = 1.1 * behaviors / 5 / SHOWN_DAYS  # some users are quiet on some days
    users = max(10, round((1.1 * behaviors / DAYS - PER_IMPRESSION * daily) / ORGANIC))
    return SimulationPlan(
        users=users, items=max(2000, users), days=DAYS, impressions_per_user_day=daily / users
    )


def write_log(root: Path, behaviors: int) -> EventLog:
    """Simulate a log; impressions before the last week are left out."""
    plan = plan_for(behaviors)
    simulation, log = Simulation(plan), EventLog(root)
    with LogWriter(log, Part("benchmark"), time_zone="UTC") as writer:
        for day in range(plan.days):
            for chunk in simulation.chunks(day):
                writer.add_behaviors(behaviors_table(chunk))
                if day >= plan.days - SHOWN_DAYS:
                    writer.add_impressions(impressions_table(chunk))
        done = writer.publish()
    say(
        f"log: {done.behaviors:,} behaviours, {done.impressions:,} impressions, "
        f"{done.users:,} users"
    )
    return log


def ours(root: Path, output: Path) -> dict[str, Any]:
    """`uic samples` without the command line."""
    days = [file.dt for file in EventLog(root).impression_files()]
    manifest = make_samples(
        SamplesRequest(root, output, min(days), max(days), "UTC", SamplesSettings(), SaleSettings())
    )
    return {**manifest["grouping"], "groups": manifest["groups"], **manifest["read"]}


def fingerprint(folder: Path) -> str:
    """A hash of every value of the samples in a folder, whatever the files and their order."""
    files = sorted(str(path) for path in folder.rglob("*.parquet"))
    schema = pa.schema([(field.name, field.type) for field in SAMPLES])
    table = ds.dataset(files).to_table(columns=SAMPLES.names).cast(schema)
    table = table.sort_by([("dt", "ascending"), ("user_id", "ascending")])
    digest = hashlib.sha256(str(table.num_rows).encode())
    for name in SAMPLES.names:
        for chunk in table.column(name).chunks:
            values = chunk
            if pa.types.is_list(chunk.type):
                digest.update(chunk.value_lengths().to_numpy(zero_copy_only=False).tobytes())
                values = chunk.flatten()
            digest.update(values.to_numpy(zero_copy_only=False).tobytes())
    return digest.hexdigest()


def contend(root: Path, scratch: Path, repeats: int, *, row_wise: bool) -> dict[str, dict]:
    """Seconds, peak memory and hash of each contender, run in turn."""
    log = EventLog(root)
    days = [file.dt for file in log.impression_files()]
    first = min(days) - timedelta(days=SamplesSettings().window_days)
    files = (
        [str(file.path) for file in log.behavior_files(first, max(days))],
        [str(file.path) for file in log.impression_files()],
    )
    peers = {"duckdb": duckdb_samples, "polars": polars_samples}
    if row_wise:
        peers["row_wise_beam"] = row_wise_beam_samples
    found: dict[str, dict] = {}
    for turn in range(repeats):
        for name in ("ours", *peers):
            if name == "row_wise_beam" and turn:
                continue  # once: it takes longer than all others together
            folder = scratch / name
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            if name == "ours":
                run = in_process(ours, root, folder / "samples")
            else:
                run = in_process(peers[name], *files, folder / "samples.parquet")
            say(
                f"{name} {turn + 1}/{repeats}: {run['seconds']:.2f} s, {run['peak_memory_mib']} MiB"
            )
            of_name = found.setdefault(name, {"seconds": [], "peak_memory_mib": 0})
            of_name["seconds"].append(run["seconds"])
            of_name["peak_memory_mib"] = max(of_name["peak_memory_mib"], run["peak_memory_mib"])
            if name == "ours":
                of_name["result"] = run["result"]
            if not turn:
                of_name["sha256"] = fingerprint(folder)
            of_name["output_bytes"] = sum(p.stat().st_size for p in folder.rglob("*.parquet"))
            shutil.rmtree(folder)
    for name, figures in found.items():
        if figures["sha256"] != found["ours"]["sha256"]:
            msg = f"{name} wrote other samples than ours: {figures['sha256'][:12]}"
            raise RuntimeError(msg)
    return found


def cost_by_size(scratch: Path, sizes: list[int]) -> dict[str, float]:
    """Our microseconds per row of the log, by number of behaviours."""
    costs = {}
    for size in sizes:
        root = scratch / f"log-{size}"
        write_log(root, size)
        run = in_process(ours, root, scratch / "sized")
        rows = run["result"]["behaviors"] + run["result"]["impressions"]
        costs[f"us_per_row_{size // 1000}k"] = round(run["seconds"] / rows * 1e6, 3)
        costs[f"peak_memory_mib_{size // 1000}k"] = run["peak_memory_mib"]
        say(f"{size:,}: {run['seconds']:.2f} s for {rows:,} rows, {run['peak_memory_mib']} MiB")
        shutil.rmtree(root)
        shutil.rmtree(scratch / "sized")
    return costs


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--repeats", type=int, default=2, help="turns of the fast contenders")
    parser.add_argument("--no-row-wise", action="store_true", help="leave the slow one out")
    options = parser.parse_args()
    behaviors = 100_000 if options.quick else 5_000_000
    repeats = 1 if options.quick else options.repeats
    sizes = [50_000] if options.quick else [1_000_000, 5_000_000, 20_000_000]
    targets = QUICK_TARGETS if options.quick else TARGETS
    with tempfile.TemporaryDirectory(prefix="uic-samples-") as folder:
        scratch = Path(folder)
        root = scratch / "log"
        write_log(root, behaviors)
        found = contend(root, scratch, repeats, row_wise=not options.no_row_wise)
        shutil.rmtree(root)
        costs = {} if options.no_row_wise else cost_by_size(scratch, sizes)
    result = found["ours"].pop("result")
    for figures in found.values():
        figures["seconds"] = median(figures["seconds"])
    mine = found.pop("ours")
    ratios = {name: figures["seconds"] / mine["seconds"] for name, figures in found.items()}
    if costs and not options.quick:  # in a small run the runner's own second is most of the cost
        per_row = [value for name, value in costs.items() if name.startswith("us")]
        ratios["flat_cost"] = per_row[-1] / min(per_row)
    report(
        "samples",
        ours={**mine, **costs, "grouping_ratio": result["ratio"], "groups": result["groups"]},
        peers=found,
        ratios=ratios,
        targets={name: target for name, target in targets.items() if name in ratios},
        packages=("apache-beam", "duckdb", "numpy", "polars", "pyarrow"),
    )


if __name__ == "__main__":
    main()
