"""`features.yaml` itself: its sections, read and checked as a whole.

uic features show
"""

from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from uic.models.features.definition import (
    CLICKED,
    EVENT_FIELDS,
    NAME_PATTERN,
    Feature,
    FeatureFileError,
    FeatureSet,
    FeatureSource,
    FeatureSources,
    Kind,
    NamedFeature,
    Owner,
)
from uic.models.settings import Section
from uic.models.yaml_text import load_yaml

_Features = dict[Annotated[str, Field(pattern=NAME_PATTERN)], Feature]


class FeatureFile(Section):
    """A whole `features.yaml`."""

    version: Annotated[int, Field(ge=1, le=1)] = Field(description="of the format: 1")
    sources: FeatureSources = Field(FeatureSources(), description="tables of users and items")
    user: _Features = Field({}, description="features of users by name")
    item: _Features = Field({}, description="features of items by name")
    context: _Features = Field({}, description="features of impressions by name")
    event: _Features = Field({}, description="features of behaviours by name")

    @model_validator(mode="after")
    def _sources_are_there(self) -> Self:
        for owner, features, source in (
            ("user", self.user, self.sources.user),
            ("item", self.item, self.sources.item),
        ):
            if features and source is None:
                msg = f"features of {owner} need sources.{owner}: the table they are columns of"
                raise ValueError(msg)
        for name, feature in self.context.items():
            if (feature.column or name) == CLICKED:
                msg = f"context.{name} is the click, and no feature: it is what is to be foretold"
                raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _events_have_single_values(self) -> Self:
        read: set[str] = set()
        for name, feature in self.event.items():
            column = feature.column or name
            if feature.type not in (Kind.CATEGORICAL, Kind.NUMBER):
                msg = f"event.{name} is {feature.type.value}, expected categorical or number"
                raise ValueError(msg)
            if column in EVENT_FIELDS or column in read:
                of = "every event" if column in EVENT_FIELDS else "another feature"
                msg = f"event.{name} reads {column}, which is a field of {of} already"
                raise ValueError(msg)
            read.add(column)
        return self


def load_features(path: Path) -> FeatureSet:
    """Read `features.yaml`.

    Raises:
        FeatureFileError: not there, no YAML, an unknown key, or a value that does not fit; one
            line that names it.
    """
    if not path.is_file():
        msg = f"{path}: no such file; docs/features.md says what is in one"
        raise FeatureFileError(msg)
    try:
        document = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        msg = f"{path}: cannot be read: {' '.join(str(error).split())}"
        raise FeatureFileError(msg) from error
    if not isinstance(document, dict):
        msg = f"{path}: expected a mapping with `version: 1`; see docs/concepts.md"
        raise FeatureFileError(msg)
    try:
        file = FeatureFile.model_validate(document)
    except ValidationError as error:
        msg = f"{path}: {_first_fault(error)}"
        raise FeatureFileError(msg) from error
    named = tuple(
        NamedFeature(owner, name, feature)
        for owner, features in (
            (Owner.USER, file.user),
            (Owner.ITEM, file.item),
            (Owner.CONTEXT, file.context),
            (Owner.EVENT, file.event),
        )
        for name, feature in features.items()
    )
    return FeatureSet(named, file.sources, path.parent)


def _first_fault(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part != "[key]")
    if first["type"] == "extra_forbidden":
        kind = Feature if len(first["loc"]) == 3 and first["loc"][0] != "sources" else None
        known = {1: FeatureFile, 3: kind or FeatureSource}.get(len(first["loc"]), FeatureSources)
        return f"{place}: unknown; known: {', '.join(known.model_fields)}"
    reason = first["msg"].removeprefix("Value error, ")
    found = first["input"]
    shown = "" if isinstance(found, dict) else f" (found {found!r:.80})"
    return f"{place}: {reason}{shown}" if place else f"{reason}"
