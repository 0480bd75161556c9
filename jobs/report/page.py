"""The page of a workspace: its sections, each from numbers that commands have left there."""

from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq

from uic.jobs.config.context import Context
from uic.jobs.replay.run import FOLDER
from uic.jobs.report import figures
from uic.jobs.report.html import Page, number
from uic.jobs.report.memories import one_life, slot_use
from uic.jobs.report.models import models_section
from uic.jobs.report.numbers import collect
from uic.models.published import write_bytes_atomically, write_json_atomically

PAGE_NAME: Final = "index.html"
NUMBERS_NAME: Final = "demo.json"


def write_report(context: Context) -> tuple[Path, Path]:
    """Write the page and its numbers; their paths."""
    numbers = collect(context)
    if "models" in numbers and "log" in numbers:
        numbers["slots"] = slot_use(context)
        main = next((row for row in numbers["models"] if row["model"] == "mimn"), None)
        if "live" in numbers and main is not None:
            name = numbers["live"].get("bundle") or f"mimn/{main['version']}"
            numbers["life"] = one_life(context, name)
    page = Page()
    _summary(page, numbers)
    for name, add in _SECTIONS:
        if numbers.get(name):
            add(page, numbers[name], context)
    path = context.reports / PAGE_NAME
    lived = ": one day, lived through" if "live" in numbers else f": {context.workspace.name}"
    write_bytes_atomically(path, page.html(f"User interest center{lived}").encode())
    document = context.reports / NUMBERS_NAME
    write_json_atomically(document, numbers)
    return path, document


def _summary(page: Page, numbers: dict[str, Any]) -> None:
    cards = []
    if "log" in numbers:
        cards.append((f"{numbers['log']['behaviors']:,}", "behaviours in the log"))
    if "live" in numbers:
        live = numbers["live"]
        memory = live["memory"]
        gain = memory["live"]["auc"] - memory["midnight"]["auc"]
        cards += [
            (f"{memory['live']['auc']:.4f}", "AUC of the day, live memory"),
            (f"{gain:+.4f}", "AUC against midnight's memory"),
            (f"{live['latency_ms']['p99']:.1f} ms", "p99 of a request"),
            (f"{live['freshness_seconds']['p50']:.2f} s", "event to store, median"),
        ]
    if "store" in numbers:
        cards.append((f"{numbers['store']['redis_bytes_per_user']:,.0f}", "bytes a user in Redis"))
    if "audit" in numbers:
        found = numbers["audit"]["generations"]
        wrong = sum(
            one[name] for one in found for name in ("differing", "behind", "missing", "extra")
        )
        users = sum(one["users"] for one in found)
        cards.append((f"{wrong} of {users:,}", "memories unlike the log"))
    data = numbers.get("demo", {}).get("data", "")
    page.section(
        "At a glance", f"Data: {data or 'of this workspace'}. All figures are of this run."
    )
    page.cards(cards)


def _log(page: Page, log: dict[str, Any], _: Context) -> None:
    page.section(
        "The log",
        f"{log['behaviors']:,} behaviours and {log['impressions']:,} impressions; epochs "
        f"{', '.join(log['epochs'])}. What the quality gates saw is in quality/behaviors.html.",
    )
    page.figure("figure-log", figures.log_days(log), "Rows of the event log by day.")


def _samples(page: Page, samples: dict[str, Any], _: Context) -> None:
    page.section(
        "Common-feature grouping",
        "A user's history is stored once for all impressions of a day, not once for each.",
    )
    page.table(
        ("", "megabytes"),
        (
            ("grouped", f"{samples['grouped_bytes'] / 1e6:,.1f}"),
            (
                "one row per impression (estimated)",
                f"{samples['one_row_per_impression_bytes'] / 1e6:,.1f}",
            ),
            ("times as large", f"{samples['ratio']:.2f}"),
            ("times as large before compression", f"{samples['raw_ratio']:.2f}"),
        ),
    )


