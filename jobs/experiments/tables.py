"""The tables of the MIMN paper as lists of runs, each beside the figures that were published.

Published AUCs were measured on other data (Taobao and Amazon Books, prepared by the authors); they
stand beside ours for the order of the rows, never to be compared with ours as numbers.
"""

from dataclasses import dataclass, field
from typing import Final

from uic.models.training.warm_up import WarmUp

# Published mean and standard deviation of AUC: Taobao, then Amazon Books.
Published = tuple[float, float, float, float]


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        label: as the paper has it.
        model: name in the catalogue; a row whose model is not there is published only.
        settings: `key=value` of this row.
        published: the paper's figures; None for a row that the paper does not have.
        warm_up: what the row starts from: nothing, or a model of the days before the last one.
    """

    label: str
    model: str
    settings: tuple[str, ...] = ()
    published: Published | None = None
    warm_up: WarmUp = field(default=WarmUp.NONE, kw_only=True)


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        title: for its head line.
        rows: in the paper's order.
    """

    title: str
    rows: tuple[Row, ...]


_NTM: Final = ("utilization=false", "induction=false")

TABLES: Final = {
    "table2": Table(
        "Models (MIMN, table 2)",
        (
            Row("Embedding&MLP", "sum_pooling", (), (0.8709, 0.00184, 0.7367, 0.00043)),
            Row("average pooling", "average_pooling"),
            Row("DIN", "din", (), (0.8833, 0.00220, 0.7419, 0.00049)),
            Row("DIN, last 50 events", "din", ("history_limit=50",)),
            Row("GRU4REC", "gru4rec", (), (0.9006, 0.00094, 0.7411, 0.00185)),
            Row("ARNN", "arnn", (), (0.9066, 0.00420, 0.7420, 0.00029)),
            Row("RUM", "rum", (), (0.9018, 0.00253, 0.7428, 0.00041)),
            Row("DIEN", "dien", (), (0.9081, 0.00221, 0.7481, 0.00102)),
            Row("MIMN", "mimn", (), (0.9179, 0.00325, 0.7593, 0.00150)),
        ),
    ),
    "table3": Table(
        "Slots of the basic NTM (MIMN, table 3)",
        (
            Row("4 slots", "mimn", (*_NTM, "slots=4"), (0.9046, 0.00135, 0.7522, 0.00231)),
            Row("6 slots", "mimn", (*_NTM, "slots=6"), (0.9052, 0.00202, 0.7503, 0.00120)),
            Row("8 slots", "mimn", (*_NTM, "slots=8"), (0.9070, 0.00186, 0.7486, 0.00071)),
        ),
    ),
    "table4": Table(
        "Utilisation regularisation and induction (MIMN, table 4)",
        (
            Row("NTM", "mimn", _NTM, (0.9070, 0.00186, 0.7486, 0.00071)),
            Row("NTM + MUR", "mimn", ("induction=false",), (0.9112, 0.00267, 0.7551, 0.00121)),
            Row("NTM + MUR + MIU", "mimn", (), (0.9179, 0.00208, 0.7593, 0.00296)),
        ),
    ),
}

# Figure 6 compares these two, at 8 slots.
SLOT_ROWS: Final = (
    Row("basic NTM", "mimn", _NTM),
    Row("with MUR", "mimn", ("induction=false",)),
)
