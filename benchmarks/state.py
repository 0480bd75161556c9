"""A record's exact parts: what the fold of them costs an event, and features as of rows.

    python benchmarks/state.py [--quick]

Fold: MIMN's fold of records alone, with the package's parts behind it, and the parts alone, beside
the same counters as a user would write them, a dictionary a user in Python. As of: ten aggregates
of each row (counts and ages by item and category, counts and sums over windows) by
`StateDefinition.as_of`, beside DuckDB's window functions over the same rows. Outputs are compared
in the run: times are whole hours, so windows by tiles of an hour are exact.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections import defaultdict

import numpy as np
import torch
from harness import alternate, arguments, median, report, say

from uic.models.memory.fold import MemoryFolder
from uic.models.memory.network import MemoryNetwork
from uic.models.memory.settings import MemoryConfig
from uic.models.records.positions import EventBatch
from uic.models.state.definition import DEFAULT, StateDefinition
from uic.models.state.part import Asked

HOUR_MS = 3_600_000
DAYS = 60
ASKED = {
    "version": 1,
    "parts": {
        "items": {"kind": "counts", "size": 256, "fingerprint_bits": 64, "count_bits": 16},
        "categories": {
            "kind": "counts",
            "by": "category",
            "size": 64,
            "fingerprint_bits": 64,
            "count_bits": 16,
        },
        "week": {
            "kind": "aggregate",
            "of": "price",
            "functions": ["count", "sum"],
            "windows": ["6h", "1d", "7d"],
            "tile": "1h",
        },
    },
}


class Bundle:
    """A fold's view of a bundle: a table of embeddings, a network or none, parts or none."""

    hash8 = b"benchmrk"

    def __init__(self, state, *, memory=True):
        torch.manual_seed(0)
        self.state, self.has_memory = state, memory
        self.memory = MemoryNetwork(MemoryConfig()).eval().requires_grad_(requires_grad=False)
        self.table = torch.randn(10_000, 32) * 0.05

    def embed(self, item_ids, category_ids):  # noqa: ARG002 - MemoryBundle's
        """A lookup, as in a bundle."""
        return self.table[torch.from_numpy(item_ids)]


def drawn_events(users, length, seed=0):
    """`length` events of each user, one user after the other, at whole hours."""
    draw = np.random.default_rng(seed)
    total = users * length
    items = draw.zipf(1.3, total) % 200
    hours = np.sort(draw.integers(0, DAYS * 24, (users, length)), axis=1).ravel()
    return EventBatch(
        user_index=np.repeat(np.arange(users), length),
        item_ids=items,
        category_ids=items % 40,
        behaviors=draw.integers(0, 4, total).astype(np.int8),
        event_times_ms=hours * HOUR_MS,
        log_times_ms=hours * HOUR_MS,
        epochs=np.ones(total, np.int64),
        partitions=np.zeros(total, np.int64),
        offsets=np.arange(total),
        columns={"price": draw.integers(1, 100, total).astype(np.float64)},
    )


