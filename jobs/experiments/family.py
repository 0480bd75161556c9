"""`uic experiment imn-*|lmn-*|dicm-*`: train the rows, or measure costs, and write it down.

A row that needs more memory than the limit is a result ("out of memory"), kept like any other, so
that a second call does not try it again.
"""

import json
import multiprocessing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from uic.jobs.config.console import ERR
from uic.jobs.experiments.dicm import AMS_TABLE, ams_table, new_items
from uic.jobs.experiments.dicm_tables import DICM_TABLES
from uic.jobs.experiments.family_report import Measured, write_cost, write_family
from uic.jobs.experiments.family_tables import (
    COST_TABLES,
    EFFICIENCY_LENGTHS,
    EFFICIENCY_MODELS,
    FAMILY_TABLES,
    FamilyRow,
)
from uic.jobs.experiments.runs import Request, RowResult, result_path, run_spec, train_row
from uic.models.errors import BadInputError
from uic.models.published import write_json_atomically
from uic.models.rankers.catalogue import MODELS
from uic.models.rankers.dicm.image_settings import ImageSettings
from uic.models.training.metrics import Metrics

_TABLES: Final = {**FAMILY_TABLES, **DICM_TABLES}
FAMILY: Final = (*_TABLES, *COST_TABLES, AMS_TABLE)


def run_family(
    table: str,
    request: Request,
    folder: Path,
    remark: str,
    *,
    only: str | None,
    limit_gib: float,
) -> list[Path]:
    """Make one table; the paths of its files, Markdown first.

    Args:
        table: one of `FAMILY`.
        request: samples, seeds, settings.
        folder: where to write.
        remark: how to make it again.
        only: models to run, comma-separated; None for all.
        limit_gib: memory that a row may take, 0 for no limit.

    Raises:
        BadInputError: `only` names no row.
    """
    wanted = None if only is None else set(only.split(","))
    if table in COST_TABLES:
        models = [name for name in EFFICIENCY_MODELS if wanted is None or name in wanted]
        _check(models, table, only, EFFICIENCY_MODELS)
        remark = f"200 candidates over one history; at most {limit_gib:g} GiB a model, one thread."
        return write_cost(folder, table, _costs(models, limit_gib), remark)
    if table == AMS_TABLE:
        return ams_table(request, folder, remark)
    rows = [row for row in _TABLES[table].rows if wanted is None or row.model in wanted]
    _check(rows, table, only, [str(row.model) for row in _TABLES[table].rows])
    measured = _run_rows(request, rows, limit_gib)
    return write_family(folder, f"{table}-{request.reader.name}", _TABLES[table], measured, remark)


def _check(
    chosen: list[FamilyRow] | list[str], table: str, only: str | None, known: object
) -> None:
    if not chosen:
        names = ", ".join(sorted(set(known)))  # type: ignore[call-overload] # an iterable of str
        msg = f"--rows {only}: no such row in {table}; known: {names}"
        raise BadInputError(msg)


def _run_rows(request: Request, rows: list[FamilyRow], limit_gib: float) -> list[Measured]:
    """Seeds outermost, so that a cut-off experiment has every row once."""
    documents: dict[str, list[dict]] = {row.label: [] for row in rows}
    for seed in range(request.repeats):
        for row in rows:
            if row.model not in MODELS:
                continue
            path = result_path(request, run_spec(request, row, seed))
            if path.exists():
                ERR.print(f"{row.label} seed {seed}: done before, {path}", markup=False)
            else:
                _train_within(request, row, seed, limit_gib)
            documents[row.label].append(json.loads(path.read_text(encoding="utf-8")))
    found = []
    for row in rows:
        if row.model not in MODELS:
            found.append(Measured(RowResult(row, []), length="-"))
            continue
        done = [document for document in documents[row.label] if document.get("epochs")]
        metrics = [Metrics.from_json(document["epochs"][-1]) for document in done]
        limits = {doc["out_of_memory_gib"] for doc in documents[row.label] if not doc.get("epochs")}
        length = getattr(run_spec(request, row, 0).settings, "history_limit", None)
        new = [Metrics.from_json(doc["new_items"]) for doc in done if doc.get("new_items")]
        entropies = [doc["attention_entropies"] for doc in done if "attention_entropies" in doc]
        found.append(
            Measured(
                RowResult(row, metrics),
                length="all" if length is None else str(length),
                out_of_memory_gib=max(limits, default=None),
                entropies=entropies[0] if entropies else None,
                new_items=RowResult(row, new),
            )
        )
    return found


def _train_within(request: Request, row: FamilyRow, seed: int, limit_gib: float) -> None:
    """Train a row, or record that it does not fit."""
    from uic.jobs.experiments.sequence_cost import is_out_of_memory, memory_limit  # noqa: PLC0415
    from uic.models.rankers.imn.imn import Imn  # noqa: PLC0415 - takes a second, and only training needs it

    path = result_path(request, run_spec(request, row, seed))
    try:
        with memory_limit(limit_gib, request.device):
            trained = train_row(request, row, seed)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        ERR.print(f"{row.label} seed {seed}: needs more than {limit_gib:g} GiB", markup=False)
        write_json_atomically(path, {"row": row.label, "out_of_memory_gib": limit_gib})
        return
    document = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(trained.model, Imn):
        document["attention_entropies"] = _entropies(request, trained)
        write_json_atomically(path, document)
    if isinstance(trained.spec.settings, ImageSettings):
        document["new_items"] = new_items(request, trained)
        write_json_atomically(path, document)


def _entropies(request: Request, trained) -> list[float]:  # noqa: ANN001 - its type imports torch
    """Mean attention entropy of each walk, over the first batch of the test days."""
    from uic.models.samples.batch import Encoder  # noqa: PLC0415
    from uic.models.samples.reader import BatchPlan  # noqa: PLC0415

    days = trained.spec.days
    plan = BatchPlan(first=days.test_first, last=days.test_last, shuffle=True)
    batch = Encoder(trained.vocabulary).encode(next(request.reader.batches(plan)))
    return [float(value) for value in trained.model.attention_entropies(batch)]


@dataclass(frozen=True)
class _Job:
    model: str
    length: int
    limit_gib: float


def _costs(models: list[str], limit_gib: float) -> list[dict]:
    """One fresh process for each model and length: peaks do not add up, limits do not leak."""
    context = multiprocessing.get_context("spawn")
    found = []
    for model in models:
        for length in EFFICIENCY_LENGTHS:
            with context.Pool(1) as pool:
                cost = pool.apply(_cost, (_Job(model, length, limit_gib),))
            ERR.print(f"{model}, {length} events: {cost or 'out of memory'}", markup=False)
            found.append({"model": model, "length": length, "cost": cost})
    return found


def _cost(job: _Job) -> dict | None:
    from uic.jobs.experiments.sequence_cost import measure  # noqa: PLC0415

    cost = measure(job.model, job.length, job.limit_gib)
    return None if cost is None else asdict(cost)
