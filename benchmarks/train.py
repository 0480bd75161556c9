"""Training on groups against training on one row per impression: same model, same data.

    python benchmarks/train.py [--quick]

Both run the same optimiser over the same impressions in the same batches; one embeds and folds
each group's history once, the other once for each impression that looks at it. The gradients of
the first step and the loss curves are compared, so that a faster loop that learns something else
would be found. The curves part slowly: Adam's first steps are as large for a gradient that is
rounding noise as for any other.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import alternate, arguments, median, report, say
from uic.models.published import file_entry, publish_manifest
from uic.models.samples.batch import Encoder
from uic.models.samples.groups import GroupBatch
from uic.models.samples.reader import BatchPlan, SamplesReader
from uic.models.samples.schema import SAMPLES, SAMPLES_KIND, SAMPLES_SCHEMA_VERSION
from uic.models.samples.vocabulary import build_vocabulary
from uic.models.training.optimizer import Optimizer
from uic.models.training.run_spec import Days, RunSpec, apply_settings
from uic.models.training.settings import TrainSettings
from uic.models.training.trainer import build_model

IMPRESSIONS_PER_GROUP = 20
HISTORY = 200
ITEMS, CATEGORIES = 20_000, 200
# Each impression of a day sees a few events more than the one before it.
NEW_EVENTS_PER_IMPRESSION = 1


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--model", default="mimn", help="model to train")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    groups, repeats = (32, 1) if options.quick else (128, options.repeats)
    with tempfile.TemporaryDirectory() as folder:
        reader = SamplesReader(write_samples(Path(folder) / "bench", groups))
        run = Training(reader, options.model, batch_groups=groups // 4)
        seconds = alternate({"grouped": run.grouped, "one_row": run.one_row}, repeats)
    difference = float(np.max(np.abs(np.array(run.grouped_curve) - np.array(run.one_row_curve))))
    gradients = run.gradient_difference()
    say(f"first gradients differ by {gradients:.1e} of their norm, losses by {difference:.1e}")
    # The same sums in another order: float32 keeps about 1e-5 of them after 200 steps.
    assert gradients < 1e-3, gradients
    assert abs(run.grouped_curve[0] - run.one_row_curve[0]) < 1e-5
    assert difference < 0.05, (run.grouped_curve, run.one_row_curve)
    ours, peer = median(seconds["grouped"]), median(seconds["one_row"])
    figures: dict[str, Any] = {
        "impressions_per_s": round(run.impressions / ours),
        "seconds": ours,
        "model": options.model,
        "groups": groups,
        "impressions_per_group": IMPRESSIONS_PER_GROUP,
        "history_events": HISTORY,
        "first_gradient_difference": float(f"{gradients:.1e}"),
        "largest_loss_difference": float(f"{difference:.1e}"),
    }
    report(
        "train",
        ours=figures,
        peers={
            "one_row_per_impression": {
                "impressions_per_s": round(run.impressions / peer),
                "seconds": peer,
            }
        },
        ratios={"one_row_per_impression": peer / ours},
        targets={"one_row_per_impression": ">=5"},
        packages=("numpy", "torch", "pyarrow"),
    )


class Training:
    """One pass over the samples, grouped or not, from the same fresh weights.

    Args:
        reader: of the samples.
        model: to train.
        batch_groups: groups in a batch of either.
    """

    def __init__(self, reader: SamplesReader, model: str, batch_groups: int) -> None:
        settings, training = apply_settings(model, TrainSettings(), [])
        day = reader.days()[0]
        self.spec = RunSpec(
            model, settings, training, Days(day, day), 0, reader.name, reader.manifest_sha256()
        )
        plan = BatchPlan(batch_impressions=batch_groups * IMPRESSIONS_PER_GROUP, batch_events=10**9)
        self.batches = list(reader.batches(plan))
        self.vocabulary = build_vocabulary(self.batches, 1, 1, 1)
        self.impressions = sum(batch.impressions for batch in self.batches)
        self.grouped_curve: list[float] = []
        self.one_row_curve: list[float] = []
        say(f"{len(self.batches)} batches, {self.impressions} impressions")
        # The first call compiles the fold.
        self._train([self.batches[0].select(np.arange(2))])

    def grouped(self) -> None:
        """The history of a group once."""
        self.grouped_curve = self._train(self.batches)

    def one_row(self) -> None:
        """The history again for every impression; making the rows is not timed against it."""
        self.one_row_curve = self._train([batch.ungrouped() for batch in self.batches])

    def gradient_difference(self) -> float:
        """Norm of the difference of the first step's gradients, over their norm."""
        first = self.batches[0]
        grouped, single = self._gradients(first), self._gradients(first.ungrouped())
        apart = sum(float((a - b).square().sum()) for a, b in zip(grouped, single, strict=True))
        return (apart / sum(float(a.square().sum()) for a in grouped)) ** 0.5

    def _gradients(self, raw: GroupBatch) -> list[Tensor]:
        model = build_model(self.spec, self.vocabulary).eval()
        batch = Encoder(self.vocabulary).encode(raw)
        rows = model.embedding.rows(batch)
        binary_cross_entropy_with_logits(model.outputs(batch, rows).logits, batch.labels).backward()
        weights = [*model.parameters(), rows.items, rows.categories]
        return [weight.grad for weight in weights if weight.grad is not None]

    def _train(self, batches: list[GroupBatch]) -> list[float]:
        model = build_model(self.spec, self.vocabulary).train()
        encoder = Encoder(self.vocabulary)
        training = self.spec.training
        optimizer = Optimizer(
            model,
            learning_rate=training.learning_rate,
            decay_rate=training.decay_rate,
            decay_steps=training.decay_steps,
            gradient_clip=training.gradient_clip,
        )
        curve = []
        for raw in batches:
            batch = encoder.encode(raw)
            rows = model.embedding.rows(batch)
            outputs = model.outputs(batch, rows)
            # L_reg is per event, and one-row batches hold each event many times; the
            # cross-entropy is what both must agree on.
            loss = binary_cross_entropy_with_logits(outputs.logits, batch.labels)
            loss.backward()
            optimizer.step(batch, rows)
            curve.append(float(loss.detach()))
        return curve


