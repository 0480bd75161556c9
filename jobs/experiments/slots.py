"""Share of writes that each slot of a memory receives (MIMN, figure 6)."""

from pathlib import Path
from typing import cast

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from uic.jobs.experiments.report import BLUE, GREY, ORANGE, save_figure, write_cells
from uic.jobs.experiments.runs import Request, train_row
from uic.jobs.experiments.tables import Table
from uic.models.errors import BadInputError
from uic.models.rankers.mimn import Mimn
from uic.models.rankers.slot_writes import slot_use
from uic.models.samples.batch import Encoder
from uic.models.samples.reader import BatchPlan

_FOLDED_USERS = 2048


def slots_table(table: Table, request: Request, folder: Path, name: str, remark: str) -> list[Path]:
    """Train each row once and fold the test days; the paths of Markdown, CSV and picture."""
    shares: dict[str, NDArray[np.float64]] = {}
    for row in table.rows:
        trained = train_row(request, row, 0)
        days = trained.spec.days
        plan = BatchPlan(first=days.test_first, last=days.test_last, shuffle=False)
        use = slot_use(
            cast("Mimn", trained.model),
            request.reader.batches(plan),
            Encoder(trained.vocabulary),
            _FOLDED_USERS,
        )
        if use is None:
            msg = f"{request.reader.root}: no event in the histories of the test days"
            raise BadInputError(msg)
        shares[row.label] = np.array(use.shares)
    slots = max(len(values) for values in shares.values())
    head = ["model", *(f"slot_{number + 1}" for number in range(slots))]
    cells = [[label, *(f"{share:.3f}" for share in row)] for label, row in shares.items()]
    numbers = [[label, *row.tolist()] for label, row in shares.items()]
    paths = write_cells(folder, name, (table.title, remark), [head, *cells], [head, *numbers])
    return [*paths, save_figure(_figure(shares, slots), folder / f"{name}.png")]


def _figure(shares: dict[str, NDArray[np.float64]], slots: int) -> Figure:
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(shares)
    for index, (label, values) in enumerate(shares.items()):
        colour, hatch = ((ORANGE, ""), (BLUE, "//"))[index % 2]
        left = np.arange(slots) + (index - (len(shares) - 1) / 2) * width
        axes.bar(left, values, width, label=label, color=colour, hatch=hatch, edgecolor="white")
    axes.axhline(1 / slots, color=GREY, linestyle="--", linewidth=1, label="even")
    axes.set_xticks(np.arange(slots), [str(number + 1) for number in range(slots)])
    axes.set_xlabel("slot")
    axes.set_ylabel("share of writes")
    axes.legend(frameon=False)
    return figure
