"""Sources of `features.yaml` that are feature views of Feast, read before they are used."""

from pathlib import Path
from typing import TYPE_CHECKING

from uic.jobs.config.context import Context

if TYPE_CHECKING:
    from uic.models.features.definition import FeatureSet
    from uic.pipelines.samples.features import FeatureJoin


def pull_sources(context: Context, features: "FeatureSet") -> dict[str, int]:
    """Read them into their tables, if there are any; rows by feature view.

    Raises:
        BadInputError: Feast cannot read one.
    """
    sources = (features.sources.user, features.sources.item)
    if all(source is None or source.feast is None for source in sources):
        return {}  # importing Feast takes seconds
    from uic.feature_repo.plugin.feast_source import pull_feast_sources

    return pull_feast_sources(features, context.config.store, context.workspace)


def feature_join(
    context: Context, file: Path | str | None, state: Path | str | None = None
) -> "FeatureJoin":
    """What samples join, its sources read from Feast first.

    Args:
        context: of the workspace.
        file: a `features.yaml`; None takes the workspace's, if any, "none" joins nothing.
        state: a `state.yaml`; likewise.

    Raises:
        BadInputError: a file is none, or Feast cannot read a source.
    """
    from uic.models.bundles.saving import refuse_unknown_columns
    from uic.models.state.definition import StateDefinition
    from uic.pipelines.samples.features import NO_FEATURES, FeatureJoin

    join = FeatureJoin.of_file(file, context.features)
    pull_sources(context, join.features)
    own = context.workspace / "state.yaml"
    if state == NO_FEATURES or (state is None and not own.is_file()):
        return join
    parts = StateDefinition.load(own if state is None else Path(state))
    refuse_unknown_columns(parts, join.event_columns)
    return join.with_state(parts)
