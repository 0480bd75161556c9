"""`uic experiment`: the tables of the MIMN, IMN, LMN and DICM papers, on any samples."""

from typing import Annotated

import typer

from uic.jobs.commands.options import (
    DeviceOption,
    FirstTrainingDayOption,
    LastTrainingDayOption,
    SamplesOption,
    day_of,
    takes_workspace,
)
from uic.jobs.config.console import ERR, OUT
from uic.jobs.workspace.workspace import Workspace

TableArgument = Annotated[
    str,
    typer.Argument(
        help="table2 (models), table3 (slots of the NTM), table4 (MUR and MIU), or slots "
        "(figure 6: share of writes of each slot), of MIMN; imn-table1, imn-table2, "
        "imn-ablation, imn-efficiency, of IMN; lmn-table1, lmn-table2, of LMN; out-of-sync "
        "and big-sale (table 5), of MIMN; dicm-table2 (bytes of AMS and of parameter servers), "
        "dicm-table3 to dicm-table6, dicm-table8, dicm-figure5, of DICM: name the image "
        "features with --set images=NAME; features: models with and without features beside ids."
    ),
]
RepeatsOption = Annotated[int, typer.Option(min=1, help="Seeds 0 to so many less one.")]
RowsOption = Annotated[
    str | None, typer.Option(help="Only rows whose model is in this list, comma-separated.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="For every row whose model knows the key; may be repeated.",
    ),
]
TestDaysOption = Annotated[
    int, typer.Option(min=1, help="The last so many days are the test, not trained on.")
]
MemoryLimitOption = Annotated[
    float,
    typer.Option(
        min=0.0,
        help="Memory that a row may take; more is recorded as a result. "
        "GiB, 0 = no limit (IMN's paper: 10).",
    ),
]
TunedOption = Annotated[
    bool, typer.Option("--tuned", help="Each row with what `uic tune` found for its model.")
]
SaleSamplesOption = Annotated[
    str | None,
    typer.Option(
        help="big-sale: samples of the same days with sale days in them (`uic samples` with "
        "sale.behaviors and sale.impressions: keep); --samples are without."
    ),
]


@takes_workspace
def experiment(
    *,
    table: TableArgument,
    samples: SamplesOption,
    repeats: RepeatsOption = 3,
    rows: RowsOption = None,
    set_: SetOption = None,
    first: FirstTrainingDayOption = None,
    last: LastTrainingDayOption = None,
    test_days: TestDaysOption = 1,
    device: DeviceOption = "auto",
    memory_limit_gib: MemoryLimitOption = 10.0,
    sale_samples: SaleSamplesOption = None,
    tuned: TunedOption = False,
    workspace: Workspace,
) -> None:
    """Train the rows of a table of a paper and write Markdown, CSV and a plot.

    Figures are the mean and the standard deviation over the seeds, on the test days, of the epoch
    that the validation day chose, as in uic train. Beside them stand the standard error, and the
    difference to average pooling with its 95 % interval, by a bootstrap over users, paired: a row
    is above only where all of it is. Tables of models have popularity, repeat of the last, counters
    alone, mean + product and two pools among their rows. The paper's stand beside them, labelled as
    published on other data. A run that was done before is not done again, and a killed experiment
    goes on where it was.
    """
    paths = workspace.experiment(
        table, samples, repeats=repeats, rows=rows, settings=set_ or [], first=day_of(first),
        last=day_of(last), test_days=test_days, device=device, memory_limit_gib=memory_limit_gib,
        sale_samples=sale_samples, tuned=tuned,
    )  # fmt: skip
    OUT.print(paths[0].read_text(encoding="utf-8"), markup=False)
    ERR.print("written: " + ", ".join(str(path) for path in paths), markup=False)
