"""The default record's exact parts against none: ranking 200 candidates by MIMN, over HTTP.

    python benchmarks/rank_state.py [--quick]

The same store, users and candidates as `benchmarks/rank.py`; two generations of the same memories,
one with the parts of the package's `state.yaml` behind them. With and without in turn, three times
each, at one rate; the best run of each counts, since the machine has other work. Beside it, in one
process, the CPU time of a pass of 200 candidates of each, in turn.
"""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from harness import arguments, report, say
from rank import (
    CANDIDATES,
    GENERATION,
    ITEMS,
    MEMORY_LENGTHS,
    USERS,
    best_of,
    bodies,
    figures,
    load,
    make_bundle,
    make_events,
    ranking_shop,
    service,
    users_of,
)

from uic.feature_repo.store.generations import Generation
from uic.feature_repo.store.opened import open_memories
from uic.feature_repo.store.settings import StoreSettings
from uic.jobs.serving.score.asks import Ask
from uic.jobs.serving.score.features import ServedFeatures
from uic.jobs.serving.score.items import ItemCache, ItemTable
from uic.jobs.serving.score.memories import MemoryScorer
from uic.models.bundles.bundle import Bundle
from uic.models.features.definition import FeatureSet
from uic.models.features.fitted import FittedFeatures, fit_features
from uic.models.memory.fold import MemoryFolder
from uic.models.records.record import Records
from uic.models.state.definition import DEFAULT, StateDefinition
from uic.models.state.named import named_features
from uic.models.state.part import Asked
from uic.pipelines.log.event_log import EventLog

HOUR_MS = 3_600_000


def fitted(state: StateDefinition) -> FittedFeatures:
    """What training days would say of the parts' features."""
    draw = np.random.default_rng(5)
    events = make_events(200, draw)
    events = replace(events, log_times_ms=events.log_times_ms[0] + events.offsets * HOUR_MS)
    rows = USERS * 100
    items = draw.integers(0, ITEMS, rows)
    now = np.full(rows, events.log_times_ms[-1] + HOUR_MS)
    asked = Asked(np.repeat(np.arange(USERS), 100), now, items, items % 50)
    seen = np.searchsorted(events.user_index, asked.owners, side="right")
    told = state.as_of(events, asked, seen)
    named = named_features(state)
    return fit_features(FeatureSet(named), [{one.key: told[:, at] for at, one in enumerate(named)}])


def fill(workspace: Path, settings: StoreSettings, bundle: Bundle, number: int) -> Records:
    """A generation of all users' records, ready to be switched to; the records."""
    draw, folder = np.random.default_rng(0), MemoryFolder(bundle, number)
    records = np.concatenate(
        [
            folder.fold(folder.initial_records(USERS), make_events(length, draw)).records
            for length in MEMORY_LENGTHS
        ]
    )
    ids = np.concatenate([users_of(length) for length in MEMORY_LENGTHS])
    with open_memories(settings, workspace) as store:
        store.generations.register(
            Generation(
                number=number,
                rows_expected=len(ids),
                bundle=bundle.hash8,
                bundle_name=f"{bundle.name}/{bundle.version}",
                record_bytes=records.shape[1],
                positions={1: {0: 10**9}},
                snapshot=f"generation={number:03d}/dt=2024-01-01",
            )
        )
        store.memories.write(number, ids, records)
        store.generations.complete(number, ids)
    return records


def switch(workspace: Path, settings: StoreSettings, number: int) -> None:
    """Make a generation the live one."""
    with open_memories(settings, workspace) as store:
        store.generations.switch(number, 0)


def cpu_of_a_pass(
    workspace: Path, made: dict[str, tuple[Bundle, Records]], passes: int
) -> dict[str, float]:
    """Milliseconds of CPU for 200 candidates, the median over passes in turn."""
    table = ItemTable.load(EventLog(workspace / "log").items_file())
    draw = np.random.default_rng(2)
    scorers = {}
    for name, (bundle, records) in made.items():
        features = ServedFeatures(bundle, table.features)
        cache = ItemCache(table, bundle.embed, ITEMS, features)
        cache.warm(np.arange(ITEMS))
        scorers[name] = (MemoryScorer(bundle, cache), records)
    spent: dict[str, list[int]] = {name: [] for name in made}
    for turn in range(passes + 20):
        items = draw.choice(ITEMS, CANDIDATES, replace=False).tolist()
        for name, (scorer, records) in scorers.items():
            ask = Ask(items, records[turn % len(records)].tobytes())
            started = time.thread_time_ns()
            scorer.answer_now([ask])
            if turn >= 20:
                spent[name].append(time.thread_time_ns() - started)
    return {name: float(np.median(times)) / 1e6 for name, times in spent.items()}


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--rate", type=float, default=20.0, help="requests/s")
    options = parser.parse_args()
    rate, seconds = options.rate, 3.0 if options.quick else 20.0
    found: dict[str, list[dict[str, float]]] = {"with": [], "without": []}
    with ranking_shop() as (workspace, settings, shelf, pool):
        state = StateDefinition.load(DEFAULT)
        bundles = {
            "without": make_bundle(shelf, "mimn"),
            "with": make_bundle(shelf, "mimn", version="0002", features=fitted(state), state=state),
        }
        numbers = {name: GENERATION + at for at, name in enumerate(bundles)}
        made = {
            name: (bundle, fill(workspace, settings, bundle, numbers[name]))
            for name, bundle in bundles.items()
        }
        cpu = cpu_of_a_pass(workspace, made, 100 if options.quick else 2_000)
        say(f"CPU of a pass: {cpu}")
        asked = bodies(MEMORY_LENGTHS, 1)
        for _ in range(1 if options.quick else 3):
            for name, bundle in bundles.items():
                switch(workspace, settings, numbers[name])
                with service(workspace, "--bundle", f"mimn/{bundle.version}") as url:
                    found[name].append(figures(load(pool, url, asked, rate, seconds)))
                    say(f"{name} parts: {found[name][-1]}")
    best = best_of(found)
    width = {name: int(records.shape[1]) for name, (_, records) in made.items()}
    report(
        "rank_state",
        ours={
            "with": best["with"],
            "rate_per_second": rate,
            "runs": found["with"],
            "pass_cpu_ms": cpu["with"],
            "record_bytes": width["with"],
            "features": len(state.described),
        },
        peers={
            "without": {
                **best["without"],
                "runs": found["without"],
                "pass_cpu_ms": cpu["without"],
                "record_bytes": width["without"],
            }
        },
        ratios={
            "p99_with_over_without": best["with"]["p99_ms"] / best["without"]["p99_ms"],
            "p50_with_over_without": best["with"]["p50_ms"] / best["without"]["p50_ms"],
            "pass_cpu_with_over_without": cpu["with"] / cpu["without"],
        },
        targets={"p99_with_over_without": "<=1.1"},
        packages=("torch", "feast", "fastapi", "uvicorn", "redis", "numba"),
    )


if __name__ == "__main__":
    main()
