"""The features of a record's parts among those that a model sees beside ids."""

from uic.models.features.definition import Feature, Kind, NamedFeature, Owner
from uic.models.state.definition import StateDefinition


def named_features(state: StateDefinition | None) -> tuple[NamedFeature, ...]:
    """A number `state.part.feature` for each, in the order of `StateDefinition.described`."""
    described = () if state is None else state.described
    return tuple(
        NamedFeature(Owner.STATE, one.name, Feature(type=Kind.NUMBER, scale=one.scale))
        for one in described
    )
