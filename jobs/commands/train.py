"""`uic train`: a model from grouped samples to a published bundle."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from uic.jobs.config.context import (
    DEFAULT_WORKSPACE,
    ERR,
    OUT,
    ConfigOption,
    WorkspaceOption,
    open_context,
)

if TYPE_CHECKING:
    from uic.models.bundles.bundle import Bundle

_DAY = ["%Y-%m-%d"]


def register(root: typer.Typer) -> None:
    """Add this command to the command line."""
    root.command()(train)


def train(
    *,
    model: Annotated[
        str,
        typer.Argument(
            help="mimn, imn, lmn, dicm or prerank, or a baseline: dnn, lr, sum_pooling, "
            "average_pooling, din, gru4rec, arnn, rum, dien, sasrec, sim, ubr4ctr."
        ),
    ],
    samples: Annotated[str, typer.Option(help="Name of the samples (`uic samples --out NAME`).")],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A hyper-parameter of the model or a setting of `train` in uic.yaml; "
            "may be repeated. An unknown key lists the known ones.",
        ),
    ] = None,
    first: Annotated[
        datetime | None, typer.Option(formats=_DAY, help="Leave out days before this one.")
    ] = None,
    last: Annotated[
        datetime | None, typer.Option(formats=_DAY, help="Leave out days after this one.")
    ] = None,
    test_days: Annotated[
        int, typer.Option(min=0, help="The last so many days are the test, not trained on.")
    ] = 1,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Passes over the training days; as --set epochs=N.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of initial weights and shuffle.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
    warm_start: Annotated[
        str | None,
        typer.Option(
            metavar="BUNDLE", help="Start from this bundle's weights: a path, model/version, model."
        ),
    ] = None,
    except_ids: Annotated[
        bool,
        typer.Option("--except-ids", help="With --warm-start: but not from its ID embeddings."),
    ] = False,
    version: Annotated[
        str | None, typer.Option(help="Name of the bundle's version; default: the next number.")
    ] = None,
    ranks: Annotated[
        int,
        typer.Option(
            min=1,
            help="Processes of this machine to train over: lmn and every model with --set "
            "memory=lmn (each holds a part of the memory's values), and dicm with --strategy. "
            "The result is that of one process; bytes sent are counted.",
        ),
    ] = 1,
    strategy: Annotated[
        str | None,
        typer.Option(
            help="dicm over --ranks: ams (servers embed images), ps-worker (image features in "
            "the samples) or ps-server (features travel)."
        ),
    ] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    config: ConfigOption = None,
) -> None:
    """Train MODEL and publish it as a bundle, which becomes the model's current one.

    A run that was killed is resumed by the same command and ends with the same weights. The
    learning curve and the metrics of the test days after each epoch are in the bundle's
    metrics.json; weights are those after the last epoch, never chosen by the test.

    With --ranks N the run is one over N processes, with the same checkpoint: a killed run goes on
    with any number of them. A process that dies ends the others, and is named. What was counted
    is printed at the end and kept in WORKSPACE/reports/ranks.
    """
    context = open_context(workspace, config)
    from uic.jobs.training.rank_run import describe_costs, ranks_of, train_as
    from uic.jobs.training.run import (
        check_device,
        checkpoint_path,
        describe,
        describe_images,
        open_samples,
        watched,
        with_images,
    )
    from uic.models.bundles.bundle import load_bundle, save_bundle
    from uic.models.bundles.shelf import BundleShelf
    from uic.models.bundles.warm_start import warm_start as warm_start_from
    from uic.models.errors import BadInputError
    from uic.models.published import write_json_atomically
    from uic.models.training.run_spec import RunSpec, apply_settings, split_days
    from uic.models.training.trainer import Trainer

    assignments = [*(set_ or []), *([f"epochs={epochs}"] if epochs else [])]
    settings, training = apply_settings(model, context.config.train, assignments)
    spread = ranks_of(model, settings, ranks, strategy, device)
    settings, images = with_images(context, settings)
    device = check_device(device) if spread is None else "cuda" if spread.cuda else "cpu"
    reader = open_samples(context, samples)
    shelf = BundleShelf(context.bundles)
    if except_ids and warm_start is None:
        msg = "--except-ids: says what --warm-start leaves out; name a bundle with --warm-start"
        raise BadInputError(msg)
    start: Bundle | None = load_bundle(shelf.find(warm_start)) if warm_start else None
    version = version or shelf.next_version(model)
    path = shelf.path(model, version)
    days = split_days(
        reader.days(),
        first.date() if first else None,
        last.date() if last else None,
        test_days,
        str(reader.root),
    )
    spec = RunSpec(
        model=model,
        settings=settings,
        training=training,
        days=days,
        seed=seed,
        samples=reader.name,
        samples_sha256=reader.manifest_sha256(),
        warm_start=start.hash8.hex() if start else "",
        except_ids=except_ids,
    )
    checkpoint = checkpoint_path(context.workspace, spec)
    ERR.print(f"training on {days.first} to {days.last}, on {device}; checkpoint {checkpoint}")
    prepare = warm_start_from(start, except_ids=except_ids) if start else None
    trainer = Trainer(
        reader, spec, device=device, checkpoint=checkpoint, prepare=prepare, images=images
    )
    if spread is not None:
        trained, costs = train_as(trainer, spread, start)
        write_json_atomically(context.reports / "ranks" / f"{model}-{version}.json", costs)
        ERR.print(describe_costs(costs), markup=False)
    else:
        with watched(reader, spec, model) as watcher:
            trainer.watcher = watcher
            trained = trainer.run()
        if (line := describe_images(trained.model)) is not None:
            ERR.print(line, markup=False)
    # Memories of a bundle whose item vectors this one trained on from are still understood.
    compatible = (
        tuple(start.readout_compatible_with) if start is not None and not except_ids else ()
    )
    hash8 = save_bundle(path, trained, compatible)
    shelf.choose(model, version)
    checkpoint.unlink(missing_ok=True)
    OUT.print(f"{model}/{version}  {hash8.hex()}  {describe(trained.metrics)}")
    OUT.print(f"written to {path}", markup=False)
