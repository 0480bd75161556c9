"""Reports of quality gates for people: a table of expectations, and rows that broke them."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from uic.jobs.config.console import ERR, OUT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uic.pipelines.quality.gates import CheckResult, GateReport


def show_failures(report: "GateReport", page: Path | None) -> None:
    """Print what failed, and one line for what did not, on standard error."""
    _show(report, page, everything=False)


def show_report(report: "GateReport", page: Path | None) -> None:
    """Print every expectation on standard output."""
    _show(report, page, everything=True)


def _show(report: "GateReport", page: Path | None, *, everything: bool) -> None:
    console = OUT if everything else ERR
    shown = report.results if everything else report.failed
    if shown:
        console.print(_table(report, shown))
    for result in report.failed:
        _print_examples(result)
    for remark in report.remarks:
        ERR.print(f"[yellow]remark:[/] {escape(remark)}")
    passed = len(report.results) - len(report.failed)
    seconds = report.seconds
    ERR.print(
        f"{report.name} ({report.subject}): {passed} of {len(report.results)} expectations "
        f"hold over {report.rows:,} rows; counted in {seconds['facts']:.1f} s, judged in "
        f"{seconds['judging']:.1f} s",
        markup=False,
    )
    if page is not None:
        console.print(f"Data Docs: {page}", markup=False)


def _table(report: "GateReport", results: "Sequence[CheckResult]") -> Table:
    from uic.pipelines.quality.suite import limits, number

    table = Table(title=f"{report.name}: {report.subject}", title_justify="left", box=SIMPLE_HEAD)
    for heading in ("", "expectation", "expected", "observed", "failed in"):
        table.add_column(heading, overflow="fold")
    for result in results:
        verdict, check = result.verdict, result.check
        failing = ", ".join(f"{name} ({number(value)})" for name, value in verdict.failing[:3])
        more = len(verdict.failing) - 3
        table.add_row(
            Text("pass", "green") if verdict.success else Text("FAIL", "bold red"),
            check.sentence,
            limits(check),
            "not judged" if verdict.observed is None else number(verdict.observed),
            Text(f"{failing} and {more} more" if more > 0 else failing),
        )
    return table


def _print_examples(result: "CheckResult") -> None:
    for example in result.examples:
        row = ", ".join(f"{name}={value}" for name, value in example.items())
        ERR.print(f"  {result.check.metric}: {row}", markup=False)
