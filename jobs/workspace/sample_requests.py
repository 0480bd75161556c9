"""What samples of some days are made of, from a workspace's folders and settings."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from uic.jobs.config.context import Context
from uic.jobs.workspace.base import refuse_name
from uic.jobs.workspace.feast_sources import feature_join

if TYPE_CHECKING:
    from uic.pipelines.samples.next_item import NextItemTargets
    from uic.pipelines.samples.run import SamplesRequest


def samples_request(
    context: Context,
    days: tuple[date, date],
    name: str,
    *,
    features: Path | str | None = None,
    state: Path | str | None = None,
    labels: Sequence[str] | None = None,
    next_item: "NextItemTargets | None" = None,
) -> "SamplesRequest":
    """What `Workspace.samples` makes, without a gate; its arguments are described there.

    Raises:
        BadInputError: the name is no folder's, or a file of features is wrong.
    """
    from uic.pipelines.samples.run import SamplesRequest

    refuse_name(name)
    return SamplesRequest(
        context.log,
        context.samples / name,
        *days,
        time_zone=context.config.time_zone,
        samples=context.config.samples,
        sale=context.config.sale,
        labels=labels,
        next_item=next_item,
        features=feature_join(context, features, state),
    )
