"""`uic experiment`: the tables of the MIMN, IMN, LMN and DICM papers, on any samples."""

from datetime import datetime
from typing import Annotated

import typer

from uic.jobs.commands.options import ConfigOption, WorkspaceOption
from uic.jobs.config.console import ERR, OUT
from uic.jobs.config.context import DEFAULT_WORKSPACE, open_context

_DAY = ["%Y-%m-%d"]
SLOTS = "slots"


def register(root: typer.Typer) -> None:
    """Add this command to the command line."""
    root.command()(experiment)


def experiment(
    *,
    table: Annotated[
        str,
        typer.Argument(
            help="table2 (models), table3 (slots of the NTM), table4 (MUR and MIU), or slots "
            "(figure 6: share of writes of each slot), of MIMN; imn-table1, imn-table2, "
            "imn-ablation, imn-efficiency, of IMN; lmn-table1, lmn-table2, of LMN; out-of-sync "
            "and big-sale (table 5), of MIMN; dicm-table2 (bytes of AMS and of parameter servers), "
            "dicm-table3 to dicm-table6, dicm-table8, dicm-figure5, of DICM: name the image "
            "features with --set images=NAME."
        ),
    ],
    samples: Annotated[str, typer.Option(help="Name of the samples (`uic samples --out NAME`).")],
    repeats: Annotated[int, typer.Option(min=1, help="Seeds 0 to so many less one.")] = 3,
    rows: Annotated[
        str | None, typer.Option(help="Only rows whose model is in this list, comma-separated.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="For every row whose model knows the key; may be repeated.",
        ),
    ] = None,
    first: Annotated[
        datetime | None, typer.Option(formats=_DAY, help="Leave out days before this one.")
    ] = None,
    last: Annotated[
        datetime | None, typer.Option(formats=_DAY, help="Leave out days after this one.")
    ] = None,
    test_days: Annotated[
        int, typer.Option(min=1, help="The last so many days are the test, not trained on.")
    ] = 1,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
    memory_limit_gib: Annotated[
        float,
        typer.Option(
            min=0.0,
            help="IMN and LMN: memory that a row may take; more is recorded as a result. "
            "GiB, 0 = no limit (paper: 10).",
        ),
    ] = 10.0,
    sale_samples: Annotated[
        str | None,
        typer.Option(
            help="big-sale: samples of the same days with sale days in them (`uic samples` with "
            "sale.behaviors and sale.impressions: keep); --samples are without."
        ),
    ] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Train the rows of a table of a paper and write Markdown, CSV and a plot.

    Figures are the mean and the standard deviation over the seeds, on the test days, after the
    last epoch. The paper's stand beside them, labelled as published on other data. A run that was
    done before is not done again, and a killed experiment goes on where it was.
    """
    context = open_context(workspace, config)
    from uic.jobs.experiments.deployment import DEPLOYMENT, run_deployment
    from uic.jobs.experiments.family import FAMILY, run_family
    from uic.jobs.experiments.report import write_table
    from uic.jobs.experiments.runs import Request, check_assignments, run_rows
    from uic.jobs.experiments.tables import TABLES
    from uic.jobs.training.run import check_device, open_samples
    from uic.models.errors import BadInputError

    known = [*TABLES, SLOTS, *FAMILY, *DEPLOYMENT]
    if table not in known:
        msg = f"experiment {table!r} is unknown; known: {', '.join(known)}"
        raise BadInputError(msg)
    check_assignments(set_ or [])
    request = Request(
        context=context,
        reader=open_samples(context, samples),
        repeats=repeats,
        assignments=set_ or [],
        test_days=test_days,
        first=first.date() if first else None,
        last=last.date() if last else None,
        device=check_device(device),
    )
    folder = context.reports / "experiments"
    remark = _remark(request)
    if table in FAMILY:
        paths = run_family(table, request, folder, remark, only=rows, limit_gib=memory_limit_gib)
    elif table in DEPLOYMENT:
        with_sale = None if sale_samples is None else open_samples(context, sale_samples)
        paths = run_deployment(table, request, with_sale, folder, remark)
    elif table == SLOTS:
        paths = _slots(request, folder, remark)
    else:
        wanted = None if rows is None else set(rows.split(","))
        chosen = [row for row in TABLES[table].rows if wanted is None or row.model in wanted]
        if not chosen:
            known = sorted({row.model for row in TABLES[table].rows})
            msg = f"--rows {rows}: no such row in {table}; known: {', '.join(known)}"
            raise BadInputError(msg)
        results = run_rows(request, chosen)
        name = f"{table}-{request.reader.name}"
        paths = write_table(folder, name, TABLES[table].title, results, remark)
    OUT.print(paths[0].read_text(encoding="utf-8"), markup=False)
    ERR.print("written: " + ", ".join(str(path) for path in paths), markup=False)


def _remark(request) -> str:  # noqa: ANN001 - its type imports torch
    """How to make the table again."""
    sets = "".join(f" --set {text}" for text in request.assignments)
    return (
        f"Samples `{request.reader.name}` (manifest {request.reader.manifest_sha256()[:12]}), "
        f"{request.repeats} seeds, the last {request.test_days} day(s) as test;"
        f" settings: `{sets.strip() or 'defaults'}`."
    )


def _slots(request, folder, remark):  # noqa: ANN001, ANN202 - their types import torch
    """Figure 6: train both memories once and fold the test days."""
    from uic.jobs.experiments.report import write_slots
    from uic.jobs.experiments.runs import train_row
    from uic.jobs.experiments.tables import SLOT_ROWS
    from uic.models.rankers.slot_writes import slot_shares
    from uic.models.samples.batch import Encoder
    from uic.models.samples.reader import BatchPlan

    shares = {}
    for row in SLOT_ROWS:
        trained = train_row(request, row, 0)
        days = trained.spec.days
        plan = BatchPlan(first=days.test_first, last=days.test_last, shuffle=False)
        shares[row.label] = slot_shares(
            trained.model, request.reader.batches(plan), Encoder(trained.vocabulary), 2048
        )
    return write_slots(folder, f"{SLOTS}-{request.reader.name}", shares, remark)
