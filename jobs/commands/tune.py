"""`uic tune`: the settings that a model learns best with, found on validation days."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from uic.jobs.commands.options import (
    DeviceOption,
    FirstTrainingDayOption,
    LastTrainingDayOption,
    SamplesOption,
    day_of,
    takes_workspace,
)
from uic.jobs.commands.train import ModelArgument, SetOption, TestDaysOption
from uic.jobs.config.console import ERR, OUT
from uic.jobs.workspace.workspace import Workspace

if TYPE_CHECKING:
    from uic.jobs.training.tune import Tuned
    from uic.models.training.run_spec import RunSpec
    from uic.models.training.search import Trial
    from uic.models.training.trainer import Watcher

TrialsOption = Annotated[
    int, typer.Option(min=2, help="Settings to begin with, the defaults among them.")
]
ValidationDaysOption = Annotated[
    int,
    typer.Option(
        min=1, help="So many days before the test days say which settings are best; not trained on."
    ),
]
MinutesOption = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        help="Stop after so long: the best so far is kept, and the same command goes on.",
    ),
]


@takes_workspace
def tune(
    *,
    model: ModelArgument,
    samples: SamplesOption,
    set_: SetOption = None,
    first: FirstTrainingDayOption = None,
    last: LastTrainingDayOption = None,
    test_days: TestDaysOption = 1,
    validation_days: ValidationDaysOption = 1,
    trials: TrialsOption = 12,
    minutes: MinutesOption = None,
    seed: Annotated[int, typer.Option(help="Of the draw, of weights and of shuffles.")] = 0,
    device: DeviceOption = "auto",
    workspace: Workspace,
) -> None:
    """Search the settings that MODEL learns best with, and keep them for uic train --tuned.

    Learning rate, batch and what matters of the model are drawn at random, trained on the last
    quarter of the training days, the best third on half of them, the best of those on all. The
    validation days judge; the test days are never read. A key that --set gives is not searched.
    The same search twice says the same. Killed or out of time, the same command goes on.

    Example: uic tune average_pooling --samples default --trials 6 --minutes 10, and then
    uic train average_pooling --samples default --tuned
    """
    found = workspace.tune(
        model, samples, settings=set_ or [], first=day_of(first), last=day_of(last),
        test_days=test_days, validation_days=validation_days, trials=trials, minutes=minutes,
        seed=seed, device=device, watch=_watch, tell=_tell,
    )  # fmt: skip
    _show(found)


@contextmanager
def _watch(spec: "RunSpec", title: str) -> "Iterator[Watcher]":
    """A bar for each training, and no lines that stay."""
    from uic.jobs.config.console import progress_display
    from uic.models.training.trainer import Watcher

    with progress_display() as progress:
        task = progress.add_task(title, total=spec.epochs)
        yield Watcher(epoch=lambda *_: progress.advance(task))


def _tell(trial: "Trial") -> None:
    from uic.jobs.training.tune import describe

    ERR.print(
        f"{trial.share:4.0%} of the days, {trial.epochs} epochs: AUC {trial.auc:.4f}  "
        f"{describe(trial.settings)}",
        markup=False,
    )


def _show(found: "Tuned") -> None:
    """The table by share and AUC, the best, and how to use it."""
    from uic.jobs.training.tune import describe

    OUT.print(f"{'days':>5} {'epochs':>6} {'AUC':>7}  settings", markup=False)
    for trial in sorted(found.trials, key=lambda one: (-one.share, -one.auc)):
        line = f"{trial.share:5.0%} {trial.epochs:6} {trial.auc:7.4f}  {describe(trial.settings)}"
        OUT.print(line, markup=False, soft_wrap=True)
    options = "".join(f" --set {text}" for text in found.assignments) or " (the defaults)"
    OUT.print(f"best:{options}", markup=False, soft_wrap=True)
    OUT.print(f"gain over the defaults on as many days: AUC {found.gain:+.4f}", markup=False)
    if 0 < found.gain < found.margin:
        ERR.print(
            f"warning: the validation days tell an AUC to within {found.margin:.4f}, so that the "
            "gain may be chance; take more with --validation-days",
            markup=False,
        )
    if not found.finished:
        ERR.print(
            f"warning: out of time after {len(found.trials)} trainings; the best so far, on "
            f"{found.best.share:.0%} of the days, is kept. Say the same again to go on",
            markup=False,
        )
    ERR.print(
        f"kept in {found.path}: uic train {found.model} --samples {found.samples} --tuned",
        markup=False,
    )