def _live(page: Page, live: dict[str, Any], context: Context) -> None:
    replay = live["replay"]
    page.section(
        "What real time is worth",
        f"{live['day']} happened again in {replay['wall_seconds']:.0f} s "
        f"({replay['speed_up']:,.0f} times as fast), in {replay['stretches']} stretches: each of "
        f"{live['impressions']:,} impressions was ranked by the running service with the memory "
        "of its stretch. The same impressions were ranked with the memories of midnight, and "
        "without any.",
    )
    page.figure(
        "figure-real-time", figures.real_time(live), "AUC of each few hours, by kind of memory."
    )
    page.table(
        ("memory", "AUC", "GAUC", "LogLoss"),
        [
            (
                figures.MEMORY_LABELS[name],
                *(number(live["memory"][name][key]) for key in ("auc", "gauc", "logloss")),
            )
            for name in figures.MEMORY_LABELS
        ],
    )
    page.section(
        "Latency and freshness",
        f"Latency is what the client saw of {live['latency_requests']:,} single requests, while "
        "client, service, stream and Redis shared the machine. Freshness is from an event's file "
        "to its marker in the store; files are handed to Flink one at a time, which Kafka is not.",
    )
    for name, column_unit, factor, what in (
        ("latencies", "ms", 1000.0, "time from request to answer"),
        ("freshness", "s", 1.0, "time from source to store"),
    ):
        table = pq.read_table(context.workspace / FOLDER / f"{name}.parquet")
        values = table.column("seconds").to_numpy() * factor
        if "events" in table.column_names:
            values = np.repeat(values, table.column("events").to_numpy())
        if len(values):
            page.figure(
                f"figure-{name}",
                figures.histogram(values, column_unit, what, ["50", "90", "99"]),
                f"{what.capitalize()}, {len(values):,} of them.",
            )


def _slots(page: Page, rows: list[dict[str, Any]], _: Context) -> None:
    page.section(
        "Slot use",
        "How writing spreads over the slots of the same users' memories. An even spread is what "
        "the regularisation of memory utilisation is for: "
        + "; ".join(
            f"{row['bundle']} (λ = {row['loss_weight']:g}): a user's busiest slot gets "
            f"{row['largest_share_of_a_user']:.0%}"
            for row in rows
        )
        + ".",
    )
    page.figure("figure-slots", figures.slots(rows), "Share of writing, slot by slot.")


def _life(page: Page, life: dict[str, Any], _: Context) -> None:
    page.section(
        "One user",
        f"User {life['user_id']} clicked most on the replayed day and has {life['events']:,} "
        "events. Each event changes the channel that reads nearest to it, and leaves the others.",
    )
    page.figure("figure-life", figures.life(life), "How much each channel moved at each event.")
    if life["nearest_items"]:
        page.table(
            ("channel", "nearest items (category)"),
            [
                (
                    f"channel {at + 1}",
                    ", ".join(f"{one['item_id']} ({one['category_id']})" for one in channel)
                    or "never written",
                )
                for at, channel in enumerate(life["nearest_items"])
            ],
        )


def _store(page: Page, store: dict[str, Any], _: Context) -> None:
    page.section("Size", f"{store['users']:,} users in generation {store['generation']}.")
    page.figure("figure-bytes", figures.bytes_per_user(store), "Bytes of one user's memory.")


def _audit(page: Page, audit: dict[str, Any], _: Context) -> None:
    page.section(
        "Audit",
        f"A share of {audit['sample_rate']:g} of all users: their log folded again from nothing, "
        "up to the position that the served memory carries, and compared byte for byte.",
    )
    names = [
        *("users", "through_feast", "events", "matched", "within_tolerance", "differing"),
        *("behind", "missing", "extra", "ahead"),
    ]
    rows = audit["generations"]
    page.table(
        ("", *(f"generation {row['generation']} ({row['state']})" for row in rows)),
        [(name.replace("_", " "), *(f"{row[name]:,}" for row in rows)) for name in names],
    )
    if audit.get("served"):
        _served(page, audit["served"])


def _served(page: Page, served: dict[str, Any]) -> None:
    page.section(
        "Training and serving",
        f"The service wrote down what it scored {served['answers']:,} answers with. Each memory "
        "was folded again from the log up to its own position, as training folds it, and each "
        "candidate was scored again by the model as it was trained. Memories must be the same "
        "bytes; a probability may differ by what summing in another order does, "
        f"{served['probability_tolerance']:g}.",
    )
    page.table(
        ("what was served", "of the log and the model"),
        [
            *(
                (f"memories {name}", f"{served[name]:,}")
                for name in ("matched", "differing", "ahead")
            ),
            ("probabilities computed again", f"{served['scored']:,}"),
            ("largest difference of a probability", f"{served['largest_difference']:.2g}"),
        ],
    )


def _demo(page: Page, demo: dict[str, Any], _: Context) -> None:
    seconds = {name: took for name, took in demo["seconds"].items() if name in demo["done"]}
    if seconds:
        page.section("Where the time went", f"{sum(seconds.values()):.0f} s in all.")
        page.figure("figure-stages", figures.stages(seconds), "Seconds of each stage.")


_SECTIONS: Final = (
    ("live", _live),
    ("models", models_section),
    ("life", _life),
    ("slots", _slots),
    ("audit", _audit),
    ("store", _store),
    ("log", _log),
    ("samples", _samples),
    ("demo", _demo),
)
