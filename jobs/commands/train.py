"""`uic train`: a model from grouped samples to a published bundle."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from uic.jobs.commands import completion
from uic.jobs.commands.options import (
    DeviceOption,
    FirstTrainingDayOption,
    LastTrainingDayOption,
    SamplesOption,
    day_of,
    takes_workspace,
)
from uic.jobs.config.console import ERR, OUT
from uic.jobs.workspace.workspace import Workspace
from uic.models.errors import BadInputError

if TYPE_CHECKING:
    from uic.jobs.training.publish import TrainedBundle, TrainingStart
    from uic.models.training.trainer import Watcher

ModelArgument = Annotated[
    str,
    typer.Argument(
        help="mimn, imn, lmn, dicm or prerank, or a baseline: dnn, lr, sum_pooling, "
        "average_pooling, two_pools, din, gru4rec, arnn, rum, dien, sasrec, sim, ubr4ctr."
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A hyper-parameter of the model or a setting of `train` in uic.yaml; "
        "may be repeated. An unknown key lists the known ones.",
    ),
]
TestDaysOption = Annotated[
    int, typer.Option(min=0, help="The last so many days are the test, not trained on.")
]
ValidationDaysOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="So many days before the test days are neither trained on nor tested: training stops "
        "when their AUC rises no more, and keeps the best epoch. Default: 1 where at least 4 days "
        "are left to train on, else 0.",
    ),
]
EpochsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Passes over the training days, with validation days at most; default: train.epochs.",
    ),
]
WarmStartOption = Annotated[
    str | None,
    typer.Option(
        metavar="BUNDLE",
        help="Start from this bundle's weights: a path, model/version, model.",
        autocompletion=completion.bundles,
    ),
]
ExceptIdsOption = Annotated[
    bool, typer.Option("--except-ids", help="With --warm-start: but not from its ID embeddings.")
]
VersionOption = Annotated[
    str | None, typer.Option(help="Name of the bundle's version; default: the next number.")
]
RanksOption = Annotated[
    int,
    typer.Option(
        min=1,
        help="Processes of this machine to train over: lmn and every model with --set "
        "memory=lmn (each holds a part of the memory's values), and dicm with --strategy. "
        "The result is that of one process; bytes sent are counted.",
    ),
]
TunedOption = Annotated[
    bool, typer.Option("--tuned", help="With what `uic tune` found; --set wins over it.")
]
StrategyOption = Annotated[
    str | None,
    typer.Option(
        help="dicm over --ranks: ams (servers embed images), ps-worker (image features in "
        "the samples) or ps-server (features travel)."
    ),
]


@takes_workspace
def train(
    *,
    model: ModelArgument,
    samples: SamplesOption,
    set_: SetOption = None,
    first: FirstTrainingDayOption = None,
    last: LastTrainingDayOption = None,
    test_days: TestDaysOption = 1,
    validation_days: ValidationDaysOption = None,
    epochs: EpochsOption = None,
    seed: Annotated[int, typer.Option(help="Of initial weights and shuffle.")] = 0,
    device: DeviceOption = "auto",
    warm_start: WarmStartOption = None,
    except_ids: ExceptIdsOption = False,
    version: VersionOption = None,
    ranks: RanksOption = 1,
    strategy: StrategyOption = None,
    tuned: TunedOption = False,
    workspace: Workspace,
) -> None:
    """Train MODEL and publish it as a bundle, which becomes the model's current one.

    A run that was killed is resumed by the same command and ends with the same weights. The
    validation days choose the epoch and are not trained on afterwards; the test days are measured
    once, with the weights that are kept. Without validation days all epochs are trained, the last
    one's weights are kept, and the test days are measured after each. The learning curve and the
    metrics after each epoch are in the bundle's metrics.json.

    With --ranks N the run is one over N processes, with the same checkpoint: a killed run goes on
    with any number of them. A process that dies ends the others, and is named. What was counted
    is printed at the end and kept in WORKSPACE/reports/ranks.
    """
    made = workspace.train(
        model, samples, settings=_without_epochs(set_ or []),
        first=day_of(first), last=day_of(last), test_days=test_days,
        validation_days=validation_days, epochs=epochs, seed=seed, device=device,
        warm_start=warm_start, except_ids=except_ids, version=version, ranks=ranks,
        strategy=strategy, tuned=tuned, watch=shown_training,
    )  # fmt: skip
    _show(made)


def _without_epochs(assignments: list[str]) -> list[str]:
    """Refuse a second way to say --epochs."""
    for assignment in assignments:
        key, _, value = assignment.partition("=")
        if key == "epochs":
            msg = f"--set {assignment}: say --epochs {value or 'N'}"
            raise BadInputError(msg)
    return assignments


@contextmanager
def shown_training(start: "TrainingStart") -> "Iterator[Watcher]":
    """Show how a run goes on standard error; over ranks, rank 0 shows it."""
    from uic.jobs.training.run import watched
    from uic.models.training.trainer import Watcher

    days = start.spec.days
    chosen_by = "no validation days: the last epoch is kept"
    if days.validation is not None:
        chosen_by = "validation on {} to {}".format(*days.validation)
    ERR.print(
        f"training on {days.first} to {days.last}, {chosen_by}, on {start.device}; "
        f"checkpoint {start.checkpoint}"
    )
    if start.ranks is not None:
        yield Watcher()
        return
    with watched(start.reader, start.spec, start.spec.model) as watcher:
        yield watcher


def _show(made: "TrainedBundle") -> None:
    from uic.jobs.training.rank_run import describe_costs
    from uic.jobs.training.run import describe, describe_images
    from uic.models.training.popularity import remarks, rising

    if made.costs is not None:
        ERR.print(describe_costs(made.costs), markup=False)
    elif (line := describe_images(made.trained.model)) is not None:
        ERR.print(line, markup=False)
    chosen = made.trained.validation()
    if chosen is not None:
        ERR.print(
            f"kept epoch {chosen['kept_epoch']} of {len(chosen['auc'])}, validation AUC "
            f"{max(chosen['auc']):.4f}"
        )
    for line in rising(chosen):
        ERR.print(f"warning: {line}", markup=False)
    OUT.print(f"{made.label}  {made.hash8.hex()}  {describe(made.metrics)}")
    OUT.print(f"written to {made.path}", markup=False)
    if made.slots is not None:
        ERR.print(made.slots.describe(), markup=False)
        if (remark := made.slots.remark()) is not None:
            ERR.print(f"warning: {remark}", markup=False)
    if (baselines := made.trained.baselines) is not None and made.metrics is not None:
        ERR.print(
            f"beside it: AUC {baselines.popularity_auc:.4f} of an item's clicks, "
            f"{baselines.click_share_auc:.4f} of its share of clicked impressions; LogLoss "
            f"{baselines.rate_logloss:.4f} of the rate of clicks"
        )
        for remark in remarks(made.metrics, baselines):
            ERR.print(f"warning: {remark}", markup=False)
