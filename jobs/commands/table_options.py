"""The options that say which column of a table is what, and how its values are read."""

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from uic.jobs.commands.options import replace_parameter
from uic.models.errors import BadInputError

if TYPE_CHECKING:
    from uic.pipelines.importers.table import TableColumns
    from uic.pipelines.importers.table_features import ColumnNames

ZoneOption = Annotated[
    str | None,
    typer.Option(
        metavar="ZONE",
        help="Of times without a zone, e.g. Europe/London. Default: UTC if the workspace's days "
        "are those of UTC; else such times are refused.",
    ),
]
_REQUIRED = inspect.Parameter.empty
# Each option with its default, in the order of the help.
_OPTIONS: dict[str, tuple[Any, Any]] = {
    "user_id": (Annotated[str, typer.Option("--user-id", metavar="COL")], _REQUIRED),
    "item_id": (Annotated[str, typer.Option("--item-id", metavar="COL")], _REQUIRED),
    "event_time": (Annotated[str, typer.Option("--event-time", metavar="COL")], _REQUIRED),
    "category_id": (
        Annotated[
            str | None, typer.Option("--category-id", metavar="COL", help="Default: category 0.")
        ],
        None,
    ),
    "behavior": (
        Annotated[
            str | None,
            typer.Option(
                "--behavior", metavar="COL", help="Default: all are clicks. `=buy`: all are that."
            ),
        ],
        None,
    ),
    "behavior_name": (
        Annotated[
            list[str] | None,
            typer.Option(
                metavar="FOUND=NAME", help="What the file says, e.g. pv=click. Repeatable."
            ),
        ],
        None,
    ),
    "clicked": (
        Annotated[
            str | None,
            typer.Option(
                metavar="COL", help="Rows are impressions; a clicked one is also a click."
            ),
        ],
        None,
    ),
    "label": (
        Annotated[
            list[str] | None,
            typer.Option(
                metavar="[NAME=]COL[>NUMBER]",
                help="With --clicked: a label beside the click, true above NUMBER (default: if it "
                "is not 0); empty is not known. Repeatable.",
            ),
        ],
        None,
    ),
    "quantity": (
        Annotated[
            str | None,
            typer.Option(
                metavar="COL",
                help="A row whose number is below 0 is a cancellation: left out, and counted.",
            ),
        ],
        None,
    ),
    "where": (
        Annotated[
            str | None,
            typer.Option(
                metavar="EXPR",
                help="The rows to take, such as \"event == 'view' and price > 0\"; others are "
                "counted. Also `in`, `not`, `is None`; `A Name` in backticks.",
            ),
        ],
        None,
    ),
    "string_id": (
        Annotated[
            list[str] | None,
            typer.Option(
                metavar="KIND",
                help="User, item or category ids are texts, as ids with leading zeros are. "
                "Repeatable.",
            ),
        ],
        None,
    ),
    "time_unit": (
        Annotated[
            str,
            typer.Option(
                metavar="UNIT|FORMAT",
                help="s, ms, us or ns since 1970; iso; or a format like '%m/%d/%Y %H:%M'. A day "
                "without a time is that day in the workspace's time zone. Parquet timestamps say "
                "it themselves.",
            ),
        ],
        "ms",
    ),
    "time_zone": (ZoneOption, None),
    "context": (
        Annotated[
            list[str] | None,
            typer.Option(
                metavar="[NAME=]COL",
                help="With --clicked: a column of the impressions that is known when an item is "
                "shown, kept in the log. Repeatable.",
            ),
        ],
        None,
    ),
    "user_feature": (
        Annotated[
            list[str] | None,
            typer.Option(
                metavar="[NAME=]COL",
                help="What the row says of its user: changes go to features/users.parquet, and "
                "are seen after the row. Repeatable.",
            ),
        ],
        None,
    ),
    "item_feature": (
        Annotated[
            list[str] | None,
            typer.Option(
                metavar="[NAME=]COL",
                help="What the row says of its item: changes go to features/items.parquet. "
                "Repeatable.",
            ),
        ],
        None,
    ),
    "event_feature": (
        Annotated[
            list[str] | None,
            typer.Option(
                metavar="[NAME=]COL",
                help="What the row says of the behaviour itself, such as a price, kept in the log. "
                "Repeatable.",
            ),
        ],
        None,
    ),
    "delimiter": (
        Annotated[
            str,
            typer.Option(
                "--separator",
                "--delimiter",
                metavar="TEXT",
                help="CSV: between values, such as ';', tab or '::'. With several characters, no "
                "value is in quotes.",
            ),
        ],
        ",",
    ),
    "no_header": (
        Annotated[
            bool,
            typer.Option(
                "--no-header",
                help="CSV: the first line holds values; names are 1, 2, 3, … or those of --names.",
            ),
        ],
        False,
    ),
    "names": (
        Annotated[
            str | None,
            typer.Option(
                metavar="A,B,…", help="CSV without a header: the names of all of its columns."
            ),
        ],
        None,
    ),
}


