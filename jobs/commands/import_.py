"""`uic import`: other people's files into the event log."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo

import typer
from rich.markup import escape
from rich.table import Table

from uic.jobs.commands.imported_features import add_features, say_what_to_add
from uic.jobs.commands.next_item_options import Sequence, with_next_item_options
from uic.jobs.commands.options import shown_progress, takes_workspace
from uic.jobs.commands.table_options import ZoneOption, known_zone, with_table_columns
from uic.jobs.config.console import ERR, OUT
from uic.jobs.workspace.workspace import Workspace

if TYPE_CHECKING:
    from uic.pipelines.importers.next_item import NextItemOptions
    from uic.pipelines.importers.run import ImportSummary
    from uic.pipelines.importers.source import Importer
    from uic.pipelines.importers.table import TableColumns
    from uic.pipelines.log.publication import Publication

# A share above which rejects are no odd rows any more, but a misunderstanding.
_MANY_REJECTS = 0.05
# A test runs them (tests/system/test_import_page.py).
_TABLE_EXAMPLES = (
    "Examples (more: docs/import.md):\n\n"
    "uic import table shown --user-id user.id --item-id item.id --event-time at --time-unit iso "
    "--clicked clicked\n\n"
    "uic import table ratings.dat --separator :: --no-header --user-id 1 --item-id 2 "
    "--event-time 4 --time-unit s --where '`3` >= 4'"
)
app = typer.Typer(
    no_args_is_help=True,
    help="""Import behaviours and impressions into the event log (WORKSPACE/log).

    An import is published whole or not at all, as a new epoch; rows that cannot be used go to a
    rejects file with line and reason. Importing one file twice is refused.
    """,
)


AgainOption = Annotated[
    bool, typer.Option("--again", help="Import a file that the log already holds once more.")
]


AnyTimeOption = Annotated[
    bool,
    typer.Option(
        "--any-time",
        help="Take times before 2000 and later than tomorrow, too; else a row with one is left "
        "out (implausible_time), and a file of them is refused.",
    ),
]


ShownOption = Annotated[
    bool,
    typer.Option(
        "--shown",
        help="Keep each impression as an event, too, that parts of a record can read (`rates` of "
        "clicks over what was shown).",
    ),
]


@app.command()
@takes_workspace
def kuairand(
    *,
    directory: Annotated[Path, typer.Argument(help="Folder with impressions.parquet, …")],
    no_prior_history: Annotated[
        bool, typer.Option("--no-prior-history", help="Leave user_sequences.parquet out.")
    ] = False,
    again: AgainOption = False,
    any_time: AnyTimeOption = False,
    shown: ShownOption = False,
    workspace: Workspace,
) -> None:
    """KuaiRand: clicks are behaviours, the first tag is the category, every row an impression."""
    from uic.pipelines.importers.kuairand import KuaiRand

    if workspace.config.time_zone == "UTC":
        ERR.print(
            "remark: KuaiRand's days are those of Asia/Shanghai; `time_zone: Asia/Shanghai` in "
            "uic.yaml cuts the log by them"
        )
    _run(
        workspace,
        KuaiRand(directory, prior_history=not no_prior_history),
        again=again,
        any_time=any_time,
        shown=shown,
    )


@app.command("ali-brand")
@takes_workspace
@with_next_item_options()
def ali_brand(
    *,
    file: Annotated[Path, typer.Argument(help="behaviors.parquet")],
    next_item: "NextItemOptions | None",
    again: AgainOption = False,
    any_time: AnyTimeOption = False,
    workspace: Workspace,
) -> None:
    """Alibaba brand behaviours of 2013 (user, brand, type, date, row); brand is also category."""
    from uic.pipelines.importers.ali_brand import AliBrand

    _run(
        workspace,
        AliBrand(file, workspace.config.time_zone),
        again=again,
        any_time=any_time,
        next_item=next_item,
    )


@app.command()
@takes_workspace
@with_next_item_options(truncate=200)
def taobao(
    *,
    file: Annotated[Path, typer.Argument(help="UserBehavior.csv, or .csv.gz")],
    next_item: "NextItemOptions | None",
    again: AgainOption = False,
    any_time: AnyTimeOption = False,
    workspace: Workspace,
) -> None:
    """Taobao UserBehavior: user,item,category,pv|buy|cart|fav,seconds without a header."""
    from uic.pipelines.importers.taobao import Taobao

    _run(workspace, Taobao(file), again=again, any_time=any_time, next_item=next_item)


@app.command()
@takes_workspace
@with_next_item_options(sequence_of=Sequence.ALL)
def amazon(
    *,
    reviews: Annotated[Path, typer.Argument(help="Reviews, JSON lines, .gz or not")],
    meta: Annotated[Path, typer.Argument(help="Product data, JSON lines, .gz or not")],
    next_item: "NextItemOptions | None",
    again: AgainOption = False,
    any_time: AnyTimeOption = False,
    workspace: Workspace,
) -> None:
    """Amazon reviews (each a buy) with the categories of the product data; string ids."""
    from uic.pipelines.importers.amazon import Amazon

    _run(
        workspace,
        Amazon(reviews, meta, workspace.config.time_zone),
        again=again,
        any_time=any_time,
        next_item=next_item,
    )


@app.command()
@takes_workspace
def mind(
    *,
    behaviors: Annotated[
        list[Path], typer.Argument(help="behaviors.tsv of one part or of several, older first")
    ],
    news: Annotated[
        list[Path] | None, typer.Option(help="news.tsv, for categories. Repeatable.")
    ] = None,
    no_prior_history: Annotated[
        bool, typer.Option("--no-prior-history", help="Leave the histories out.")
    ] = False,
    time_zone: ZoneOption = None,
    again: AgainOption = False,
    any_time: AnyTimeOption = False,
    shown: ShownOption = False,
    workspace: Workspace,
) -> None:
    """MIND news: each news that was shown is an impression, clicks and histories are behaviours.

    Histories have an order and no times: they end before the first impression of all files, so
    that several parts are one import.
    """
    from uic.pipelines.importers.mind import MindNews

    importer = MindNews(
        behaviors,
        news or (),
        prior_history=not no_prior_history,
        time_zone=known_zone(time_zone),
        log_zone=workspace.config.time_zone,
    )
    _run(workspace, importer, again=again, any_time=any_time, shown=shown)


FilesArgument = Annotated[
    list[Path],
    typer.Argument(
        help="CSV or JSON Lines (also .gz, .zst, .bz2, .xz), Parquet or Arrow (Feather): files, "
        "folders or patterns in quotes; `day=…` folders give a column `day`"
    ),
]
ImpressionsOption = Annotated[
    bool,
    typer.Option("--impressions", help="With --clicked: no clicks; goes in beside any log."),
]


@app.command("table", epilog=_TABLE_EXAMPLES)
@takes_workspace
@with_next_item_options()
@with_table_columns
def table_(
    *,
    file: FilesArgument,
    columns: "TableColumns",
    impressions: ImpressionsOption = False,
    name: Annotated[str, typer.Option(help="Of the epoch: a-z, 0-9, - and _.")] = "table",
    next_item: "NextItemOptions | None",
    again: AgainOption = False,
    any_time: AnyTimeOption = False,
    shown: ShownOption = False,
    workspace: Workspace,
) -> None:
    """Any table: say which column is what. String ids get stable numbers.

    A field of a nested column is `outer.inner`; of a Kafka dump, the fields of `value` have their
    own names. Files are read in the order of their names, as one import.

    The summary shows the first and last time, the median of events a day and the share of each
    year: look at them. Fractions finer than a millisecond are cut off.

    Behaviours take the next place in the order of the log, so they are refused once it has a topic.
    Impressions have none: with --impressions, a file of them goes in beside any log, every night.
    """
    with shown_progress() as show:
        summary = workspace.import_table(
            file,
            columns,
            name=name,
            again=again,
            impressions_only=impressions,
            any_time=any_time,
            shown=shown,
            next_item=next_item,
            progress=show,
        )
    _show(workspace, summary)


def _run(
    workspace: Workspace,
    importer: "Importer",
    *,
    again: bool,
    any_time: bool,
    shown: bool = False,
    next_item: "NextItemOptions | None" = None,
) -> None:
    with shown_progress() as progress:
        summary = workspace.import_from(
            importer,
            again=again,
            any_time=any_time,
            shown=shown,
            next_item=next_item,
            progress=progress,
        )
    _show(workspace, summary)


def _show(workspace: Workspace, summary: "ImportSummary") -> None:
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
        table.add_row("left out", f"{summary.left_out:,} rows, by --where")
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
