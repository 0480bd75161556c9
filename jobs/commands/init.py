"""`uic init`: four questions, and a workspace is there.

Each question is an option, too. Without a terminal, what is not said is an error that names it.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer

from uic.jobs.commands.options import WorkspaceOption
from uic.jobs.commands.table_options import known_zone, names_of, separator_of
from uic.jobs.config.console import ERR, OUT, working
from uic.jobs.config.context import DEFAULT_WORKSPACE
from uic.jobs.workspace.starting import (
    DEFAULT_STATE,
    EMBEDDED,
    NO_STATE,
    StartAnswers,
    plan_start,
    read_columns,
    read_servers,
    read_state,
    refuse_existing,
    said_columns,
    write_start,
)
from uic.models.errors import BadInputError

if TYPE_CHECKING:
    from uic.jobs.workspace.starting import StartPlan
    from uic.pipelines.importers.survey import TableLook
    from uic.pipelines.importers.text import TextForm

_DATA: Final = (".csv", ".tsv", ".dat", ".jsonl", ".ndjson", ".json", ".parquet", ".feather")
_PACKED: Final = (".gz", ".zst", ".bz2", ".xz")
Answer = TypeVar("Answer")
DataOption = Annotated[
    str | None,
    typer.Option(
        help="Where the data is: a file, a folder or a pattern, as of `uic import table`."
    ),
]
ColumnsOption = Annotated[
    str | None,
    typer.Option(
        metavar="ROLE=COL…",
        help="Which column is what: user_id, item_id, event_time, category_id, behavior or "
        "clicked; further ones are user_feature, item_feature, context, event_feature.",
    ),
]
ServersOption = Annotated[
    str | None,
    typer.Option(metavar="WHERE", help="embedded, or redis=HOST:PORT kafka=HOST:PORT."),
]
StateOption = Annotated[
    str | None,
    typer.Option("--state", metavar="WHICH", help="default, none, or a state.yaml to begin with."),
]
TimeUnitOption = Annotated[
    str | None, typer.Option(metavar="UNIT|FORMAT", help="Of the times, where it cannot be told.")
]
ZoneOption = Annotated[
    str,
    typer.Option(metavar="ZONE", help="Whose days the log has, e.g. Europe/London."),
]
SeparatorOption = Annotated[
    str | None, typer.Option(metavar="TEXT", help="Of a CSV; default: as its first line looks.")
]
NoHeaderOption = Annotated[bool, typer.Option("--no-header", help="CSV: columns are 1, 2, 3, …")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Take the defaults; do not ask.")]
NamesOption = Annotated[
    str | None, typer.Option(metavar="A,B,…", help="CSV without a header: names of its columns.")
]


def init(
    *,
    data: DataOption = None,
    columns: ColumnsOption = None,
    servers: ServersOption = None,
    state: StateOption = None,
    time_unit: TimeUnitOption = None,
    time_zone: ZoneOption = "UTC",
    separator: SeparatorOption = None,
    no_header: NoHeaderOption = False,
    names: NamesOption = None,
    yes: YesOption = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Begin with your own data: four questions, each also an option, and the next three commands.

    Writes uic.yaml, state.yaml and, of columns beside ids, features.yaml into WORKSPACE, where the
    other commands find them. Columns are guessed by their names and by the first values, and the
    data is read once to the end, for its days and for ids that are texts; it stays as it is. No
    file is written over.

    Example: uic init --data events.csv --yes

    Example: uic init --data events.csv --columns 'user_id=visitorid item_id=itemid
    event_time=timestamp' --servers redis=10.0.0.5:6379 --state none -w var/shop
    """
    refuse_existing(workspace)
    form = _form(separator, names, no_header=no_header)
    zone = known_zone(time_zone) or "UTC"
    answers = _answers(
        {"data": data, "columns": columns, "servers": servers, "state": state},
        lambda text: _look(text, form, any_separator=separator is None),
        zone,
        yes=yes,
    )
    os.umask(0o077)  # as every command does unless uic.yaml says otherwise
    with working("reading the data"):
        plan = plan_start(replace(answers, time_unit=time_unit), workspace)
    _show(plan, write_start(plan, workspace))


def _answers(
    given: dict[str, str | None], look_at: "Callable[[str], TableLook]", zone: str, *, yes: bool
) -> StartAnswers:
    """What was said by options, by default or at the terminal, question by question."""
    from uic.pipelines.importers.guesses import guess_columns
    from uic.pipelines.importers.survey import first_values

    def ask(name: str, question: str, default: str | None, read: Callable[[str], Answer]) -> Answer:
        return _ask(f"--{name}", question, given[name], default, read, yes=yes)

    data, look = ask(
        "data", "Data (file, folder, pattern)", _only_file(), lambda text: (text, look_at(text))
    )
    guess = ""
    if given["columns"] is None:
        ERR.print(f"columns: {', '.join(look.names)}", markup=False)
        guess = said_columns(guess_columns(look.names, first_values(look)))
    columns = ask("columns", "Which is what", guess, lambda text: read_columns(text, look.names))
    servers = f"Redis and Kafka ({EMBEDDED}, or redis=HOST:PORT kafka=HOST:PORT)"
    config = ask("servers", servers, EMBEDDED, lambda text: read_servers(text, zone))
    parts = f"Parts of a record ({DEFAULT_STATE}, {NO_STATE}, or a state.yaml)"
    state = ask("state", parts, DEFAULT_STATE, read_state)
    return StartAnswers(data, look, columns, config, state, zone=zone)


def _ask(
    flag: str, question: str, given: str | None, default: str | None,
    read: Callable[[str], Answer], *, yes: bool,
) -> Answer:  # fmt: skip
    """One answer, read; at a terminal a bad one is asked for again.

    Raises:
        BadInputError: it is no answer, or there is none and no terminal to ask on.
    """
    if given is not None or (yes and default is not None):
        return read(given if given is not None else default or "")
    if yes or not sys.stdin.isatty():
        way = f", or --yes for {default!r}" if default else ""
        why = "there is no default" if yes else "there is no terminal to ask on"
        msg = f"{flag}: is not said, and {why}; say {flag} …{way}"
        raise BadInputError(msg)
    while True:
        text = typer.prompt(question, default=default, err=True)
        try:
            return read(text)
        except BadInputError as error:
            ERR.print(str(error), markup=False)


def _only_file() -> str | None:
    """The data file of the current folder, if there is one alone."""
    files = [
        path.name
        for path in Path().iterdir()
        if path.name[0] not in "._" and path.is_file() and _is_data(path)
    ]
    return files[0] if len(files) == 1 else None


def _is_data(path: Path) -> bool:
    packed = path.suffix.lower() in _PACKED
    return (Path(path.stem) if packed else path).suffix.lower() in _DATA


def _form(separator: str | None, names: str | None, *, no_header: bool) -> "TextForm":
    from uic.pipelines.importers.text import TextForm

    given = names_of(names)
    return TextForm(separator_of(separator or ","), not (no_header or given), given)


def _look(text: str, form: "TextForm", *, any_separator: bool) -> "TableLook":
    from uic.pipelines.importers.survey import open_look

    return open_look(Path(text), form, any_separator=any_separator)


def _show(plan: "StartPlan", written: list[Path]) -> None:
    for remark in plan.remarks:
        ERR.print(f"remark: {remark}", markup=False)
    OUT.print(f"written: {', '.join(map(str, written))}", markup=False)
    OUT.print("next:", markup=False)
    for command in plan.commands:
        OUT.print(command, markup=False)
