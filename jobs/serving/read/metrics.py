"""Prometheus metrics of the service; of all workers together.

Importing Feast puts prometheus_client into its multi-process mode, in which every process writes
its numbers to files of a shared folder. `share_metrics` names the folder before anything imports
either, so that `/metrics` of any worker shows all of them.
"""

import os
import shutil
import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Final

FOLDER_VARIABLES: Final = ("PROMETHEUS_MULTIPROC_DIR", "PROMETHEUS_MULTIPROCESS_DIR")
_SECONDS: Final = (
    *(0.00025, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.015, 0.02),
    *(0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0),
)
_AGES: Final = (0.1, 1, 10, 60, 600, 3600, 86_400, 7 * 86_400, 30 * 86_400, 120 * 86_400)
_ROWS: Final = (1, 10, 50, 100, 200, 400, 1000, 2000, 5000)


def share_metrics() -> Path:
    """Make the folder that all workers write to; the parent calls it first, and removes it last."""
    folder = Path(tempfile.mkdtemp(prefix="uic-serve-metrics-"))
    for name in FOLDER_VARIABLES:
        os.environ[name] = str(folder)
    return folder


def forget_metrics(folder: Path) -> None:
    """Remove the folder."""
    shutil.rmtree(folder, ignore_errors=True)


class ServiceMetrics:
    """What the service counts; make one a process, after `share_metrics`."""

    def __init__(self) -> None:
        from prometheus_client import Counter, Gauge, Histogram  # noqa: PLC0415 - see the module

        self.requests = Counter("uic_serve_requests", "Answers by path and status", _PATH_STATUS)
        self.seconds = Histogram(
            "uic_serve_seconds",
            "Seconds by stage: wait (for its turn), store, score, total; with a pre-rank also "
            "prerank_store, prerank_score, prerank_total, funnel_total",
            ["stage"],
            buckets=_SECONDS,
        )
        # A label costs a lookup and a lock each time; there are only these.
        self.wait = self.seconds.labels("wait")
        self.store = self.seconds.labels("store")
        self.score = self.seconds.labels("score")
        self.total = self.seconds.labels("total")
        self.degraded = Counter("uic_serve_degraded", "Degraded answers by reason", ["reason"])
        self.feature_defaults = Counter(
            "uic_serve_feature_defaults",
            "Answers scored with a feature's default or spare row, by feature and reason",
            ["feature", "reason"],
        )
        self.cache_hits = Counter("uic_serve_item_cache_hits", "Candidates found in the cache")
        self.cache_misses = Counter("uic_serve_item_cache_misses", "Candidates loaded")
        self.items_without_image = Counter(
            "uic_serve_items_without_image",
            "Candidates and events that were scored with the default vector",
        )
        self.memory_age = Histogram(
            "uic_serve_memory_age_seconds", "Since the memory's last event", buckets=_AGES
        )
        self.records_behind = Gauge(
            "uic_serve_records_behind_seconds",
            "How far the live records are behind the log; 0 without `freshness` in state.yaml",
            multiprocess_mode="livemax",
        )
        self.pass_rows = Histogram(
            "uic_serve_pass_candidates", "Candidates of one forward pass", buckets=_ROWS
        )
        self.look_failures = Counter(
            "uic_serve_look_failures", "Looks at what may change that failed", ["stage", "probe"]
        )
        self.last_look = Gauge(
            "uic_serve_last_look_timestamp_seconds",
            "When a probe last looked without an error, of the worker where it is longest ago",
            ["stage", "probe"],
            multiprocess_mode="livemin",
        )
        self.served_rows_dropped = Counter(
            "uic_serve_feature_log_dropped", "Rows of the feature log that were not written"
        )
        self.other_bundle = Counter(
            "uic_serve_other_bundle", "Memories read that the current bundle did not fold"
        )
        self.in_flight = Gauge(
            "uic_serve_in_flight", "Requests being dealt with", multiprocess_mode="livesum"
        )
        self.circuit_open = Gauge(
            "uic_serve_circuit_open",
            "Workers that leave the store alone",
            multiprocess_mode="livesum",
        )
        self.bundles = Gauge(
            "uic_serve_bundle_workers",
            "Workers whose current bundle it is: more than one bundle is skew",
            ["bundle"],
            multiprocess_mode="livesum",
        )
        self.generations = Gauge(
            "uic_serve_generation_workers",
            "Workers whose last memory was of this generation: more than one is skew",
            ["generation"],
            multiprocess_mode="livesum",
        )
        self._current: dict[str, str] = {}

    def count_defaults(
        self, missing: Iterable[str], invalid: Iterable[str], unseen: Iterable[str]
    ) -> None:
        """Count the features of an answer that were not served as they are, by key and why."""
        for reason, keys in (("missing", missing), ("invalid", invalid), ("unseen", unseen)):
            for key in keys:
                self.feature_defaults.labels(key, reason).inc()

    def now_serving(self, gauge_name: str, value: str) -> None:
        """Move this worker to another value of `bundles` or `generations`."""
        old = self._current.get(gauge_name)
        if old == value:
            return
        gauge = getattr(self, gauge_name)
        if old is not None:
            gauge.labels(old).set(0)
        gauge.labels(value).set(1)
        self._current[gauge_name] = value


@cache
def metrics_of_process() -> ServiceMetrics:
    """The metrics of this process: Prometheus takes each once."""
    return ServiceMetrics()


_PATH_STATUS: Final = ["path", "status"]


def exposition() -> tuple[bytes, str]:
    """The text for Prometheus and its content type, of all workers."""
    from prometheus_client import (  # noqa: PLC0415 - see the module
        CONTENT_TYPE_LATEST,
        CollectorRegistry,
        generate_latest,
    )
    from prometheus_client.multiprocess import MultiProcessCollector  # noqa: PLC0415

    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call] # the library has no types
    return generate_latest(registry), CONTENT_TYPE_LATEST
