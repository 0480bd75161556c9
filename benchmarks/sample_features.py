"""Ten features joined as of each impression: ours against DuckDB's ASOF JOIN and Feast with pandas.

    python benchmarks/sample_features.py [--quick] [--repeats 3]

A million impressions of 100,000 users and 50,000 items, whose five features each change a few
times; the same Parquet files for all. Each contender runs in a fresh process, in turn; the time is
from the call to the written Parquet, imports before it. The rule is that of samples: a row is seen
after its time, not at it. Outputs are hashed value by value: they must be equal, or it fails.
"""

import hashlib
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from harness import arguments, in_process, median, report, say
from peers.feature_joins import (
    CATEGORIES,
    NUMBERS,
    OWNERS,
    duckdb_features,
    feast_features,
    feast_repository,
)

from uic.models.features.dated import DatedTable
from uic.models.features.definition import Feature, FeatureSource, Kind, NamedFeature, Owner
from uic.models.features.raw import MISSING
from uic.pipelines.samples.encoding import parquet_options

TARGETS = {"duckdb": ">=1", "feast": ">=10"}
SPAN_MS = 14 * 86_400_000
START_MS = 1_735_689_600_000


def write_tables(folder: Path, impressions: int) -> None:
    """Impressions, and a row a change of users and items; a tenth of the ids has no row."""
    draw = np.random.default_rng(1)
    counts = {"user": max(100, impressions // 10), "item": max(100, impressions // 20)}
    shown = {"n": np.arange(impressions)}
    for owner, count in counts.items():
        shown[f"{owner}_id"] = draw.integers(0, count, impressions)
        ids = np.repeat(np.arange(count * 9 // 10), 5)
        # Distinct moments of an id, whatever is drawn: one in each fifth of the time.
        fifths = np.tile(np.arange(5), len(ids) // 5) * (SPAN_MS // 5)
        times = START_MS + fifths + draw.integers(0, SPAN_MS // 5, len(ids))
        times[::5] = START_MS - 1  # Feast drops an impression whose user has only later rows
        table = {f"{owner}_id": ids, "valid_from": pa.array(times, pa.timestamp("ms"))}
        for name in CATEGORIES:
            table[f"{owner}_{name}"] = draw.integers(0, 1000, len(ids))
        for name in NUMBERS:
            table[f"{owner}_{name}"] = draw.random(len(ids), dtype=np.float32)
        order = draw.permutation(len(ids))
        pq.write_table(pa.table(table).take(pa.array(order)), folder / f"{owner}s.parquet")
    times = START_MS + draw.integers(0, SPAN_MS, impressions)
    shown["event_time"] = pa.array(times, pa.timestamp("ms"))
    pq.write_table(pa.table(shown), folder / "impressions.parquet")


def ours(folder: Path, output: Path) -> None:
    """What `uic samples` does with its tables, without histories; it writes as samples are."""
    shown = pq.read_table(folder / "impressions.parquet")
    times = shown["event_time"].to_numpy().view(np.int64)
    columns = {"n": shown["n"]}
    for owner in OWNERS:
        features = tuple(
            NamedFeature(Owner(owner), f"{owner}_{name}", Feature(type=kind))
            for names, kind in ((CATEGORIES, Kind.CATEGORICAL), (NUMBERS, Kind.NUMBER))
            for name in names
        )
        path = folder / f"{owner}s.parquet"
        source = FeatureSource(file=path, id=f"{owner}_id", valid_from="valid_from")
        table = DatedTable.read(path, source, features)
        rows = table.as_of(shown[f"{owner}_id"].to_numpy(), times)
        for named in features:
            columns[named.name] = pa.array(table.take(named, rows))
    joined = pa.table(columns)
    pq.write_table(joined, output, **parquet_options(joined.schema))


def fingerprint(path: Path) -> str:
    """A hash of every value by the number of its impression; null, NaN and ours for it are one."""
    table = pq.read_table(path).sort_by("n")
    digest = hashlib.sha256(str(table.num_rows).encode())
    for owner in OWNERS:
        for name in CATEGORIES:
            values = table[f"{owner}_{name}"].to_pandas().fillna(MISSING)
            digest.update(values.to_numpy().astype(np.float64).tobytes())
        for name in NUMBERS:
            values = table[f"{owner}_{name}"].to_pandas().astype(np.float32).fillna(-1.0)
            digest.update(values.to_numpy().tobytes())
    return digest.hexdigest()


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--repeats", type=int, default=3, help="turns of the fast contenders")
    options = parser.parse_args()
    repeats = 1 if options.quick else options.repeats
    contenders = {"ours": ours, "duckdb": duckdb_features, "feast": feast_features}
    found: dict[str, dict] = {}
    with tempfile.TemporaryDirectory(prefix="uic-sample-features-") as scratch:
        folder = Path(scratch)
        write_tables(folder, 50_000 if options.quick else 1_000_000)
        feast_repository(folder)
        for turn in range(repeats):
            for name, join in contenders.items():
                if name == "feast" and turn:
                    continue  # once: it takes longer than all others together
                output = folder / f"{name}.parquet"
                run = in_process(join, folder, output)
                say(f"{name} {turn + 1}/{repeats}: {run['seconds']:.2f} s")
                of_name = found.setdefault(name, {"seconds": [], "peak_memory_mib": 0})
                of_name["seconds"].append(run["seconds"])
                of_name["peak_memory_mib"] = max(of_name["peak_memory_mib"], run["peak_memory_mib"])
                of_name["sha256"] = fingerprint(output)
    for name, figures in found.items():
        if figures["sha256"] != found["ours"]["sha256"]:
            msg = f"{name} joined other values than ours: {figures['sha256'][:12]}"
            raise RuntimeError(msg)
        figures["seconds"] = median(figures["seconds"])
    mine = found.pop("ours")
    report(
        "sample_features",
        ours=mine,
        peers=found,
        ratios={name: figures["seconds"] / mine["seconds"] for name, figures in found.items()},
        # In a small run a process's own start is most of ours and of DuckDB's.
        targets={"feast": ">=1"} if options.quick else TARGETS,
        packages=("duckdb", "feast", "numpy", "pandas", "pyarrow"),
    )


if __name__ == "__main__":
    main()