def write_samples(root: Path, groups: int) -> Path:
    """Groups of equal size, published as the samples pipeline would."""
    generator = np.random.default_rng(0)
    events = HISTORY + NEW_EVENTS_PER_IMPRESSION * (IMPRESSIONS_PER_GROUP - 1)

    def ids(count: int) -> list[list[int]]:
        return generator.zipf(1.2, (groups, count)).clip(max=ITEMS).tolist()

    history, shown = ids(events), ids(IMPRESSIONS_PER_GROUP)
    seen = (HISTORY + NEW_EVENTS_PER_IMPRESSION * np.arange(IMPRESSIONS_PER_GROUP)).tolist()
    columns = {
        "user_id": list(range(groups)),
        "dt": [date(2024, 1, 1)] * groups,
        "history_item_ids": history,
        "history_category_ids": [[item % CATEGORIES for item in row] for row in history],
        "history_behaviors": [[0] * events] * groups,
        "history_times": [list(range(events))] * groups,
        "item_ids": shown,
        "category_ids": [[item % CATEGORIES for item in row] for row in shown],
        "event_times": [list(range(IMPRESSIONS_PER_GROUP))] * groups,
        "labels": (generator.random((groups, IMPRESSIONS_PER_GROUP)) < 0.2).tolist(),
        "history_lengths": [seen] * groups,
    }
    root.mkdir(parents=True)
    path = root / "bucket.parquet"
    table = pa.table(columns, schema=SAMPLES)
    pq.write_table(table, path)
    manifest = {
        "kind": SAMPLES_KIND,
        "schema_version": SAMPLES_SCHEMA_VERSION,
        "files": [file_entry(root, path, rows=groups)],
    }
    publish_manifest(root, manifest)
    return root


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
