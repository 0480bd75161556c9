"""Seconds of training until MIMN has the AUC that it had with the settings of before.

    python benchmarks/train_to_auc.py [--quick]

The log is the demo's (`uic simulate --preset sessions`), thirteen days of samples, the last of them
for validation. `before` trains the published form as `uic train mimn` did: batches of 1,024, a
learning rate of 0.001, embeddings that begin with a standard deviation of 0.1. `published` is the
same form with the training settings of now, `own` what `uic train mimn` does. `before` runs for
`--epochs`, and the best AUC that it has on the validation day is what the others are to reach;
they end with the first epoch that has it. Seconds are those of the processor, which other work on
the machine changes little, validation included, compiling not.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import contextlib
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import arguments, report, say
from uic.jobs.workspace.workspace import Workspace
from uic.models.samples.reader import SamplesReader
from uic.models.training.metrics import Metrics
from uic.models.training.run_spec import Days, RunSpec, apply_settings
from uic.models.training.settings import TrainSettings
from uic.models.training.trainer import Trainer, Watcher

FIRST, VALIDATED = date(2025, 2, 1), date(2025, 2, 13)
FORMS = {
    "before": [
        "form=published",
        "batch_impressions=1024",
        "learning_rate=0.001",
        "embedding_std=0.1",
        "short_history_share=0",
    ],
    "published": ["form=published"],
    "own": [],
}


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=12, help="at most")
    options = parser.parse_args()
    epochs = 2 if options.quick else options.epochs
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(folder)
        plan: dict[str, Any] = {"users": 60} if options.quick else {}
        workspace.simulate(preset="sessions", **plan)
        reader = SamplesReader(workspace.samples(FIRST, VALIDATED).path)
        # Folds are compiled once for all, by a run that is not timed.
        trained(reader, ["form=published", "batch_impressions=64"], 1, most_days=1)
        curves = {"before": trained(reader, FORMS["before"], epochs)}
        wanted = max(auc for _, auc in curves["before"])
        for name in ("published", "own"):
            curves[name] = trained(reader, FORMS[name], epochs, wanted=wanted)
    seconds = {name: until(curve, wanted) for name, curve in curves.items()}
    report(
        "train_to_auc",
        ours={"auc": wanted, "seconds": seconds["own"], "epochs": curves["own"]},
        peers={
            name: {"seconds": seconds[name], "epochs": curves[name]}
            for name in ("before", "published")
        },
        ratios={
            name: seconds[name] / seconds["own"]
            for name in ("before", "published")
            if seconds[name] and seconds["own"]
        },
        targets={"before": ">=2"} if seconds["own"] else {},
        packages=("numpy", "torch", "pyarrow"),
    )


def trained(
    reader: SamplesReader, said: list[str], epochs: int, most_days: int = 30, wanted: float = 1.0
) -> list[tuple[float, float]]:
    """Seconds since the start, and AUC of the validation day, after each epoch until the wanted."""
    whole = [*said, f"epochs={epochs}", f"patience={epochs}"]
    settings, training = apply_settings("mimn", TrainSettings(), whole)
    days = reader.days()
    trained_on = days[:-1][:most_days]
    spec = RunSpec(
        "mimn",
        settings,
        training,
        Days(trained_on[0], trained_on[-1], validation_first=days[-1], validation_last=days[-1]),
        0,
        reader.name,
        reader.manifest_sha256(),
    )
    curve: list[tuple[float, float]] = []
    started = time.process_time()

    def seen(epoch: int, metrics: Metrics | None) -> None:
        if metrics is not None:
            curve.append((round(time.process_time() - started, 1), round(metrics.auc, 4)))
            say(f"{' '.join(said) or 'own form'}: epoch {epoch + 1}: {curve[-1]}")
            if curve[-1][1] >= wanted:
                raise _ReachedError

    with contextlib.suppress(_ReachedError):
        Trainer(reader, spec, watcher=Watcher(epoch=seen)).run()
    return curve


class _ReachedError(Exception):
    """A run has the AUC that it was to reach."""


def until(curve: list[tuple[float, float]], auc: float) -> float | None:
    """Seconds until the first epoch with an AUC; None if none has it."""
    return next((seconds for seconds, found in curve if found >= auc), None)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
