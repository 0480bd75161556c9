"""The fold function as a vectorised (pandas) function of Flink: one call is one Arrow batch.

State is on `self`, so workers must run in process mode: as threads of one process, several
subtasks would share one Python.
"""

import builtins
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import pandas as pd
from pyflink.table.udf import FunctionContext, ScalarFunction

from uic.jobs.stream.fold.counters import COUNTER_NAMES, PARTITION_MOVED
from uic.jobs.stream.fold.plan import JobPlan
from uic.jobs.stream.fold.status import StatusPublisher
from uic.pipelines.log.events import Reason

if TYPE_CHECKING:
    from uic.jobs.stream.fold.fold_function import FoldFunction

REJECT_NAMES: Final = tuple(f"rejected_{reason}" for reason in (*Reason, PARTITION_MOVED))


@contextmanager
def _plain_print() -> Iterator[None]:
    """Python's own `print` while the block runs.

    PyFlink's worker puts a function of its own in its place, which says that it is of a module
    that has no such name; Numba looks every built-in function up by that name and fails.
    """
    replaced = builtins.print
    builtins.print = getattr(getattr(replaced, "__self__", None), "_print", replaced)
    try:
        yield
    finally:
        builtins.print = replaced


class FoldEvents(ScalarFunction):  # type: ignore[misc]  # PyFlink has no type information
    """`fold_events(payload, partition, offset, log_time)`: null, or why it was rejected.

    Args:
        plan: a `JobPlan` as JSON.
    """

    def __init__(self, plan: str) -> None:
        self._plan = plan

    def is_deterministic(self) -> bool:
        """False: a deterministic function may be moved, repeated or dropped by the planner."""
        return False

    def open(self, function_context: FunctionContext) -> None:
        """Load the bundle and connect to the store."""
        with _plain_print():
            from uic.jobs.stream.fold.worker import make_fold_function  # noqa: PLC0415 - only in workers

            plan = JobPlan.model_validate_json(self._plan)
            self._fold: FoldFunction = make_fold_function(plan)
        self._status = StatusPublisher(
            self._fold.store.client,  # type: ignore[attr-defined]  # a PackedStore here
            plan.project,
            plan.generation,
            f"{os.getpid()}-{time.time_ns()}",
        )
        group = function_context.get_metric_group()
        self._metrics = {name: group.counter(name) for name in (*COUNTER_NAMES, *REJECT_NAMES)}
        self._reported: dict[str, int] = {}
        self._positions: dict[int, int] = {}

    def eval(
        self, payload: pd.Series, partition: pd.Series, offset: pd.Series, log_time: pd.Series
    ) -> pd.Series:
        """Fold one batch."""
        partitions = partition.to_numpy("int64")
        offsets = offset.to_numpy("int64")
        reasons = self._fold(
            payload.tolist(),
            partitions,
            offsets,
            log_time.dt.as_unit("ms").astype("int64").to_numpy(),
        )
        self._positions.update(zip(partitions.tolist(), offsets.tolist(), strict=True))
        self._report()
        return pd.Series(reasons, dtype=object)

    def close(self) -> None:
        """Publish the last counts."""
        if hasattr(self, "_status"):
            self._status.close()

    def _report(self) -> None:
        totals = self._fold.counters.totals
        for name, metric in self._metrics.items():
            more = totals[name] - self._reported.get(name, 0)
            if more:
                metric.inc(more)
                self._reported[name] = totals[name]
        self._status.report(totals, self._positions)
