"""What every benchmark shares: alternating runs, peak memory, and the one JSON line.

A benchmark runs ours and its peers on the same input, alternating, in one process tree, prints
progress on standard error, and ends with `report(...)`, the only thing on standard output.
"""

import argparse
import importlib.metadata
import json
import multiprocessing
import operator
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import psutil

LOAD_BEFORE = os.getloadavg()[0]
_COMPARISONS = {">=": operator.ge, "<=": operator.le}


def arguments(description: str) -> argparse.ArgumentParser:
    """A parser with `--quick`, which every benchmark has: under a minute, reduced size."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="smoke test at reduced size")
    return parser


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


def alternate(contenders: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Wall seconds of each contender, run in turn `repeats` times so that noise is shared."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(repeats):
        for name, run in contenders.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
            say(f"{name} {turn + 1}/{repeats}: {seconds[name][-1]:.3f} s")
    return seconds


def in_process(run: Callable[..., Any], *args: Any) -> dict[str, Any]:
    """Run in a fresh process: its result, wall seconds, and peak memory of it and its children."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measured, args=(sender, run, args))
    process.start()
    sender.close()
    try:
        outcome: dict[str, Any] = receiver.recv()
    except EOFError:
        process.join()
        msg = f"{getattr(run, '__name__', run)} ended with status {process.exitcode}"
        raise RuntimeError(msg) from None
    process.join()
    return outcome


def _measured(sender: Any, run: Callable[..., Any], args: tuple[Any, ...]) -> None:
    started = time.perf_counter()
    result = run(*args)
    seconds = time.perf_counter() - started
    peak = sum(
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    sender.send({"result": result, "seconds": seconds, "peak_memory_mib": round(peak / 1024)})


def median(values: list[float]) -> float:
    """Median, rounded to what a noisy machine can say."""
    return float(f"{statistics.median(values):.4g}")


def report(
    benchmark: str,
    *,
    ours: Mapping[str, Any],
    peers: Mapping[str, Mapping[str, Any]],
    ratios: Mapping[str, float],
    targets: Mapping[str, str],
    packages: tuple[str, ...] = ("numpy", "pyarrow"),
) -> None:
    """Print the JSON line; `met` is computed from `ratios` and `targets` ('>=10', '<=2')."""
    met = {name: _holds(ratios[name], target) for name, target in targets.items()}
    line = {
        "benchmark": benchmark,
        "ours": dict(ours),
        "peers": {name: dict(figures) for name, figures in peers.items()},
        "ratios": {name: float(f"{value:.4g}") for name, value in ratios.items()},
        "targets": dict(targets),
        "met": all(met.values()),
        "missed": sorted(name for name, holds in met.items() if not holds),
        "machine": {
            "cores": os.cpu_count(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30),
            "load_before": round(LOAD_BEFORE, 2),
        },
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in packages},
        },
    }
    print(json.dumps(line), flush=True)


def _holds(value: float, target: str) -> bool:
    return bool(_COMPARISONS[target[:2]](value, float(target[2:])))
