"""`uic experiment` without its command line: which table is made by what."""

from dataclasses import replace
from pathlib import Path
from typing import Final

from uic.jobs.experiments.ams_bytes import AMS_TABLE, ams_table
from uic.jobs.experiments.costs import cost_table
from uic.jobs.experiments.deployment import BIG_SALE, OUT_OF_SYNC, big_sale, out_of_sync
from uic.jobs.experiments.intervals import with_intervals, with_simple_rows
from uic.jobs.experiments.report import write_table
from uic.jobs.experiments.runs import Request, check_assignments, run_rows
from uic.jobs.experiments.slots import slots_table
from uic.jobs.experiments.tables import COSTS, TABLES
from uic.models.errors import BadInputError
from uic.models.samples.reader import SamplesReader

SLOTS: Final = "slots"
EXPERIMENTS: Final = tuple(sorted((*TABLES, *COSTS.titles, AMS_TABLE)))


def run_experiment(
    name: str,
    request: Request,
    *,
    only: str | None = None,
    sale_reader: SamplesReader | None = None,
) -> list[Path]:
    """Make one table; the paths of its files, Markdown first.

    Args:
        name: one of `EXPERIMENTS`.
        request: samples, seeds, settings.
        only: models to run, comma-separated; None for all.
        sale_reader: for big-sale, the samples of the same days with the sale days in them.

    Raises:
        BadInputError: the table is unknown, `only` names no row of it, or samples do not fit.
        SettingError: no model knows a key of the request.
    """
    if name not in EXPERIMENTS:
        msg = f"experiment {name!r} is unknown; known: {', '.join(EXPERIMENTS)}"
        raise BadInputError(msg)
    check_assignments(request.assignments)
    folder = request.context.reports / "experiments"
    if name in COSTS.titles:
        models = _chosen(COSTS.models, only, name)
        return cost_table(folder, name, models, COSTS.lengths, request.memory_limit_gib)
    path_name, remark = f"{name}-{request.reader.name}", _remark(request)
    if name == AMS_TABLE:
        return ams_table(request, folder, path_name, remark)
    table = TABLES[name]
    if name == SLOTS:
        return slots_table(table, request, folder, path_name, remark)
    if name in {OUT_OF_SYNC, BIG_SALE}:  # what they compare are days of training
        request = replace(request, validation_days=0)
    if name == OUT_OF_SYNC:
        results = out_of_sync(table, request)
    elif name == BIG_SALE:
        results = big_sale(table, request, sale_reader)
        remark += f" With sale days: samples `{sale_reader.name if sale_reader else ''}`."
    else:
        rows = with_simple_rows(table.rows) if table.race else list(table.rows)
        models = _chosen([row.model for row in rows], only, name)
        results = run_rows(request, table, [row for row in rows if row.model in models])
        if not table.images:
            results = with_intervals(request, results)
    return write_table(folder, path_name, table, results, remark)


def _chosen(models: list[str] | tuple[str, ...], only: str | None, name: str) -> list[str]:
    """The models of a table that `--rows` asks for."""
    if only is None:
        return list(models)
    chosen = [model for model in models if model in only.split(",")]
    if not chosen:
        msg = f"--rows {only}: no such row in {name}; known: {', '.join(sorted(set(models)))}"
        raise BadInputError(msg)
    return chosen


def _remark(request: Request) -> str:
    """How to make the table again."""
    sets = "".join(f" --set {text}" for text in request.assignments)
    sets += " --tuned" if request.tuned else ""
    return (
        f"Samples `{request.reader.name}` (manifest {request.reader.manifest_sha256()[:12]}), "
        f"{request.repeats} seeds, the last {request.test_days} day(s) as test;"
        f" settings: `{sets.strip() or 'defaults'}`."
    )
