"""The tables of the DICM paper as lists of runs, each beside the published figures.

`--set images=NAME` names the image features for all rows. Table 5 starts from a model of the days
before the last training day, as if trained the day before. Figure 5 prints no values. The models
of table 8 are those of the pre-rank; a row whose model is not in the catalogue is published only.
"""

from typing import Final

from uic.jobs.experiments.family_tables import FamilyRow, FamilyTable
from uic.models.training.warm_up import WarmUp

_FULL: Final = ("GAUC", "GAUC gain", "AUC", "AUC gain")
_GAUC: Final = ("GAUC",)
_BASELINE: Final = ("ad_image=false", "behavior_images=false", "aggregator=sum")
_AD: Final = ("behavior_images=false",)


def _row(label: str, settings: tuple[str, ...], *printed: str) -> FamilyRow:
    return FamilyRow(label, "dicm", settings, printed=printed)


def _warm(label: str, warm_up: WarmUp, *printed: str) -> FamilyRow:
    return FamilyRow(label, "dicm", (), warm_up=warm_up, printed=printed)


def _basic(label: str, net: str) -> tuple[FamilyRow, FamilyRow]:
    chosen = f"basic_net={net}"
    return (
        _row(label, (*_BASELINE, chosen), "-"),
        _row(f"{label} with images", (chosen,), "-"),
    )


DICM_TABLES: Final = {
    "dicm-table3": FamilyTable(
        "Ad image and behaviour images (DICM, table 3)",
        _FULL,
        (
            _row("baseline", _BASELINE, "0.6205", "-", "0.6758", "-"),
            _row("ad image", _AD, "0.6235", "0.0030", "0.6772", "0.0014"),
            _row("behavior images", ("ad_image=false",), "0.6219", "0.0014", "0.6768", "0.0010"),
            _row("joint", (), "0.6260", "0.0055", "0.6795", "0.0037"),
        ),
        images=True,
    ),
    "dicm-table4": FamilyTable(
        "Aggregators of behaviour images (DICM, table 4)",
        _GAUC,
        (
            _row("baseline", _BASELINE, "0.6205"),
            _row("Only ad images", _AD, "0.6235"),
            _row("Concatenation", ("aggregator=concatenate",), "0.6232"),
            _row("MaxPooling", ("aggregator=max",), "0.6236"),
            _row("SumPooling", ("aggregator=sum",), "0.6248"),
            _row("AttentivePooling", ("aggregator=attentive",), "0.6257"),
            _row("MultiQueryAttentivePooling", ("aggregator=multi_query",), "0.6260"),
        ),
        images=True,
    ),
    "dicm-table5": FamilyTable(
        "Warm-up from the day before (DICM, table 5)",
        _GAUC,
        (
            _warm("Non", WarmUp.NONE, "0.6260"),
            _warm("Partial", WarmUp.PARTIAL, "0.6283"),
            _warm("Full", WarmUp.FULL, "0.6230"),
        ),
        images=True,
    ),
    "dicm-table6": FamilyTable(
        "DICM with partial warm-up (DICM, table 6)",
        _FULL,
        (
            _row("baseline", _BASELINE, "0.6205", "-", "0.6758", "-"),
            _warm("DICM", WarmUp.PARTIAL, "0.6283", "0.0078", "0.6814", "0.0055"),
        ),
        images=True,
    ),
    "dicm-figure5": FamilyTable(
        "Basic nets with and without images (DICM, figure 5)",
        _GAUC,
        (*_basic("LR", "lr"), *_basic("Embedding&MLP", "mlp"), *_basic("DIN", "din")),
        images=True,
    ),
    "dicm-table8": FamilyTable(
        "Pre-rank (DICM, table 8)",
        _FULL,
        (
            FamilyRow(
                "baseline",
                "prerank",
                ("ad_image=false", "behavior_images=false"),
                printed=("0.6165", "-", "0.6730", "-"),
            ),
            FamilyRow("DICM", "prerank", (), printed=("0.6225", "0.0060", "0.6771", "0.0041")),
        ),
        images=True,
    ),
}
