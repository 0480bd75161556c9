"""`uic import`: other people's files into the event log."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from uic.jobs.commands.import_summary import show_import
from uic.jobs.commands.next_item_options import Sequence, with_next_item_options
from uic.jobs.commands.options import shown_progress, takes_workspace
from uic.jobs.commands.table_options import ZoneOption, known_zone, with_table_columns
from uic.jobs.config.console import ERR
from uic.jobs.workspace.workspace import Workspace

if TYPE_CHECKING:
    from uic.pipelines.importers.next_item import NextItemOptions
    from uic.pipelines.importers.source import Importer
    from uic.pipelines.importers.table import TableColumns

# A test runs them (tests/system/test_import_page.py).
_TABLE_EXAMPLES = (
    "Examples (more: docs/import.md):\n\n"
    "uic import table shown --user-id user.id --item-id item.id --event-time at --time-unit iso "
    "--clicked clicked\n\n"
    "uic import table ml-1m/ratings.dat --separator :: --no-header --user-id 1 --item-id 2 "
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


@app.command()
@takes_workspace
@with_next_item_options()
def movielens(
    *,
    path: Annotated[Path, typer.Argument(help="ratings.dat, ratings.csv, u.data, or its folder")],
    least_rating: Annotated[
        float, typer.Option(min=0, help="Stars from which on a rating is a click.")
    ] = 4,
    next_item: "NextItemOptions | None",
    again: AgainOption = False,
    any_time: AnyTimeOption = False,
    workspace: Workspace,
) -> None:
    """MovieLens of any size: good ratings are clicks, the first genre is the category.

    Genres are those of movies.dat or movies.csv beside the ratings; without it there are none.
    """
    from uic.pipelines.importers import public_sets

    importer = public_sets.movielens(path, least_rating, workspace.config.time_zone)
    _run(workspace, importer, again=again, any_time=any_time, next_item=next_item)


@app.command()
@takes_workspace
@with_next_item_options()
def retailrocket(
    *,
    path: Annotated[Path, typer.Argument(help="events.csv, or its folder")],
    next_item: "NextItemOptions | None",
    again: AgainOption = False,
    any_time: AnyTimeOption = False,
    workspace: Workspace,
) -> None:
    """RetailRocket: views are clicks, addtocart is a cart, a transaction a buy; no categories."""
    from uic.pipelines.importers import public_sets

    importer = public_sets.retailrocket(path, workspace.config.time_zone)
    _run(workspace, importer, again=again, any_time=any_time, next_item=next_item)


@app.command()
@takes_workspace
@with_next_item_options()
def yoochoose(
    *,
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH…", help="yoochoose-clicks.dat and yoochoose-buys.dat, or their folder"
        ),
    ],
    next_item: "NextItemOptions | None",
    again: AgainOption = False,
    any_time: AnyTimeOption = False,
    workspace: Workspace,
) -> None:
    """Yoochoose (RecSys Challenge 2015): a session is a user; clicks, and buys if they are named.

    Categories are texts (S is a special offer, 0 none); a buy has that of the file's last click on
    its item.
    """
    from uic.pipelines.importers import public_sets

    importer = public_sets.yoochoose(paths, workspace.config.time_zone)
    _run(workspace, importer, again=again, any_time=any_time, next_item=next_item)


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
    show_import(workspace, summary)


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
    show_import(workspace, summary)
