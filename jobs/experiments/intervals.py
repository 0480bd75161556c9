"""What a table says beside each AUC: simple rankings, and the difference to average pooling.

The scores of each run lie beside its metrics, so that a difference is paired by user: all rows
score the same impressions, and both sides of a difference see the same draws of users.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from uic.jobs.experiments.runs import Request, RowResult, result_path, run_spec
from uic.jobs.experiments.tables import Row
from uic.models.errors import BadInputError
from uic.models.rankers.catalogue import MODELS
from uic.models.training.metrics import measure
from uic.models.training.paired import difference
from uic.models.training.simple_rows import SIMPLE, simple_scores

BASE: Final = "average_pooling"
# In every table of models: rankings of a few lines, and what a learned memory is held against.
_RANKINGS: Final = (
    Row("popularity", "popularity"),
    Row("repeat of the last", "repeat"),
    Row("counters alone", "counters"),
)
_LEARNED: Final = (
    Row("mean + product", BASE),
    Row("two pools + products", "two_pools"),
)


@dataclass(frozen=True)
class _Scored:
    """A row's scores on the test, (impressions,) of each seed."""

    scores: list[NDArray[np.float64]]
    labels: NDArray[np.bool_]
    users: NDArray[np.int64]


def with_simple_rows(rows: Sequence[Row]) -> list[Row]:
    """A table's rows, and before them those that no table is without."""
    there = {(row.model, row.settings) for row in rows}
    return [*_RANKINGS, *(row for row in _LEARNED if (row.model, ()) not in there), *rows]


def with_intervals(request: Request, results: Sequence[RowResult]) -> list[RowResult]:
    """Measure the simple rankings among the rows, and each row's difference to average pooling.

    A row without scores, or a table without average pooling, has no difference.
    """
    simple = _simple(request, results)
    scored = {
        result.row.label: simple.get(result.row.model) or _read(request, result)
        for result in results
    }
    base = next((r for r in results if r.row.model == BASE and not r.row.settings), None)
    against = None if base is None else scored[base.row.label]
    found = []
    for result in results:
        own = scored[result.row.label]
        made = result
        if result.row.model in simple and own is not None:
            made = replace(made, runs=[_document(own)], length="all")
        if own is not None and against is not None and result is not base:
            if not np.array_equal(own.labels, against.labels):
                msg = f"{result.row.label}: scores of other impressions than {BASE}'s; remove them"
                raise BadInputError(msg)
            paired = difference(own.scores, against.scores, own.labels, own.users)
            made = replace(made, difference=paired)
        found.append(made)
    return found


def _document(scored: _Scored) -> dict[str, Any]:
    """As a run's, of a ranking that has no seeds; its scores are no log-odds."""
    metrics = measure(scored.scores[0], scored.labels, scored.users)
    return {"epochs": [{**metrics.to_json(), "logloss": None}]}


def _simple(request: Request, results: Sequence[RowResult]) -> dict[str, _Scored]:
    """The simple rankings among the rows, by name."""
    asked = {result.row.model for result in results if result.row.model in SIMPLE}
    if not asked:
        return {}
    days = run_spec(request, Row(BASE, BASE), 0).days
    if days.test is None:
        return {}
    scores, tested = simple_scores(request.reader, (days.first, days.last), days.test)
    return {name: _Scored([scores[name]], tested.labels, tested.users) for name in asked}


def _read(request: Request, result: RowResult) -> _Scored | None:
    """The scores that the row's runs left; None where one has none."""
    if result.row.model not in MODELS:
        return None
    paths = [
        result_path(request, run_spec(request, result.row, seed)).with_suffix(".npz")
        for seed in range(len(result.runs))
    ]
    if not paths or not all(path.is_file() for path in paths):
        return None
    files = [np.load(path) for path in paths]
    scores = [file["scores"].astype(np.float64) for file in files]
    return _Scored(scores, files[0]["labels"], files[0]["users"])