def with_table_columns(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command these options; it gets `columns`."""

    @functools.wraps(command)
    def run(**values: Any) -> None:
        chosen = {name: values.pop(name) for name in _OPTIONS}
        command(columns=_columns(**chosen), **values)

    options = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
        )
        for name, (annotation, default) in _OPTIONS.items()
    ]
    replace_parameter(run, command, "columns", options)
    return run


def _columns(
    *,
    behavior: str | None,
    behavior_name: list[str] | None,
    clicked: str | None,
    label: list[str] | None,
    string_id: list[str] | None,
    time_unit: str,
    time_zone: str | None,
    delimiter: str,
    no_header: bool,
    names: str | None,
    context: list[str] | None,
    user_feature: list[str] | None,
    item_feature: list[str] | None,
    event_feature: list[str] | None,
    **plain: Any,
) -> "TableColumns":
    from uic.pipelines.importers.labels import label_columns
    from uic.pipelines.importers.table import TableColumns
    from uic.pipelines.importers.times import unit_or_format

    _refuse_both(clicked, behavior)
    return TableColumns(
        behavior=behavior,
        clicked=clicked,
        behavior_names=dict(_pair(text) for text in behavior_name or []),
        labels=label_columns(label or []),
        string_ids=frozenset(_kind_of_id(kind) for kind in string_id or []),
        time_unit=unit_or_format(time_unit),
        time_zone=known_zone(time_zone),
        delimiter=separator_of(delimiter),
        header=not (no_header or names),
        names=names_of(names),
        features=_features(
            user=user_feature, item=item_feature, context=context, event=event_feature
        ),
        **plain,
    )


def _refuse_both(clicked: str | None, behavior: str | None) -> None:
    if clicked is not None and behavior is not None:
        msg = "--clicked and --behavior: found both; a clicked impression is a click already"
        raise BadInputError(msg)


def _features(**given: list[str] | None) -> "ColumnNames":
    """Columns by owner and name of feature, from the options of each owner."""
    from uic.models.features.definition import Owner
    from uic.pipelines.importers.table_features import column_names

    return {Owner(owner): column_names(Owner(owner), names or []) for owner, names in given.items()}


def _kind_of_id(kind: str) -> str:
    kinds = ("user", "item", "category")
    if kind not in kinds:
        msg = f"--string-id: found {kind!r}, expected one of {', '.join(kinds)}"
        raise BadInputError(msg)
    return kind


def known_zone(name: str | None) -> str | None:
    """The zone that an option names; None for none.

    Raises:
        BadInputError: there is no such zone.
    """
    from zoneinfo import ZoneInfo

    if name is None:
        return None
    try:
        return ZoneInfo(name).key
    except (OSError, ValueError, KeyError) as error:  # an unknown zone is a KeyError
        msg = f"--time-zone: found {name!r}, expected a name like UTC or Europe/London"
        raise BadInputError(msg) from error


def _pair(text: str) -> tuple[str, str]:
    found, equals, name = text.partition("=")
    if not equals:
        msg = f"--behavior-name: found {text!r}, expected FOUND=NAME like pv=click"
        raise BadInputError(msg)
    return found, name


def separator_of(text: str) -> str:
    """The characters that an option means.

    Raises:
        BadInputError: a quote or an end of line cannot be one.
    """
    plain = {"\\t": "\t", "tab": "\t"}.get(text, text)
    if not plain or not plain.isascii() or any(sign in plain for sign in '"\r\n'):
        msg = f"--separator: found {text!r}, expected characters that are no quote, or tab"
        raise BadInputError(msg)
    return plain


def names_of(text: str | None) -> tuple[str, ...]:
    """The names of columns in an option.

    Raises:
        BadInputError: one is empty or there twice.
    """
    names = tuple(name.strip() for name in text.split(",")) if text else ()
    twice = [name for name in names if not name or names.count(name) > 1]
    if twice:
        msg = f"--names: {twice[0] or 'an empty name'} is there twice, or empty; found {text!r}"
        raise BadInputError(msg)
    return names
