"""What the fold function counts, as plain numbers; the Flink wrapper copies them to its metrics."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
from numpy.typing import NDArray

# The one reason that the parser does not know: a user came in a second partition of the epoch.
PARTITION_MOVED: Final = "partition_moved"
# PyFlink has no histogram, so freshness is counted into buckets: milliseconds, upper bounds.
FRESHNESS_BOUNDS_MS: Final = (25, 50, 100, 150, 200, 300, 400, 600, 800, 1000, 2000, 5000, 30_000)
FRESHNESS_NAMES: Final = (
    *(f"freshness_ms_le_{bound}" for bound in FRESHNESS_BOUNDS_MS),
    "freshness_ms_more",
)
STAGES: Final = ("parse", "read", "fold", "identity", "sequence", "write")
COUNTER_NAMES: Final = (
    "events",  # rows that came in
    "folded",
    "skipped",  # at or before the marker or the record's position: replayed
    "excluded",  # by the generation's rules, or of a sale day
    "rejected",
    "refused_writes",  # memories that Redis kept: another writer is ahead, or the user is forgotten
    "left_out_of_sequences",  # folded, but no sequence can hold their category id
    "batches",
    "users",  # memories changed, summed over batches
    "cache_hits",
    "cache_misses",
    "retries",
    *(f"{stage}_microseconds" for stage in STAGES),
    *FRESHNESS_NAMES,
)
_BOUNDS: Final = np.array(FRESHNESS_BOUNDS_MS, dtype=np.int64)


class StreamCounters:
    """Totals since the worker started. `rejected_<reason>` appears with the first such reject."""

    def __init__(self) -> None:
        self.totals: Counter[str] = Counter(dict.fromkeys(COUNTER_NAMES, 0))

    def add(self, name: str, count: int = 1) -> None:
        """Count `count` more of `name`."""
        self.totals[name] += count

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the seconds of the block to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - started
            self.totals[f"{name}_microseconds"] += int(elapsed * 1e6)

    def add_rejects(self, reasons: list[str | None]) -> None:
        """Count each reason."""
        for reason, count in Counter(reasons).items():
            if reason is not None:
                self.totals["rejected"] += count
                self.totals[f"rejected_{reason}"] += count

    def add_freshness(self, ages_ms: NDArray[np.int64]) -> None:
        """Count how old events were, from log time to the memory in the store."""
        found = np.bincount(
            np.searchsorted(_BOUNDS, ages_ms, side="left"), minlength=len(FRESHNESS_NAMES)
        )
        for name, count in zip(FRESHNESS_NAMES, found.tolist(), strict=True):
            if count:
                self.totals[name] += count


def freshness_quantile(totals: dict[str, int], quantile: float) -> float | None:
    """Milliseconds below which `quantile` of the events were, by the buckets' upper bounds.

    Returns:
        None if nothing was counted; infinity if it lies above the largest bound.
    """
    counts = [totals.get(name, 0) for name in FRESHNESS_NAMES]
    total = sum(counts)
    if not total:
        return None
    seen = 0
    for bound, count in zip((*FRESHNESS_BOUNDS_MS, float("inf")), counts, strict=True):
        seen += count
        if seen >= quantile * total:
            return float(bound)
    return float("inf")
