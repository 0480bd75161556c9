"""What an import tells of the features that came in with it."""

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from uic.jobs.config.console import ERR

if TYPE_CHECKING:
    from uic.pipelines.importers.features import FeatureSummary


def add_features(table: Table, summary: "FeatureSummary | None") -> None:
    """Say what came in beside ids, in lines of the summary."""
    if summary is None:
        return
    for one in summary.features:
        share = f"{one.with_value:.1%} of rows have a value"
        label = f"{one.owner.value} feature"
        table.add_row(label, f"{one.name}: {one.feature.type.value}, {share}")
    for path, rows in summary.rows.items():
        table.add_row("features", escape(f"{rows:,} rows in {path}"))
    some = ", but not all of them" if summary.to_add else ""
    table.add_row("features", escape(f"named in {summary.file}{some}"))


def say_what_to_add(summary: "FeatureSummary | None") -> None:
    """Tell what a person's own `features.yaml` lacks, on standard error."""
    if summary is not None and summary.to_add:
        ERR.print(f"remark: {summary.file} is yours and stays as it is; add to it:", markup=False)
        ERR.print(summary.to_add, markup=False, highlight=False, soft_wrap=True)
