"""What a per-user record is worth: counters, pools, MIMN, DIN and the record, under one head.

    python benchmarks/worth.py --data online_retail|ali_brand|kuairand [--seeds 3] [--quick]

A state sees its user's events strictly before the row's time. In the shops' logs, each event of a
day is a positive beside four items that others took that day and this user did not; KuaiRand's rows
are the videos that were shown, clicked or not. The last days are the test (14 of the shops, 1 of
KuaiRand), the days before them choose settings and epochs (7, 1). `auc_within` is the mean AUC
within one user's moment (an invoice, a day), in KuaiRand within one user's hour, since its log does
not say which videos one request asked for; the hour's videos are scored as of its first one, as a
request would.

All rows share one head, optimiser and search: the learning rate and batch that are best on the
validation days after training on a third of the moments; then every seed trains on all of them, and
stops after the first epoch that does not help on the validation days. `popularity` and `repeat`
learn nothing; `counters` is a logistic regression.

- `counters`: log(1 + count) of the candidate's item and of its category and author, decayed by one
  day, a week, a month and not at all, over the whole history and without any bound on memory.
- `mean_product`: mean of the embeddings of the last 1,024 events, its product with the candidate.
- `two_pools`: and a second mean whose weights halve from event to event.
- `mimn`: the product's memory network, fold and read-out.
- `din_flags`: `mean_product`, and attention over the last 64 events, told which are the same item.
- `record_exact`: the features of the package's default `state.yaml`, by the product's code, bounded
  tables and all. The head also embeds the entries of the table of items, weighted by their counts:
  the record holds no weight of any bundle.
- `record`: and what is learned: the second pool, and MIMN.
- `record_routed`: the record's exact parts, and MIMN whose slots are addressed by the event as
  well, read with products.
- `record_related`: the record's exact parts, and how the candidate goes with the user's newest 16
  items (64 bytes), by pairs counted over all users in the days before: no weight of a bundle.

Prints one JSON line: `rows`, from name to AUC and AUC within a list (means over seeds), the
standard error over seeds, and the 95 % interval of the difference to `mean_product` over test users
(400 bootstrap draws), of the AUC (`low`, `high`) and within lists (`within_low`, `within_high`).
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import LOAD_BEFORE, arguments, say
from race import tallies
from race.batches import Batches
from race.contestants import (
    WIDTH,
    Entry,
    FlaggedAttention,
    LastPool,
    MeanPool,
    Memory,
    RoutedMemory,
    TablePool,
)
from race.judge import Judge, Result, Rows
from race.logs import LOGS, TEST, VALID, RaceLog
from race.record import record_features, table_bags
from race.related import RELATED_BYTES, related
from race.training import EPOCHS, SEARCHED, Race

from uic.models.memory.settings import MemoryConfig
from uic.models.memory.state import StateLayout
from uic.models.records.record import HEADER_BYTES
from uic.models.state.definition import DEFAULT, StateDefinition

SHARED = Path(os.environ.get("UIC_SHARED_DATA", "../shared/data"))
BASE = "mean_product"
BYTES = (128, 256, 512, 1024, 1352, 2048, 4096)  # of a record
SCORED_ROWS = 50_000  # of the validation, and of the test
QUICK_ROWS = 3_000
LEARNED = {
    "counters": Entry(dense=("counters",), logistic=True),
    BASE: Entry([MeanPool]),
    "two_pools": Entry([MeanPool, LastPool]),
    "mimn": Entry([Memory]),
    "din_flags": Entry([MeanPool, FlaggedAttention]),
    "record_exact": Entry([TablePool], dense=("record",)),
    "record": Entry([TablePool, LastPool, Memory], dense=("record",)),
    "record_routed": Entry([TablePool, RoutedMemory], dense=("record",)),
    "record_related": Entry([TablePool], dense=("record", "related")),
}


def main() -> None:
    parser = arguments((__doc__ or "").splitlines()[0])
    parser.add_argument("--data", choices=sorted(LOGS), required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=300_000, help="to train on, at most")
    parser.add_argument("--only", nargs="+", help="these rows, beside the base", metavar="ROW")
    parser.add_argument("--state", type=Path, default=DEFAULT, help="the record's state.yaml")
    parser.add_argument(
        "--by-bytes", action="store_true", help="the exact parts in records of 128 to 4,096 bytes"
    )
    options = parser.parse_args()
    started = time.monotonic()
    quick = options.quick
    seeds = 1 if quick else options.seeds
    train, scored = (QUICK_ROWS, QUICK_ROWS) if quick else (options.rows, SCORED_ROWS)
    log = LOGS[options.data](SHARED).drawn((train, scored, scored))
    searched, epochs = (SEARCHED[:1], 1) if quick else (SEARCHED, EPOCHS)
    state = StateDefinition.load(options.state)
    race = prepared(log, state, searched, epochs)
    say(f"{options.data}: {shape(race)}")
    results = {
        name: Result([race.unlearned(scores(log))], {})
        for name, scores in (("popularity", tallies.popularity), ("repeat", tallies.repeat))
    }
    for name, entry in LEARNED.items():
        if not options.only or name in {BASE, *options.only}:
            begun = time.monotonic()
            results[name] = race.run(entry, seeds, say)
            area = race.judge.auc(results[name].scores[0])
            say(f"{name}: AUC {area:.4f}, {time.monotonic() - begun:.0f} s")
    sizes: dict[str, int] = {}
    for name, other in variants(state).items() if options.by_bytes else ():
        sizes[name] = HEADER_BYTES + other.bytes
        results[name] = prepared(log, other, searched, epochs).run(
            LEARNED["record_exact"], seeds, say
        )
        area = race.judge.auc(results[name].scores[0])
        say(f"{name}: {sizes[name]} bytes, AUC {area:.4f}")
    rows = {name: found.row(race.judge, results[BASE]) for name, found in results.items()}
    line = {
        "benchmark": "worth",
        "data": options.data,
        "rows": rows,
        # The header and the exact parts; `record` has the learned ones beside.
        "record_bytes": HEADER_BYTES + state.bytes,
        "learned_bytes": learned_bytes(log),
        "related_bytes": RELATED_BYTES,
        "bytes": sizes,
        **shape(race),
        "seeds": seeds,
        "settings": {name: found.settings for name, found in results.items() if found.settings},
        "searched": {"learning_rate_and_batch_rows": searched, "most_epochs": epochs},
        "seconds": round(time.monotonic() - started),
        "load_before": round(LOAD_BEFORE, 2),
    }
    print(json.dumps(line), flush=True)


def variants(state: StateDefinition) -> dict[str, StateDefinition]:
    """The parts in records of so many bytes, tables in proportion; and the parts without each."""
    document = state.document()
    sized = {name: own["size"] for name, own in document["parts"].items() if "size" in own}
    found = {}
    for most in BYTES:
        for share in np.linspace(4, 0.01, 400):
            parts = {
                name: own | ({"size": max(2, round(share * sized[name]))} if name in sized else {})
                for name, own in document["parts"].items()
            }
            one = StateDefinition.of_document({**document, "parts": parts}, "worth")
            if HEADER_BYTES + one.bytes <= most:
                found[f"within_{most}"] = one
                break
    for left_out in document["parts"]:
        parts = {name: own for name, own in document["parts"].items() if name != left_out}
        found[f"without_{left_out}"] = StateDefinition.of_document(
            {**document, "parts": parts}, "worth"
        )
    return found


def prepared(
    log: RaceLog, state: StateDefinition, searched: Sequence[tuple[float, int]], epochs: int
) -> Race:
    """The race of a log: its batches with all features, and its judge."""
    dense = {
        "counters": tallies.counters(log),
        "record": record_features(log, state),
        "related": related(log),
    }
    batches = Batches(log, dense, table_bags(log, state))
    valid, test, lists = (
        Rows.of(log.rows.iloc[batches.rows(split)]) for split in (VALID, TEST, log.listed)
    )
    return Race(log, batches, valid.labels, Judge(test, lists), searched, epochs)


def learned_bytes(log: RaceLog) -> int:
    """Of the second pool and of MIMN, in float16."""
    config = MemoryConfig(item_width=WIDTH, category_width=WIDTH if log.keys else 0)
    return 2 * (config.event_width + StateLayout.of(config).floats)


def shape(race: Race) -> dict[str, Any]:
    """How much data there is."""
    rows = race.log.rows
    counts = rows.split.value_counts().sort_index().tolist()
    return {
        "days": list(race.log.days),
        "training_rows": counts[0],
        "validation_rows": counts[1],
        "test_rows": counts[2],
        "test_users": int(rows.user[rows.split == TEST].nunique()),
        "test_clicked": round(float(rows.label[rows.split == TEST].mean()), 3),
        "events": len(race.log.events),
        "items": race.log.sizes["item"],
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
