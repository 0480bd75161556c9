"""`uic import`: other people's files into the event log."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from uic.jobs.commands.next_item_options import Sequence, with_next_item_options
from uic.jobs.commands.options import shown_progress, takes_workspace
from uic.jobs.config.console import ERR, OUT
from uic.jobs.workspace.workspace import Workspace
from uic.models.errors import BadInputError

if TYPE_CHECKING:
    from uic.pipelines.importers.next_item import NextItemOptions
    from uic.pipelines.importers.run import ImportSummary
    from uic.pipelines.importers.source import Importer
    from uic.pipelines.importers.table import TimeUnit

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


@app.command()
@takes_workspace
def kuairand(
    *,
    directory: Annotated[Path, typer.Argument(help="Folder with impressions.parquet, …")],
    no_prior_history: Annotated[
        bool, typer.Option("--no-prior-history", help="Leave user_sequences.parquet out.")
    ] = False,
    again: AgainOption = False,
    workspace: Workspace,
) -> None:
    """KuaiRand: clicks are behaviours, the first tag is the category, every row an impression."""
    from uic.pipelines.importers.kuairand import KuaiRand

    if workspace.config.time_zone == "UTC":
        ERR.print(
            "remark: KuaiRand's days are those of Asia/Shanghai; `time_zone: Asia/Shanghai` in "
            "uic.yaml cuts the log by them"
        )
    _run(workspace, KuaiRand(directory, prior_history=not no_prior_history), again=again)


@app.command("ali-brand")
@takes_workspace
@with_next_item_options()
def ali_brand(
    *,
    file: Annotated[Path, typer.Argument(help="behaviors.parquet")],
    next_item: "NextItemOptions | None",
    again: AgainOption = False,
    workspace: Workspace,
) -> None:
    """Alibaba brand behaviours of 2013 (user, brand, type, date, row); brand is also category."""
    from uic.pipelines.importers.ali_brand import AliBrand

    _run(workspace, AliBrand(file, workspace.config.time_zone), again=again, next_item=next_item)


@app.command()
@takes_workspace
@with_next_item_options(truncate=200)
def taobao(
    *,
    file: Annotated[Path, typer.Argument(help="UserBehavior.csv, or .csv.gz")],
    next_item: "NextItemOptions | None",
    again: AgainOption = False,
    workspace: Workspace,
) -> None:
    """Taobao UserBehavior: user,item,category,pv|buy|cart|fav,seconds without a header."""
    from uic.pipelines.importers.taobao import Taobao

    _run(workspace, Taobao(file), again=again, next_item=next_item)


@app.command()
@takes_workspace
@with_next_item_options(sequence_of=Sequence.ALL)
def amazon(
    *,
    reviews: Annotated[Path, typer.Argument(help="Reviews, JSON lines, .gz or not")],
    meta: Annotated[Path, typer.Argument(help="Product data, JSON lines, .gz or not")],
    next_item: "NextItemOptions | None",
    again: AgainOption = False,
    workspace: Workspace,
) -> None:
    """Amazon reviews (each a buy) with the categories of the product data; string ids."""
    from uic.pipelines.importers.amazon import Amazon

    _run(workspace, Amazon(reviews, meta), again=again, next_item=next_item)


CategoryOption = Annotated[
    str | None, typer.Option("--category-id", metavar="COL", help="Default: category 0.")
]
BehaviorOption = Annotated[
    str | None, typer.Option("--behavior", metavar="COL", help="Default: all are clicks.")
]
BehaviorNameOption = Annotated[
    list[str] | None,
    typer.Option(metavar="FOUND=NAME", help="What the file says, e.g. pv=click. Repeatable."),
]
ClickedOption = Annotated[
    str | None,
    typer.Option(metavar="COL", help="Rows are impressions; a clicked one is also a click."),
]
ImpressionsOption = Annotated[
    bool,
    typer.Option("--impressions", help="With --clicked: no clicks; goes in beside any log."),
]
StringIdOption = Annotated[
    list[str] | None,
    typer.Option(metavar="KIND", help="CSV: user, item or category ids are texts. Repeatable."),
]
TimeUnitOption = Annotated[
    str, typer.Option(help="seconds, milliseconds (since 1970), or iso (UTC if it has no zone).")
]


@app.command("table")
@takes_workspace
@with_next_item_options()
def table_(
    *,
    file: Annotated[Path, typer.Argument(help="CSV with a header line (.gz or not), or Parquet")],
    user_id: Annotated[str, typer.Option("--user-id", metavar="COL")],
    item_id: Annotated[str, typer.Option("--item-id", metavar="COL")],
    event_time: Annotated[str, typer.Option("--event-time", metavar="COL")],
    category_id: CategoryOption = None,
    behavior: BehaviorOption = None,
    behavior_name: BehaviorNameOption = None,
    clicked: ClickedOption = None,
    impressions: ImpressionsOption = False,
    string_id: StringIdOption = None,
    time_unit: TimeUnitOption = "milliseconds",
    delimiter: Annotated[str, typer.Option(help="CSV: one character.")] = ",",
    name: Annotated[str, typer.Option(help="Of the epoch: a-z, 0-9, - and _.")] = "table",
    next_item: "NextItemOptions | None",
    again: AgainOption = False,
    workspace: Workspace,
) -> None:
    """Any CSV or Parquet file: say which column is what. String ids get stable numbers.

    Behaviours take the next place in the order of the log, so they are refused once it has a topic.
    Impressions have none: with --impressions, a file of them goes in beside any log, every night.
    """
    from uic.pipelines.importers.table import TableColumns

    columns = TableColumns(
        user_id=user_id,
        item_id=item_id,
        event_time=event_time,
        category_id=category_id,
        behavior=_no_click(behavior, clicked),
        clicked=clicked,
        behavior_names=dict(_pair(text) for text in behavior_name or []),
        string_ids=frozenset(_kind_of_id(kind) for kind in string_id or []),
        time_unit=_time_unit(time_unit),
        delimiter=_one_character(delimiter),
    )
    with shown_progress() as show:
        summary = workspace.import_table(
            file,
            columns,
            name=name,
            again=again,
            impressions_only=impressions,
            next_item=next_item,
            progress=show,
        )
    _show(workspace, summary)


def _no_click(behavior: str | None, clicked: str | None) -> str | None:
    if clicked is not None and behavior is not None:
        msg = "--clicked and --behavior: found both; a clicked impression is a click already"
        raise BadInputError(msg)
    return behavior


def _kind_of_id(kind: str) -> str:
    return _one_of("--string-id", kind, ("user", "item", "category"))


def _time_unit(text: str) -> "TimeUnit":
    from uic.pipelines.importers.table import TimeUnit

    return TimeUnit(_one_of("--time-unit", text, [unit.value for unit in TimeUnit]))


def _pair(text: str) -> tuple[str, str]:
    found, equals, name = text.partition("=")
    if not equals:
        msg = f"--behavior-name: found {text!r}, expected FOUND=NAME like pv=click"
        raise BadInputError(msg)
    return found, name


def _one_of(option: str, value: str, expected: "list[str] | tuple[str, ...]") -> str:
    if value not in expected:
        msg = f"{option}: found {value!r}, expected one of {', '.join(expected)}"
        raise BadInputError(msg)
    return value


def _one_character(text: str) -> str:
    plain = {"\\t": "\t", "tab": "\t"}.get(text, text)
    if len(plain) != 1 or not plain.isascii() or plain in '"\r\n':
        msg = f"--delimiter: found {text!r}, expected one character, or tab"
        raise BadInputError(msg)
    return plain


def _run(
    workspace: Workspace,
    importer: "Importer",
    *,
    again: bool,
    next_item: "NextItemOptions | None" = None,
) -> None:
    with shown_progress() as progress:
        summary = workspace.import_from(
            importer, again=again, next_item=next_item, progress=progress
        )
    _show(workspace, summary)


def _show(workspace: Workspace, summary: "ImportSummary") -> None:
    published = summary.publication
    epoch = published.epoch
    rejected = ", ".join(f"{rows:,} {reason}" for reason, rows in sorted(summary.rejects.items()))
    table = Table(show_header=False, box=None)
    table.add_row("behaviours", f"{published.behaviors:,}")
    table.add_row("impressions", f"{published.impressions:,}")
    table.add_row("users", f"{published.users:,}")
    table.add_row("items", f"{published.items:,}")
    table.add_row("days", f"{published.days:,} ({workspace.config.time_zone})")
    table.add_row("rejects", f"{rejected} in {summary.rejects_path}" if rejected else "0")
    if summary.next_item:
        counts = summary.next_item
        left_out = f"{counts.too_short:,} with too few events"
        if counts.without_negative:
            left_out += f", {counts.without_negative:,} that have every item"
        table.add_row("sequences", f"{counts.users:,} users, left out: {left_out}")
    if epoch is not None:
        table.add_row("epoch", f"{epoch.number} ({epoch.name}), {epoch.partitions} partitions")
    log = escape(str(workspace.context.log))
    table.add_row("written", f"{published.bytes / 1e6:,.1f} MB in {log}")
    table.add_row("manifest", escape(str(published.manifest)))
    OUT.print(table)
    if published.overlap:
        ERR.print(f"[yellow]remark:[/] {escape(published.overlap)}")
