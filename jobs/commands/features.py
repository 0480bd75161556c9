"""`uic features`: what `features.yaml` says, what the data says of it, and users' in the store."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from uic.jobs.commands.options import ExcludeOption, shown_progress, takes_workspace
from uic.jobs.config.console import ERR, OUT, printable, working
from uic.jobs.workspace.workspace import Workspace
from uic.models.errors import BadInputError

if TYPE_CHECKING:
    from uic.pipelines.quality.feature_check import FeatureReport

app = typer.Typer(
    no_args_is_help=True,
    help="Features beside ids: those of users, items and impressions (docs/features.md).",
)

FileOption = Annotated[
    Path | None,
    typer.Option("--features", metavar="FILE", help="Default: WORKSPACE/features.yaml."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
@takes_workspace
def show(*, features: FileOption = None, as_json: JsonOption = False, workspace: Workspace) -> None:
    """Print the features that the file names, with every field that applies."""
    found = workspace.features.read(features)
    if as_json:
        OUT.print_json(json.dumps(found.to_json()))
        return
    table = Table("feature", "type", "column", "fields", box=SIMPLE_HEAD)
    for named, entry in zip(found, found.to_json(), strict=True):
        kept = {key: value for key, value in entry.items() if key not in ("owner", "name", "type")}
        fields = ", ".join(f"{key} {value}" for key, value in kept.items() if value is not None)
        table.add_row(named.key, entry["type"], escape(named.column), escape(fields))
    OUT.print(table)


@app.command()
@takes_workspace
def check(
    *, features: FileOption = None, as_json: JsonOption = False, workspace: Workspace
) -> None:
    """Hold each feature against the log's impressions; exit status 3 if one cannot be used.

    Users and items are joined as of each impression, as `uic samples` joins them. Tells the share
    of the log's users or items (ids) and of impressions (shown) with a value, how many categories
    there are, and by how much the worst day differs from those before it (PSI, above 0.25 is
    another population). WORKSPACE/reports/features.html has more, day by day.
    """
    from uic.pipelines.quality.feature_check import refuse_unusable

    with working("reading the impressions"):
        reports, page = workspace.features.check(features)
    if as_json:
        OUT.print_json(json.dumps([one.to_json() for one in reports]))
    else:
        _show(reports)
        OUT.print(f"page: {page}", markup=False)
    refuse_unusable(reports)


@app.command()
@takes_workspace
def pull(*, features: FileOption = None, workspace: Workspace) -> None:
    """Read sources that are feature views of Feast into tables beside the file.

    `uic features check`, `uic features load` and `uic samples` do it first; run it when the ranking
    service is to see what an item's view has now.
    """
    with working("reading from Feast"):
        pulled = workspace.features.pull(features)
    for view, rows in pulled.items():
        OUT.print(f"{view}: {rows:,} rows", markup=False)
    if not pulled:
        OUT.print("no source is a feature view (sources.user.feast, sources.item.feast)")


@app.command()
@takes_workspace
def load(*, workspace: Workspace) -> None:
    """Write the users' features that hold now into the store, for the ranking service.

    Only rows that differ are written; a row that was pushed and holds from later stays. Run it
    when the table of users has changed: `uic serve` reads a row with the memory, in one round trip.
    """
    with shown_progress() as progress:
        loaded = workspace.features.load(progress=progress)
    OUT.print(
        f"{loaded.users:,} users: {loaded.written:,} written, {loaded.unchanged:,} unchanged, "
        f"{loaded.newer:,} newer in the store, {loaded.forgotten:,} forgotten, "
        f"{loaded.deleted:,} deleted"
        + (f", {loaded.damaged:,} damaged ones replaced" if loaded.damaged else "")
    )


@app.command()
@takes_workspace
def push(
    user: Annotated[str, typer.Argument(help="User id, as the log's own system has it.")],
    values: Annotated[list[str], typer.Argument(help="NAME=VALUE; JSON, or a text.")],
    *,
    workspace: Workspace,
) -> None:
    """Write some features of one user into the store, as of now; the others stay."""
    given = dict(_pair(value) for value in values)
    landed = workspace.features.push(user, given)
    said = "written" if landed else "not written: forgotten, or newer there"
    OUT.print(f"user {printable(user)}: {said}", markup=False)


@app.command()
@takes_workspace
def asof(
    rows: Annotated[Path, typer.Argument(help="Parquet: user_id, time, and item_id if wanted.")],
    out: Annotated[Path, typer.Argument(help="Parquet file to write.")],
    *,
    state: Annotated[
        Path | None, typer.Option("--state", help="Default: WORKSPACE/state.yaml.")
    ] = None,
    exclude: ExcludeOption = None,
    keep_sale_days: Annotated[
        bool, typer.Option("--keep-sale-days", help="Behaviours of sale days are seen, too.")
    ] = False,
    workspace: Workspace,
) -> None:
    """Write what records' parts said just before each row's time, from the log.

    A row sees the events whose log time is earlier than its time, strictly; one that came late is
    seen from when it came. OUT has the rows in their order, with a column a feature. Sale days are
    left out as the section `sale` of the settings says, as samples and memories do.
    """
    with working("folding the log up to each row"):
        found = workspace.state.as_of(
            rows, out, state, exclude=exclude, keep_sale_days=keep_sale_days
        )
    OUT.print(
        f"{out}: {found.rows:,} rows, {found.features} features; "
        f"{found.with_events:,} rows of users with events before",
        markup=False,
    )


def _pair(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        msg = f"{text}: expected NAME=VALUE"
        raise BadInputError(msg)
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _show(reports: "list[FeatureReport]") -> None:
    from uic.jobs.report.features import HEAD, row_of

    table = Table(box=SIMPLE_HEAD)
    for head in HEAD:
        table.add_column(head, no_wrap=head == "feature")
    for one in reports:
        table.add_row(*map(escape, row_of(one)))
    OUT.print(table)
    for one in reports:
        for fault in one.faults:
            ERR.print(f"[red]{one.key} cannot be used:[/] {escape(fault)}")
        for remark in one.remarks:
            ERR.print(f"[yellow]remark:[/] {one.key}: {escape(remark)}")
