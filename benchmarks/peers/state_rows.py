"""The peer of `benchmarks/state_asof.py`: ten aggregates of rows as of a moment.

It reads `events.parquet` (u, i, c, t, p) and `asked.parquet` (r, u, i, c, t; t in milliseconds,
whole hours) of a folder, and writes `r` and `NAMES`. An event at the moment of a row is not seen.
"""

from collections import deque
from pathlib import Path

import apache_beam as beam
import pyarrow as pa

HOUR_MS = 3_600_000
WINDOWS = {"6h": 6, "1d": 24, "7d": 168}
TALLIES = [f"{of}.{said}" for of in ("items", "categories") for said in ("count", "age")]
NAMES = [*TALLIES, *(f"week.{of}_{span}" for of in ("count", "sum") for span in WINDOWS)]


def told_row_by_row(grouped):
    """One user's rows, by a loop over events and rows in the order of time."""
    _, of = grouped
    events, rows = (sorted(of[name], key=lambda row: row["t"]) for name in ("events", "asked"))
    met, windows, at = {}, {hours: deque() for hours in WINDOWS.values()}, 0
    sums = dict.fromkeys(WINDOWS.values(), 0.0)
    for row in rows:
        now = row["t"]
        while at < len(events) and events[at]["t"] < now:
            event = events[at]
            for key in (("items", event["i"]), ("categories", event["c"])):
                met[key] = (met.get(key, (0, 0))[0] + 1, event["t"])
            for hours, window in windows.items():
                window.append(event)
                sums[hours] += event["p"]
            at += 1
        said = {"r": row["r"]}
        for of_key, key in (("items", row["i"]), ("categories", row["c"])):
            count, last = met.get((of_key, key), (0, None))
            said[f"{of_key}.count"] = float(count)
            said[f"{of_key}.age"] = None if last is None else (now - last) / HOUR_MS
        for span, hours in WINDOWS.items():
            window = windows[hours]
            while window and window[0]["t"] < now - hours * HOUR_MS:
                sums[hours] -= window.popleft()["p"]
            said[f"week.count_{span}"] = float(len(window))
            said[f"week.sum_{span}"] = sums[hours]
        yield said


def beam_rows(folder: Path, output: Path) -> None:
    """A Beam pipeline over rows: group both tables by user, sort, loop."""
    schema = pa.schema([("r", pa.int64()), *((name, pa.float64()) for name in NAMES)])
    with beam.Pipeline("DirectRunner") as pipeline:
        tables = {
            name: pipeline
            | f"Read {name}" >> beam.io.ReadFromParquet(str(folder / f"{name}.parquet"))
            | f"By user {name}" >> beam.Map(lambda row: (row["u"], row))
            for name in ("events", "asked")
        }
        said = tables | beam.CoGroupByKey() | beam.FlatMap(told_row_by_row)
        said | beam.io.WriteToParquet(str(output), schema)
