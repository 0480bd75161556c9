"""`features.yaml`: the named features of a site, as data.

    version: 1
    sources:
      user: {file: users.parquet, id: user_id, valid_from: changed_at}
      item: {file: items.parquet, id: item_id}
    user:
      age_band: {type: categorical}
      balance: {type: number, scale: log}
    item:
      author: {type: categorical, column: author_id, width: 16}
    context:
      tab: {type: categorical}
      position: {type: number, scale: buckets}
    event:
      price: {type: number, scale: log}

A feature of a user or an item is a column of its source, as it was just before an impression; one
of the context is a column of the impressions, and a field of a request's `context`; one of an event
is a field of a behaviour (`uic.models.features.event_columns`).
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from uic.models.errors import BadInputError
from uic.models.settings import Section

NAME_PATTERN: Final = r"^[a-z][a-z0-9_]{0,63}$"
# The label that every impression has; no other may be called so.
CLICK: Final = "click"
# What the columns of an impression log begin with that hold labels beside the click.
LOGGED_LABEL: Final = "label."
# Column of the impression log that says what became of an impression.
CLICKED: Final = "clicked"
# What every behaviour has, on the wire or in the log.
_SENT: Final = {"user_id", "item_id", "category_id", "behavior", "event_time", "source"}
EVENT_FIELDS: Final = frozenset(_SENT | {"log_time", "epoch", "partition", "offset"})
# Columns of a table that was pulled from Feast, beside its features.
FEAST_ID: Final = "entity_id"
FEAST_VALID_FROM: Final = "event_timestamp"


class FeatureFileError(BadInputError):
    """`features.yaml` is not one."""


class Kind(StrEnum):
    """What a feature's values are."""

    CATEGORICAL = "categorical"  # a text, a whole number or a truth
    CATEGORIES = "categories"  # a list of them
    NUMBER = "number"
    EMBEDDING = "embedding"  # a list of numbers of one length


class Scale(StrEnum):
    """What becomes of a number."""

    NONE = "none"
    LOG = "log"  # sign(x) log(1 + |x|)
    BUCKETS = "buckets"  # its quantile among the training days', as a category


class Owner(StrEnum):
    """Whose feature it is."""

    USER = "user"
    ITEM = "item"
    CONTEXT = "context"
    STATE = "state"  # of a record's parts, named by state.yaml
    EVENT = "event"  # a behaviour


class Feature(Section):
    """One feature; which fields it may have follows from its type."""

    type: Kind = Field(description="categorical|categories|number|embedding")
    column: str | None = Field(None, description="its column; none means the feature's name")
    scale: Scale = Field(Scale.NONE, description="of a number: none|log|buckets")
    buckets: Annotated[int, Field(ge=2, le=1000)] = Field(
        16, description="of scale: buckets; count, 2 to 1000"
    )
    width: Annotated[int, Field(ge=1, le=1024)] = Field(
        8, description="of a category's vector, or of the embedding; 1 to 1024"
    )
    rows: Annotated[int, Field(ge=2, le=10_000_000)] | None = Field(
        None,
        description="hash categories into so many rows; none means a row for each of the training "
        "days' categories",
    )
    min_count: Annotated[int, Field(ge=1)] = Field(
        5, description="rarer categories share spare rows; count"
    )
    max_categories: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        100_000, description="the most frequent have rows of their own; count"
    )
    values: Annotated[tuple[bool | int | str, ...], Field(min_length=1)] | None = Field(
        None,
        description="the categories that there are; others share spare rows; none means those of "
        "the training days",
    )
    most: Annotated[int, Field(ge=1, le=256)] = Field(
        8, description="of categories: so many of a list count; 1 to 256"
    )
    default: bool | int | float | str | None = Field(
        None, description="of a missing value; none is a value of its own"
    )

    @property
    def categorical(self) -> bool:
        """Whether its values are looked up in a table."""
        return self.type in (Kind.CATEGORICAL, Kind.CATEGORIES)

    @property
    def unused(self) -> frozenset[str]:
        """Fields that say nothing of a feature of this type."""
        applies = {
            "scale": self.type is Kind.NUMBER,
            "buckets": self.scale is Scale.BUCKETS,
            "width": self.type is not Kind.NUMBER or self.scale is Scale.BUCKETS,
            "rows": self.categorical,
            # A manifest without it says the same as before there was one.
            "values": self.categorical and self.rows is None and self.values is not None,
            "min_count": self.categorical and self.rows is None and self.values is None,
            "max_categories": self.categorical and self.rows is None and self.values is None,
            "most": self.type is Kind.CATEGORIES,
            "default": self.type in (Kind.CATEGORICAL, Kind.NUMBER),
        }
        return frozenset(name for name, used in applies.items() if not used)

    @field_validator("column")
    @classmethod
    def _is_no_label(cls, column: str | None) -> str | None:
        """What happened after an impression was shown must not tell what to show."""
        if column is not None and column.startswith(LOGGED_LABEL):
            msg = f"{column} is a label, and no feature: it is known only after the impression"
            raise ValueError(msg)
        return column

    @model_validator(mode="after")
    def _fields_fit_the_type(self) -> Self:
        for name in sorted(self.model_fields_set & self.unused):
            msg = (
                f"{name} says nothing of type {self.type.value} with the other fields; leave it out"
            )
            raise ValueError(msg)
        number = isinstance(self.default, int | float) and not isinstance(self.default, bool)
        finite = number and math.isfinite(float(self.default or 0))
        if self.type is Kind.NUMBER and self.default is not None and not finite:
            msg = f"default is {self.default!r}, expected a finite number"
            raise ValueError(msg)
        if self.type is Kind.CATEGORICAL and isinstance(self.default, float):
            msg = f"default is {self.default!r}, expected a text, a whole number, true or false"
            raise ValueError(msg)
        return self


