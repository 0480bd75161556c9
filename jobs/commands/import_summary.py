"""What an import tells a person: counts, times, what was left out, and what to look at."""

from datetime import datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from rich.markup import escape
from rich.table import Table

from uic.jobs.commands.imported_features import add_features, say_what_to_add
from uic.jobs.config.console import ERR, OUT
from uic.jobs.workspace.workspace import Workspace

if TYPE_CHECKING:
    from uic.pipelines.importers.run import ImportSummary
    from uic.pipelines.log.publication import Publication

# A share above which rejects are no odd rows any more, but a misunderstanding.
_MANY_REJECTS = 0.05


def show_import(workspace: Workspace, summary: "ImportSummary") -> None:
    """Print counts, times, what was left out, and where it is."""
    published = summary.publication
    epoch = published.epoch
    rejected = ", ".join(f"{rows:,} {reason}" for reason, rows in sorted(summary.rejects.items()))
    table = Table(show_header=False, box=None)
    table.add_row("behaviours", f"{published.behaviors:,}")
    table.add_row("impressions", f"{published.impressions:,}")
    if published.shown:
        table.add_row("shown", f"{published.shown:,} impressions as events")
    table.add_row("users", f"{published.users:,}")
    table.add_row("items", f"{published.items:,}")
    table.add_row("days", f"{published.days:,} ({workspace.config.time_zone})")
    for label, text in _times(published, workspace.config.time_zone):
        table.add_row(label, text)
    table.add_row("rejects", f"{rejected} in {summary.rejects_path}" if rejected else "0")
    if summary.left_out:
        table.add_row("left out", f"{summary.left_out:,} rows, by {summary.left_out_by}")
    if summary.first_reject:
        table.add_row("first reject", escape(summary.first_reject))
    if summary.next_item:
        counts = summary.next_item
        left_out = f"{counts.too_short:,} with too few events"
        if counts.without_negative:
            left_out += f", {counts.without_negative:,} that have every item"
        table.add_row("sequences", f"{counts.users:,} users, left out: {left_out}")
    if published.repeated:
        table.add_row("repeated", f"{published.repeated:,} rows equal an earlier one; all count")
    if epoch is not None:
        table.add_row("epoch", f"{epoch.number} ({epoch.name}), {epoch.partitions} partitions")
    log = escape(str(workspace.context.log))
    table.add_row("written", f"{published.bytes / 1e6:,.1f} MB in {log}")
    table.add_row("manifest", escape(str(published.manifest)))
    add_features(table, summary.features)
    OUT.print(table)
    say_what_to_add(summary.features)
    _remark(summary)


def _remark(summary: "ImportSummary") -> None:
    """What a person should look at, on standard error."""
    published, lost = summary.publication, sum(summary.rejects.values())
    total = published.behaviors + published.impressions + lost
    if lost > total * _MANY_REJECTS:
        ERR.print(
            f"warning: {lost:,} of {total:,} rows ({lost / total:.0%}) were left out; look at the "
            "first reject: an option of that column may say what its values are"
        )
    if summary.rejects.get("not_utf8"):
        ERR.print("remark: rows that are not UTF-8: `iconv -f latin1 -t utf-8 FILE` converts them")
    for remark in summary.remarks:
        ERR.print(f"remark: {escape(remark)}")
    if published.overlap:
        ERR.print(f"[yellow]remark:[/] {escape(published.overlap)}")


def _times(published: "Publication", zone: str) -> "list[tuple[str, str]]":
    """When the events were, as lines of the summary."""
    span = published.span
    if span is None:
        return []
    first, last = (
        f"{datetime.fromtimestamp(time // 1000, ZoneInfo(zone)):%Y-%m-%d %H:%M:%S}"
        for time in (span.first_ms, span.last_ms)
    )
    years = ", ".join(f"{year}: {share:.1%}" for year, share in span.share_by_year.items())
    median = f"{span.median_rows_a_day:,.1f}".removesuffix(".0")
    return [
        ("first time", first),
        ("last time", last),
        ("a day", f"{median} {span.what} (median)"),
        ("years", years),
    ]
