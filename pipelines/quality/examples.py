"""Rows that broke a rule, to be looked at.

A failing check is run again over the files of its failing days only, and stops at the first few
rows that it finds.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from uic.models.samples.schema import SAMPLES
from uic.pipelines.log.event_log import LogFile
from uic.pipelines.quality.facts import JudgedTable, LogRules, file_rows, record_batches
from uic.pipelines.quality.positions import CrossFault
from uic.pipelines.quality.sample_facts import BATCH_GROUPS, GROUP_RULES, Groups
from uic.pipelines.quality.suite import CheckVerdict

# A history of a thousand events says no more than its ends.
_LONGEST_LIST = 6

Example = dict[str, Any]


def log_examples(
    verdict: CheckVerdict,
    table: JudgedTable,
    files: Sequence[LogFile],
    rules: LogRules,
    across: Sequence[CrossFault],
) -> tuple[Example, ...]:
    """Rows of the failing days that break the check's rule; none for a check of whole days."""
    by_metric = {rule.metric: rule for rule in table.rules}
    rule = by_metric.get(verdict.check.metric)
    days = {day for day, _ in verdict.failing}
    examples: list[Example] = []
    if rule is None:
        return ()
    for file in files:
        if file.dt.isoformat() not in days:
            continue
        for rows in file_rows(file.path, file.dt, table, rules):
            mask = rule.broken(rows)
            if mask is None:
                continue
            for at in _picked(mask, rules.quality.examples - len(examples)):
                if rule.needs_neighbour and at > 0:
                    examples.append(_example(file.path, rows.batch, at - 1))
                examples.append(_example(file.path, rows.batch, at))
            if len(examples) >= rules.quality.examples:
                return tuple(examples)
    examples += [{"files": fault.text} for fault in across if fault.metric == rule.metric]
    return tuple(examples[: rules.quality.examples])


def sample_examples(
    verdict: CheckVerdict, root: Path, files: Sequence[Mapping[str, Any]], most: int
) -> tuple[Example, ...]:
    """Groups of the failing files that break the check's rule."""
    by_metric = {rule.metric: rule for rule in GROUP_RULES}
    rule = by_metric.get(verdict.check.metric)
    failing = {name for name, _ in verdict.failing}
    examples: list[Example] = []
    if rule is None:
        return ()
    for entry in files:
        if entry["path"] not in failing:
            continue
        for batch in record_batches(root / entry["path"], SAMPLES, BATCH_GROUPS):
            mask = rule.broken(Groups(batch))
            if mask is not None:
                picked = _picked(mask, most - len(examples))
                examples += [_example(root / entry["path"], batch, at) for at in picked]
            if len(examples) >= most:
                return tuple(examples)
    return tuple(examples)


def _picked(mask: Any, most: int) -> Iterator[int]:
    return (int(at) for at in np.flatnonzero(mask)[: max(most, 0)])


def _example(path: Path, batch: pa.RecordBatch, at: int) -> Example:
    (row,) = batch.slice(at, 1).to_pylist()
    return {"file": "/".join(path.parts[-2:]), **{name: _short(row[name]) for name in row}}


def _short(value: Any) -> Any:
    """A value for people: times in ISO, long lists by their ends."""
    if isinstance(value, list):
        if len(value) > _LONGEST_LIST:
            ends = [str(_short(entry)) for entry in (*value[:3], *value[-2:])]
            return f"[{', '.join(ends[:3])}, … {', '.join(ends[3:])}] ({len(value)})"
        return "[" + ", ".join(str(_short(entry)) for entry in value) + "]"
    return value.isoformat() if hasattr(value, "isoformat") else value
