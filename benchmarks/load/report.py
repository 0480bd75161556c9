"""The result of a load test as JSON, and as a plot of latency against rate and history length."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from .generator import LoadResult

# Events behind a memory: edges of the groups, each about three times the one before.
EVENT_EDGES: Final = (0, 1, 10, 30, 100, 300, 1000, 3000, 10_000, 1_000_000_000)
_FEW: Final = 20  # a percentile of fewer requests says nothing


def by_history(results: Sequence[LoadResult]) -> list[dict[str, Any]]:
    """Latency by the events behind the memory that was read, of requests that had one."""
    events = np.concatenate([result.memory_events for result in results])
    latency = np.concatenate([result.latency_ms for result in results])
    rows = []
    for low, high in itertools.pairwise(EVENT_EDGES):
        chosen = latency[(events >= low) & (events < high)]
        if len(chosen) >= _FEW:
            rows.append(
                {
                    "memory_events_from": low,
                    "memory_events_below": high,
                    "requests": len(chosen),
                    "p50_ms": round(float(np.percentile(chosen, 50)), 3),
                    "p99_ms": round(float(np.percentile(chosen, 99)), 3),
                }
            )
    return rows


def report_of(results: Sequence[LoadResult]) -> dict[str, Any]:
    """Everything that a reader needs."""
    return {"by_rate": [result.summary() for result in results], "by_history": by_history(results)}


def draw(report: dict[str, Any], path: Path, title: str) -> None:
    """Draw the report as a picture (PNG)."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - only a report needs it

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    against_rate, against_history = figure.subplots(1, 2)
    rates = [row["rate_per_second"] for row in report["by_rate"]]
    for name in ("p50_ms", "p99_ms", "p99_9_ms"):
        against_rate.plot(rates, [row[name] for row in report["by_rate"]], marker="o", label=name)
    against_rate.set(xlabel="requests a second", ylabel="latency, ms", yscale="log")
    against_rate.axhline(10, color="grey", linewidth=0.8, linestyle="--")
    against_rate.legend()
    rows = report["by_history"]
    places = [max(row["memory_events_from"], 1) for row in rows]
    for name in ("p50_ms", "p99_ms"):
        against_history.plot(places, [row[name] for row in rows], marker="o", label=name)
    against_history.set(xlabel="events behind the memory (from)", xscale="log", ylim=(0, None))
    against_history.legend()
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
