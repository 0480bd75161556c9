"""`uic features asof` beside what one would write: a Beam pipeline, row by row.

    python benchmarks/state_asof.py [--quick] [--users N] [--peer-users N]

Both read files and write a file of ten aggregates a row: counts and ages by item and category,
counts and sums over windows (`state.py` has them beside DuckDB). Ours is the whole command, Beam
and all. The peer (`peers/state_rows.py`) groups events and rows by user and loops over them. It
gets fewer users, with as many events and rows a user, and rates per row are compared: `rows` says
how many each had. Ours answers the peer's rows, too, and outputs are compared in the run.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from harness import arguments, in_process, report, say
from peers.state_rows import NAMES, beam_rows
from state import ASKED, DAYS, HOUR_MS, drawn_events

from uic.models.features.definition import Kind
from uic.models.features.event_columns import EventColumn
from uic.models.records.positions import BEHAVIORS
from uic.models.state.definition import StateDefinition
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.writer import LogWriter, Part
from uic.pipelines.state.asof import AsOfRequest, features_as_of

BEGIN_MS = 1_704_067_200_000  # 2024-01-01
EVENTS_A_USER, ROWS_A_USER = 250, 50
PRICE = EventColumn(name="price", kind=Kind.NUMBER, field="price")


def written(folder: Path, users: int) -> int:
    """A log, and the same events and rows as plain tables; how many rows."""
    folder.mkdir()
    events, draw = drawn_events(users, EVENTS_A_USER, seed=1), np.random.default_rng(2)
    count = users * ROWS_A_USER
    items = draw.zipf(1.3, count) % 200
    asked = {
        "r": np.arange(count),
        "u": draw.integers(0, users, count),
        "i": items,
        "c": items % 40,
        "t": BEGIN_MS + draw.integers(0, DAYS * 24, count) * HOUR_MS,
    }
    pq.write_table(pa.table(asked), folder / "asked.parquet")
    names = {"user_id": "u", "time": "t", "item_id": "i", "category_id": "c"}
    pq.write_table(
        pa.table({name: asked[short] for name, short in names.items()}), folder / "rows.parquet"
    )
    order = np.argsort(events.log_times_ms, kind="stable")
    plain = {
        "u": events.user_index[order],
        "i": events.item_ids[order],
        "c": events.category_ids[order],
        "t": BEGIN_MS + events.log_times_ms[order],
        "p": events.columns["price"][order],
    }
    pq.write_table(pa.table(plain), folder / "events.parquet")
    logged = {name: plain[short] for name, short in names.items() if short != "t"}
    behaviors = np.array(BEHAVIORS)[events.behaviors[order]]
    table = pa.table(
        logged
        | {
            "behavior": behaviors,
            "event_time": pa.array(plain["t"], pa.timestamp("ms")),
            PRICE.logged: plain["p"],
        }
    )
    with LogWriter(EventLog(folder / "log"), Part("drawn"), time_zone="UTC") as writer:
        writer.note_columns([PRICE])
        writer.add_behaviors(table)
        writer.publish()
    return count


def ours(folder: Path, output: Path) -> None:
    """The command's function."""
    state = StateDefinition.of_document(ASKED, "benchmark")
    features_as_of(AsOfRequest(folder / "log", state, (PRICE,)), folder / "rows.parquet", output)


def compared(own: Path, theirs: Path) -> None:
    """Stop if a peer says something else."""
    files = sorted(theirs.parent.glob(f"{theirs.name}*"))
    table = pa.concat_tables([pq.read_table(file) for file in files]).sort_by("r")
    mine = pq.read_table(own)
    for name in NAMES:
        told, said = mine.column(name).to_numpy(), table.column(name).to_numpy()
        np.testing.assert_allclose(told, said.astype(np.float32), rtol=1e-5, err_msg=name)


def main() -> None:
    parser = arguments((__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--users", type=int, default=20_000, help="of ours: 250 events, 50 rows a user"
    )
    parser.add_argument("--peer-users", type=int, default=1_000)
    options = parser.parse_args()
    users, few = (200, 60) if options.quick else (options.users, options.peer_users)
    with tempfile.TemporaryDirectory(prefix="uic-bench-asof-") as name:
        root = Path(name)
        rows, some = written(root / "all", users), written(root / "some", few)
        in_process(ours, root / "some", root / "ours")  # compiles
        same = in_process(ours, root / "some", root / "ours")["seconds"]
        theirs = in_process(beam_rows, root / "some", root / "said")
        compared(root / "ours", root / "said")
        peer = {
            "rows": some,
            "rows_per_second": round(some / theirs["seconds"]),
            "peak_memory_mib": theirs["peak_memory_mib"],
        }
        say(f"row_wise_beam: {peer}")
        found = in_process(ours, root / "all", root / "out")
        own = {"rows": rows, "rows_per_second": round(rows / found["seconds"])}
        own["peak_memory_mib"] = found["peak_memory_mib"]
        own["rows_per_second_on_the_peers_rows"] = round(some / same)
        say(f"ours: {own}")
    report(
        "state_asof",
        ours=own,
        peers={"row_wise_beam": peer},
        ratios={"row_wise_beam": own["rows_per_second"] / peer["rows_per_second"]},
        targets={"row_wise_beam": ">=20"},
        packages=("numpy", "apache-beam"),
    )


if __name__ == "__main__":
    main()
