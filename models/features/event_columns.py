"""Columns of behaviours beside ids: what an event carries, and what a fold reads of it.

In memory a value is a category's number (int64, `MISSING` for none; see `uic.models.features.raw`)
or a float64, NaN for none. What becomes of it (a scale, buckets, rows of a table) is the model's.
"""

from typing import Annotated, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from uic.models.features.definition import (
    NAME_PATTERN,
    FeatureFileError,
    FeatureSet,
    Kind,
    NamedFeature,
    Owner,
)
from uic.models.features.raw import MISSING
from uic.models.settings import Section

# What the columns of a behaviour log begin with that hold features of events.
LOGGED_EVENT: Final = "event."
_OWN: Final = "shown_"

ColumnValues = NDArray[np.int64] | NDArray[np.float64]


class EventColumn(Section):
    """One column of behaviours."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)] = Field(description="of the feature")
    kind: Literal[Kind.CATEGORICAL, Kind.NUMBER] = Field(description="categorical|number")
    field: str = Field(description="of the event on the wire")

    @property
    def logged(self) -> str:
        """Its column in the log."""
        return f"{LOGGED_EVENT}{self.name}"

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its values in memory."""
        return np.dtype(np.int64 if self.kind is Kind.CATEGORICAL else np.float64)

    @property
    def missing(self) -> int | float:
        """What stands for no value in memory."""
        return MISSING if self.kind is Kind.CATEGORICAL else np.nan

    @classmethod
    def of(cls, named: NamedFeature) -> "EventColumn":
        """The column that a feature of an event is read from."""
        return cls.model_validate(
            {"name": named.name, "kind": named.feature.type, "field": named.column}
        )


def event_columns(features: FeatureSet) -> tuple[EventColumn, ...]:
    """The columns of events that features name, in the order of the file.

    Raises:
        FeatureFileError: one has a name of those that the log has of its own.
    """
    for named in features.of(Owner.EVENT):
        if named.name.startswith(_OWN):
            msg = f"event.{named.name}: {_OWN}... are names of the log's own; choose another"
            raise FeatureFileError(msg)
    return tuple(EventColumn.of(named) for named in features.of(Owner.EVENT))