class FeatureSource(Section):
    """A table of users or items, one row each or one row a change; or a feature view of Feast."""

    file: Path = Field(description="Parquet; relative to the folder of features.yaml")
    id: str = Field(description="column of the user's or the item's id")
    valid_from: str | None = Field(
        None, description="column of when a row came to hold; none means always"
    )
    feast: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")] | None = Field(
        None, description="a feature view in place of file, id and valid_from"
    )
    repo: Path | None = Field(
        None, description="of feast: folder of feature_store.yaml; none means the workspace's"
    )

    @model_validator(mode="before")
    @classmethod
    def _of_a_view(cls, values: Any) -> Any:
        """The table that a feature view is pulled into."""
        if not isinstance(values, dict):
            return values
        if values.get("feast") is None:
            if values.get("repo") is not None:
                msg = "repo is of feast, which names a feature view; leave it out"
                raise ValueError(msg)
            return values
        own = sorted({"file", "id", "valid_from"} & set(values))
        if own:
            msg = f"{own[0]} follows from feast, which names a feature view; leave it out"
            raise ValueError(msg)
        file = f"features/feast-{values['feast']}.parquet"
        return {**values, "file": file, "id": FEAST_ID, "valid_from": FEAST_VALID_FROM}


class FeatureSources(Section):
    """Where the features of users and items are."""

    user: FeatureSource | None = Field(None, description="of users")
    item: FeatureSource | None = Field(None, description="of items")


@dataclass(frozen=True)
class NamedFeature:
    """A feature with its name.

    Attributes:
        owner: whose it is.
        name: within the owner's.
        feature: its definition.
    """

    owner: Owner
    name: str
    feature: Feature

    @cached_property
    def key(self) -> str:
        """`owner.name`: its column in samples, and its name in messages."""
        return f"{self.owner.value}.{self.name}"

    @property
    def column(self) -> str:
        """The column of its source."""
        return self.feature.column or self.name


# What manifests leave out of a definition; a stream has to know the field of an event's.
_LEFT_OUT: Final[Mapping[Owner, tuple[str, ...]]] = {Owner.EVENT: ()}


@dataclass(frozen=True)
class FeatureSet:
    """All features of a site, in the order of the file.

    Attributes:
        features: by owner: users, items, context, events.
        sources: tables of users and items.
        folder: that relative paths begin at.
    """

    features: tuple[NamedFeature, ...] = ()
    sources: FeatureSources = field(default_factory=FeatureSources)
    folder: Path = Path()

    def __iter__(self) -> Iterator[NamedFeature]:
        """The features."""
        return iter(self.features)

    def __len__(self) -> int:
        """How many."""
        return len(self.features)

    def of(self, owner: Owner) -> tuple[NamedFeature, ...]:
        """Those of an owner."""
        return tuple(feature for feature in self.features if feature.owner is owner)

    def of_impressions(self) -> Self:
        """Without those of events: what is joined to impressions."""
        joined = (feature for feature in self.features if feature.owner is not Owner.EVENT)
        return replace(self, features=tuple(joined))

    def of_events(self) -> Self:
        """Those of events alone."""
        return replace(self, features=self.of(Owner.EVENT))

    def to_json(self) -> list[dict[str, Any]]:
        """For manifests: names and definitions, without where they come from.

        Features of events keep their field: a stream has to know it.
        """
        return [
            {
                "owner": named.owner.value,
                "name": named.name,
                **named.feature.model_dump(
                    mode="json",
                    exclude={*named.feature.unused, *_LEFT_OUT.get(named.owner, ("column",))},
                ),
            }
            for named in self.features
        ]

    @classmethod
    def from_json(cls, entries: list[dict[str, Any]]) -> Self:
        """The reverse of `to_json`.

        Raises:
            FeatureFileError: not what `to_json` makes.
        """
        try:
            named = tuple(
                NamedFeature(
                    Owner(entry["owner"]),
                    entry["name"],
                    Feature(**{key: entry[key] for key in entry if key not in ("owner", "name")}),
                )
                for entry in entries
            )
        except (ValidationError, KeyError, TypeError, ValueError) as error:
            msg = f"features of a manifest are not what was written: {' '.join(str(error).split())}"
            raise FeatureFileError(msg) from error
        return cls(named)

    def fingerprint(self) -> str:
        """Hex sum of the definitions."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
