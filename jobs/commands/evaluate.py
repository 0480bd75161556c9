"""`uic evaluate`: a bundle's AUC, GAUC and LogLoss on any samples."""

import json
from datetime import datetime
from typing import Annotated

import typer

from uic.jobs.commands import completion
from uic.jobs.commands.options import (
    DAY_FORMATS,
    DeviceOption,
    SamplesOption,
    day_of,
    shown_progress,
    takes_workspace,
)
from uic.jobs.config.console import ERR, OUT
from uic.jobs.workspace.workspace import Workspace

BundleArgument = Annotated[
    str,
    typer.Argument(
        help="A path, model/version, or model (its current).", autocompletion=completion.bundles
    ),
]
RoundingOption = Annotated[
    bool,
    typer.Option(
        help="mimn: memories as records hold them, rounded to float16 after every event; "
        "without, to measure what that costs."
    ),
]


@takes_workspace
def evaluate(
    *,
    bundle: BundleArgument,
    samples: SamplesOption,
    first: Annotated[
        datetime | None, typer.Option(formats=DAY_FORMATS, help="First day; default: the last one.")
    ] = None,
    last: Annotated[
        datetime | None, typer.Option(formats=DAY_FORMATS, help="Last day; default: the last one.")
    ] = None,
    rounding: RoundingOption = True,
    device: DeviceOption = "auto",
    workspace: Workspace,
) -> None:
    """Score the impressions of some days with BUNDLE, and print one line of JSON.

    Without --first and --last, the last day of the samples. Beside the metrics stand simple
    baselines from the days before: AUC of an item's clicks and of its share of clicked impressions,
    and the LogLoss of always saying the rate of clicks.
    """
    with shown_progress() as progress:
        measured = workspace.evaluate(
            bundle,
            samples,
            first=day_of(first),
            last=day_of(last),
            rounding=rounding,
            device=device,
            progress=progress,
        )
    baselines = None if measured.baselines is None else measured.baselines.to_json()
    line = {"bundle": measured.bundle, **measured.metrics.to_json(), "baselines": baselines}
    OUT.print(json.dumps(line), markup=False)
    for remark in measured.remarks:
        ERR.print(f"warning: {remark}", markup=False)