def plain_fold(events):
    """The package's counters in plain Python: by user and key, count and last hour."""
    kept = defaultdict(dict)
    columns = (events.user_index, events.item_ids, events.category_ids, events.log_times_ms)
    for user, item, category, time in zip(*(column.tolist() for column in columns), strict=True):
        own = kept[user]
        for key in (("item", item), ("category", category)):
            own[key] = (own.get(key, (0, 0))[0] + 1, time // HOUR_MS)
    return kept


def fold_figures(users, length, repeats):
    """Events a second of each fold, and that the counters are those of plain Python."""
    events = drawn_events(users, length)
    state = StateDefinition.load(DEFAULT)
    folders = {
        "mimn": MemoryFolder(Bundle(None), 1),
        "mimn_and_parts": MemoryFolder(Bundle(state), 1),
        "parts": MemoryFolder(Bundle(state, memory=False), 1),
    }
    runs = {
        name: lambda folder=folder: folder.fold(folder.initial_records(users), events)
        for name, folder in folders.items()
    }
    for run in runs.values():
        run()
    compare_with_plain(state, events)
    seconds = alternate({**runs, "plain_python": lambda: plain_fold(events)}, repeats)
    return {name: round(len(events) / median(own)) for name, own in seconds.items()}


def compare_with_plain(state, events):
    """Stop if a count of the default table is above the truth, or below it without evictions."""
    kept, users = plain_fold(events), int(events.user_index.max()) + 1
    states = np.repeat(state.initial()[None], users, axis=0)
    state.fold(states, events)
    last = np.flatnonzero(np.diff(events.user_index, append=-1))
    items = events.item_ids[last]
    asked = Asked(np.arange(users), events.log_times_ms[last], items, events.category_ids[last])
    names = [one.name for one in state.described]
    told = dict(zip(names, state.features(states, asked).T, strict=True))
    truth = np.array([kept[user]["item", item][0] for user, item in enumerate(items.tolist())])
    whole = told["items.evictions"] == 0
    assert whole.any()
    # A fingerprint of 16 bits takes one key for another now and then, never one away.
    assert (told["items.count"][whole] >= np.minimum(truth, 255)[whole]).all()
    assert (told["items.count"][whole] == np.minimum(truth, 255)[whole]).mean() > 0.95


def as_of_figures(users, length, rows, repeats):
    """Rows a second of ours and of DuckDB, outputs compared."""
    import duckdb  # noqa: PLC0415 - a peer of benchmarks alone
    import pyarrow as pa  # noqa: PLC0415 - with the peer alone

    events, draw = drawn_events(users, length, seed=1), np.random.default_rng(2)
    owners, items = draw.integers(0, users, rows), draw.zipf(1.3, rows) % 200
    now = draw.integers(0, DAYS * 24, rows) * HOUR_MS
    asked = Asked(owners, now, items, items % 40)
    keys = events.user_index * (DAYS * 24 * HOUR_MS + 1) + events.log_times_ms
    state = StateDefinition.of_document(ASKED, "benchmark")

    def ours():
        seen = np.searchsorted(keys, owners * (DAYS * 24 * HOUR_MS + 1) + now, side="left")
        return state.as_of(events, asked, seen)

    log = pa.table(
        {
            "u": events.user_index,
            "i": events.item_ids,
            "c": events.category_ids,
            "t": events.log_times_ms,
            "p": events.columns["price"],
        }
    )
    questions = pa.table({"r": np.arange(rows), "u": owners, "i": items, "c": items % 40, "t": now})
    connection = duckdb.connect()
    connection.execute("SET threads TO 1")
    connection.register("log", log)
    connection.register("questions", questions)

    def peer():
        return connection.sql(SQL).to_arrow_table()

    found, table = ours(), peer()
    names = [one.name for one in state.described]
    for name in table.column_names[1:]:
        own = found[:, names.index(name.replace("__", "."))]
        theirs = table.column(name).to_numpy().astype(np.float32)
        np.testing.assert_allclose(own, theirs, rtol=1e-6, err_msg=name)
    seconds = alternate({"ours": ours, "duckdb": peer}, repeats)
    return {name: round(rows / median(own)) for name, own in seconds.items()}


def _window(hours):
    span = f"RANGE BETWEEN {hours * HOUR_MS} PRECEDING AND 1 PRECEDING"
    return f"(PARTITION BY u ORDER BY t {span})"


_BEFORE = "ORDER BY t RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING"
SQL = f"""
WITH joined AS (
  SELECT NULL::BIGINT AS r, u, i, c, t, p, 1 AS e, t AS moment FROM log
  UNION ALL SELECT r, u, i, c, t, 0, 0, NULL FROM questions
), said AS (
  SELECT r,
    coalesce(sum(e) OVER (PARTITION BY u, i {_BEFORE}), 0) AS items__count,
    (t - max(moment) OVER (PARTITION BY u, i {_BEFORE})) / {HOUR_MS} AS items__age,
    coalesce(sum(e) OVER (PARTITION BY u, c {_BEFORE}), 0) AS categories__count,
    (t - max(moment) OVER (PARTITION BY u, c {_BEFORE})) / {HOUR_MS} AS categories__age,
    coalesce(sum(e) OVER {_window(6)}, 0) AS week__count_6h,
    coalesce(sum(p) OVER {_window(6)}, 0) AS week__sum_6h,
    coalesce(sum(e) OVER {_window(24)}, 0) AS week__count_1d,
    coalesce(sum(p) OVER {_window(24)}, 0) AS week__sum_1d,
    coalesce(sum(e) OVER {_window(168)}, 0) AS week__count_7d,
    coalesce(sum(p) OVER {_window(168)}, 0) AS week__sum_7d
  FROM joined
)
SELECT * FROM said WHERE r IS NOT NULL ORDER BY r
"""


def main():
    options = arguments(__doc__.splitlines()[0]).parse_args()
    torch.set_num_threads(1)
    small = options.quick
    with torch.inference_mode():
        fold = fold_figures(*((200, 50, 3) if small else (2_000, 100, 5)))
    say(str(fold))
    rows = as_of_figures(*((300, 100, 10_000, 2) if small else (20_000, 250, 1_000_000, 3)))
    report(
        "state",
        ours={
            "fold_events_per_second": {k: v for k, v in fold.items() if k != "plain_python"},
            "as_of_rows_per_second": rows["ours"],
            "default_bytes": StateDefinition.load(DEFAULT).bytes,
        },
        peers={
            "plain_python": {"fold_events_per_second": fold["plain_python"]},
            "duckdb": {"as_of_rows_per_second": rows["duckdb"]},
        },
        ratios={
            "parts_cost_beside_mimn": fold["mimn"] / fold["mimn_and_parts"],
            "parts_over_plain_python": fold["parts"] / fold["plain_python"],
            "as_of_over_duckdb": rows["ours"] / rows["duckdb"],
        },
        targets={"parts_cost_beside_mimn": "<=1.3", "as_of_over_duckdb": ">=1"},
        packages=("numpy", "torch", "numba", "duckdb"),
    )


if __name__ == "__main__":
    main()
