"""`uic evaluate`: a bundle's AUC, GAUC and LogLoss on any samples."""

from datetime import datetime
from typing import Annotated

import typer

from uic.jobs.config.context import (
    DEFAULT_WORKSPACE,
    OUT,
    ConfigOption,
    WorkspaceOption,
    open_context,
    progress_display,
)

_DAY = ["%Y-%m-%d"]


def register(root: typer.Typer) -> None:
    """Add this command to the command line."""
    root.command()(evaluate)


def evaluate(
    *,
    bundle: Annotated[str, typer.Argument(help="A path, model/version, or model (its current).")],
    samples: Annotated[str, typer.Option(help="Name of the samples (`uic samples --out NAME`).")],
    first: Annotated[
        datetime | None, typer.Option(formats=_DAY, help="First day; default: the last one.")
    ] = None,
    last: Annotated[
        datetime | None, typer.Option(formats=_DAY, help="Last day; default: the last one.")
    ] = None,
    rounding: Annotated[
        bool,
        typer.Option(
            help="mimn: memories as records hold them, rounded to float16 after every event; "
            "without, to measure what that costs."
        ),
    ] = True,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Score the impressions of some days with BUNDLE, and print one line of JSON.

    Without --first and --last, the last day of the samples.
    """
    context = open_context(workspace, config)
    import json

    from uic.jobs.training.run import check_device, open_samples, with_images
    from uic.models.bundles.bundle import load_bundle
    from uic.models.bundles.shelf import BundleShelf
    from uic.models.errors import BadInputError
    from uic.models.rankers.mimn import Mimn
    from uic.models.samples.batch import Encoder
    from uic.models.samples.reader import BatchPlan
    from uic.models.training.evaluation import evaluate as measure

    device = check_device(device)
    reader = open_samples(context, samples)
    loaded = load_bundle(BundleShelf(context.bundles).find(bundle))
    _, images = with_images(context, loaded.settings, trained=True)
    loaded.model.attach_images(images)
    if not rounding:
        if not isinstance(loaded.model, Mimn):
            msg = f"--no-rounding: {loaded.name} keeps no memory; it is for mimn"
            raise BadInputError(msg)
        loaded.model.rounding = False
    final = reader.days()[-1]
    plan = BatchPlan(
        first=first.date() if first else (None if last else final),
        last=last.date() if last else final,
        shuffle=False,
    )
    total = reader.totals(plan).impressions
    if not total:
        msg = f"{reader.root}: no impressions from {plan.first} to {plan.last}"
        raise BadInputError(msg)
    with progress_display() as progress:
        task = progress.add_task(f"scoring {loaded.name}/{loaded.version}", total=total)
        metrics = measure(
            loaded.model.to(device),
            reader.batches(plan),
            Encoder(loaded.vocabulary, device),
            lambda impressions: progress.advance(task, impressions),
        )
    document = {"bundle": f"{loaded.name}/{loaded.version}", **metrics.to_json()}
    OUT.print(json.dumps(document), markup=False)
