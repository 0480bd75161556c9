"""Which column of a table is what, and how a text file of it is written."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from uic.models.errors import BadInputError
from uic.models.features.definition import Owner
from uic.pipelines.importers.labels import LabelColumn
from uic.pipelines.importers.plausible import TimeUnit
from uic.pipelines.importers.table_features import ColumnNames


@dataclass(frozen=True)
class TableColumns:
    """Which column is what. A field of a nested column is `outer.inner`; `=text` is a constant.

    Attributes:
        user_id, item_id, event_time: column names.
        category_id: column name; None puts every item into category 0.
        behavior: column name; None makes every row a click.
        quantity: column name; a row whose number is below 0 takes something back, and is left out
            as a cancellation.
        labels: further columns of impressions that tell what came of them.
        clicked: column name; then every row is an impression, and a clicked one also a click.
        behavior_names: what the file calls a behaviour, to its name here.
        string_ids: kinds (user, item, category) whose ids are texts though they look like numbers;
            a text column of a typed file says so itself.
        time_unit: of `event_time`: a unit, or a format of `strptime`; a Parquet timestamp says so
            itself.
        time_zone: of times that have none; None takes them as UTC in a log of UTC days, and
            refuses them in any other.
        delimiter: of a CSV file; one of several characters means that no value is quoted.
        header: the first line of a CSV file names the columns; else they are `names`, or 1, 2, 3, …
        names: of the columns of a CSV file without a header.
        where: the rows to take, an expression over columns; None takes all.
        features: further columns, by whose feature and its name; those of the context and of
            events are kept in the log, those of users and items go to tables of changes.
    """

    user_id: str
    item_id: str
    event_time: str
    category_id: str | None = None
    behavior: str | None = None
    clicked: str | None = None
    quantity: str | None = None
    behavior_names: Mapping[str, str] = field(default_factory=dict)
    string_ids: frozenset[str] = frozenset()
    time_unit: TimeUnit | str = TimeUnit.MILLISECONDS
    time_zone: str | None = None
    delimiter: str = ","
    header: bool = True
    names: tuple[str, ...] = ()
    where: str | None = None
    features: ColumnNames = field(default_factory=dict)
    labels: tuple[LabelColumn, ...] = ()

    def used(self) -> list[str]:
        """All columns that a row is made of, each once."""
        used = (
            self.user_id,
            self.item_id,
            self.category_id,
            self.event_time,
            self.behavior,
            self.clicked,
            self.quantity,
            *self.feature_columns(),
            *(label.column for label in self.labels),
        )
        return list(dict.fromkeys(name for name in used if name is not None))

    def feature_columns(self) -> list[str]:
        """Columns that are features, each once."""
        named = (column for of in self.features.values() for column in of.values())
        return list(dict.fromkeys(named))


def refuse_options(columns: TableColumns) -> None:
    """Refuse columns that cannot be what they are said to be together.

    Raises:
        BadInputError: names the option.
    """
    for option, given in (
        ("--context", columns.features.get(Owner.CONTEXT)),
        ("--label", columns.labels),
    ):
        if given and columns.clicked is None:
            msg = f"{option}: is of impressions, and there are none without --clicked COL"
            raise BadInputError(msg)
    told = {label.column for label in columns.labels}
    for column in columns.feature_columns():
        if column in told:
            msg = f"--label: {column} is a feature, too, which would tell what came of the row"
            raise BadInputError(msg)
    if columns.clicked in columns.features.get(Owner.CONTEXT, {}).values():
        msg = f"--context: {columns.clicked} is the click, which is to be foretold"
        raise BadInputError(msg)
