"""What a run needs of its samples, refused before anything is trained."""

from collections.abc import Mapping

from uic.models.errors import BadInputError
from uic.models.features.definition import FeatureSet
from uic.models.layers.ranker_settings import RankerSettings
from uic.models.memory.event_terms import in_buckets
from uic.models.samples.reader import BatchPlan, SamplesReader
from uic.models.training.run_spec import Days


def check_tasks(reader: SamplesReader, task_weights: Mapping[str, float]) -> None:
    """Refuse a task whose label the samples do not have.

    Raises:
        BadInputError: names it, and those that there are.
    """
    there = reader.labels
    for name in task_weights:
        if name not in there:
            msg = (
                f"task_weights: {reader.root} has no label {name!r}, it has: "
                f"{', '.join(there) or 'none'}; make it with `uic samples --label {name}`"
            )
            raise BadInputError(msg)


def check_validation(reader: SamplesReader, days: Days) -> None:
    """Refuse validation days by which no epoch can be chosen.

    Raises:
        BadInputError: they have no click, or nothing else.
    """
    if days.validation is None:
        return
    first, last = days.validation
    _, clicked = reader.shown_items(BatchPlan(first=first, last=last))
    clicks = int(clicked.sum())
    if not 0 < clicks < len(clicked):
        msg = (
            f"{reader.root}: {len(clicked)} impressions and {clicks} clicks on the validation days "
            f"{first} to {last}, which have no AUC; take more with --validation-days, or none "
            "with --validation-days 0"
        )
        raise BadInputError(msg)


def event_features(reader: SamplesReader, settings: RankerSettings) -> FeatureSet:
    """The columns of events that the model's settings name, as its fold takes them.

    Raises:
        BadInputError: the samples do not have one of them.
    """
    found = {named.name: named for named in reader.event_features}
    for name in settings.event_columns:
        if name not in found:
            msg = (
                f"{reader.root}: event.{name} is no column of these samples (they have "
                f"{', '.join(found) or 'none'}); name it under event: of features.yaml, and "
                "make the samples again"
            )
            raise BadInputError(msg)
    return in_buckets(FeatureSet(tuple(found[name] for name in settings.event_columns)))
