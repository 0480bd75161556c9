"""Ten features beside ids against none: p99 of ranking 200 candidates by MIMN, over HTTP.

    python benchmarks/rank_features.py [--quick]

Four features of users, four of items, two of the context, one of them one a candidate. The same
store, users and candidates as `benchmarks/rank.py`, with and without in turn, three times each, at
one rate; the best run of each counts, since the machine has other work.
"""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from harness import arguments, report, say
from rank import (
    ITEMS,
    MEMORY_LENGTHS,
    best_of,
    bodies,
    figures,
    fill,
    load,
    make_bundle,
    ranking_shop,
    service,
    users_of,
)

from uic.feature_repo.plugin.user_rows import load_user_rows
from uic.models.features.dated import DatedTable
from uic.models.features.definition import Owner
from uic.models.features.feature_file import load_features
from uic.models.features.fitted import FittedFeatures, fit_features
from uic.models.features.raw import raw_values

FILE = """\
version: 1
sources:
  user: {file: users.parquet, id: user_id}
  item: {file: items.parquet, id: item_id}
user:
  band: {type: categorical}
  region: {type: categorical}
  balance: {type: number, scale: log}
  visits: {type: number, scale: buckets}
item:
  brand: {type: categorical, width: 16}
  price: {type: number, scale: buckets}
  stock: {type: number, scale: log}
  tags: {type: categories, most: 4}
context:
  tab: {type: categorical}
  position: {type: number, scale: buckets}
"""


def write_features(workspace: Path, users: np.ndarray, items: int) -> FittedFeatures:
    """Write `features.yaml` and its tables; what training days would say of them."""
    draw = np.random.default_rng(3)
    people, count = len(users), items
    columns = {
        "users": {
            "user_id": users,
            "band": draw.integers(0, 7, people),
            "region": draw.integers(0, 50, people),
            "balance": draw.exponential(100, people),
            "visits": draw.exponential(10, people),
        },
        "items": {
            "item_id": np.arange(count),
            "brand": draw.integers(0, 5_000, count),
            "price": draw.exponential(20, count),
            "stock": draw.exponential(9, count),
            "tags": list(draw.integers(0, 300, (count, 4))),
        },
    }
    for name, table in columns.items():
        pq.write_table(pa.table(table), workspace / f"{name}.parquet")
    path = workspace / "features.yaml"
    path.write_text(FILE)
    features = load_features(path)
    raw = {}
    for owner, name in ((Owner.USER, "users"), (Owner.ITEM, "items")):
        source = features.sources.user if owner is Owner.USER else features.sources.item
        table = DatedTable.read(workspace / f"{name}.parquet", source, features.of(owner))
        shown = draw.integers(0, len(table.ids), 10_000)
        raw |= {named.key: table.take(named, shown) for named in table.features}
    tabs, places = draw.integers(0, 5, 10_000), draw.integers(1, 201, 10_000)
    for named, given in zip(features.of(Owner.CONTEXT), (tabs, places), strict=True):
        raw[named.key] = raw_values(named.feature, given.tolist(), named.key)
    return fit_features(features, [raw])


def with_context(body: bytes) -> bytes:
    """A request that says its tab, and the place of each candidate."""
    asked = json.loads(body)
    asked["context"] = {"tab": 3, "position": list(range(1, len(asked["item_ids"]) + 1))}
    return json.dumps(asked).encode()


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--rate", type=float, default=20.0, help="requests/s")
    options = parser.parse_args()
    rate, seconds = options.rate, 3.0 if options.quick else 10.0
    found: dict[str, list[dict[str, float]]] = {"with": [], "without": []}
    with ranking_shop() as (workspace, settings, shelf, pool):
        users = np.concatenate([users_of(length) for length in MEMORY_LENGTHS])
        features = write_features(workspace, users, ITEMS)
        plain = make_bundle(shelf, "mimn")
        fill(workspace, settings, plain)
        # What is folded is the same, whatever the head sees.
        make_bundle(shelf, "mimn", version="0002", features=features, compatible=(plain.hash8,))
        load_user_rows(settings, workspace, load_features(workspace / "features.yaml"))
        asked = bodies(MEMORY_LENGTHS, 1)
        named = [with_context(body) for body in asked]
        for _ in range(3):
            for name, version, texts in (("without", "0001", asked), ("with", "0002", named)):
                with service(workspace, "--bundle", f"mimn/{version}") as url:
                    found[name].append(figures(load(pool, url, texts, rate, seconds)))
                    say(f"{name} features: {found[name][-1]}")
    best = best_of(found)
    report(
        "rank_features",
        ours={"with": best["with"], "rate_per_second": rate, "runs": found["with"]},
        peers={"without": {**best["without"], "runs": found["without"]}},
        ratios={
            "p99_with_over_without": best["with"]["p99_ms"] / best["without"]["p99_ms"],
            "p50_with_over_without": best["with"]["p50_ms"] / best["without"]["p50_ms"],
        },
        targets={"p99_with_over_without": "<=1.2"},
        packages=("torch", "feast", "fastapi", "uvicorn", "redis"),
    )


if __name__ == "__main__":
    main()
