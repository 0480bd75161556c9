"""DIN, DIEN and SASRec: ours on groups against torch-rechub on one row per impression.

    python benchmarks/family.py [--quick] [--seeds 2] [--models din dien sasrec]
    python benchmarks/family.py --samples DIR --train-days 1   # on samples of a workspace
    python benchmarks/family.py --samples DIR --features --models din   # with features beside ids

Both get the same impressions, the same last 50 events of each, the rows of one vocabulary, the
same widths of embeddings and head, Adam at the same constant rate, batch size, epochs and seeds.
Ours is timed from the Parquet files to the trained weights; torch-rechub from padded rows that lie
in memory, in batches sliced from them, which spares it the preparation and its own loader (given
beside it). Ours is trained once more on one row per impression: grouped over that is what grouping
gains, and the rest of the ratio is what the two implementations differ by. Seconds are of the
processor: each side is one thread that waits for nothing, so they are wall seconds of an idle
machine, and a busy one changes little.

Each side keeps its own network where they differ: torch-rechub has one attention unit, or one pair
of GRUs, for the item and one for the category, ours one for both side by side; it normalises
each hidden layer by the batch, ours the head's input; its DIN gives padding a part of the softmax;
its DIEN's attention is bilinear, ours the paper's network, and ours crosses item and sum in the
head; its SASRec adds the attention to the normalised query. It has SASRec as a retriever of
next items only, so its encoder is compared under its own head (`peers/rechub.py`). DIEN has the
auxiliary loss on both sides. Ours batches whole groups of like history length; the windows of
DIEN and SASRec start 50 events before a group's first impression (`models/layers/windows.py`).

What grouping can share is what does not depend on the candidate: all of SASRec, and of DIEN the
first GRU. DIN's attention is a network for each candidate and event: a batch scores each distinct
pair of items once (`models/layers/distinct_pairs.py`), grouped or not, and the compiled attention
and AUGRU write nothing as wide as a hidden layer or a gate for all pairs.

`--features`: both sides see the same features beside ids, all of them looked up in tables of one
width, numbers by their quantile among the training days: the peer's DIN takes no others.

"Equal within noise" is: the peer's AUC is ahead by less than two standard errors, which hold
the spread over seeds and that of the test users (bootstrap).
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TQDM_DISABLE", "1")  # read when torch imports tqdm: the peer's bars

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import arguments, median, report, say
from peers import rechub

from uic.models.features.definition import FeatureSet
from uic.models.layers.attention import AttentionUnit
from uic.models.layers.distinct_pairs import DistinctPairs
from uic.models.layers.recurrent import AttentionalGru
from uic.models.samples.batch import Encoder
from uic.models.samples.groups import GroupBatch, offsets_of, ranges
from uic.models.samples.reader import BatchPlan, SamplesReader
from uic.models.samples.vocabulary import build_vocabulary
from uic.models.training.checkpoint import Progress
from uic.models.training.evaluation import score
from uic.models.training.metrics import auc
from uic.models.training.run_spec import Days, RunSpec, apply_settings, split_days
from uic.models.training.settings import TrainSettings
from uic.models.training.trainer import Trainer
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.writer import LogWriter, Part
from uic.pipelines.samples.run import SamplesRequest, make_samples
from uic.pipelines.settings import SaleSettings, SamplesSettings
from uic.pipelines.simulator.generator import Simulation, behaviors_table, impressions_table
from uic.pipelines.simulator.plan import SimulationPlan

MODELS = ("din", "dien", "sasrec")
EVENTS, BATCH, AUXILIARY = 50, 1024, 0.2
# Above our default of 0.001: a short run has to learn something that can be compared.
RATE = 0.005
# Histories before the first impression are long enough to fill most of the 50 places.
DAYS_BEFORE = 10
BOOTSTRAPS = 100


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", choices=MODELS, default=MODELS)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--samples", type=Path, help="published samples; default: simulated")
    parser.add_argument("--train-days", type=int, default=4, help="days before the test days")
    parser.add_argument("--test-days", type=int, default=2, help="the last days")
    parser.add_argument("--features", action="store_true", help="those of the samples; DIN alone")
    options = parser.parse_args()
    if options.features and (options.samples is None or options.models != ["din"]):
        parser.error("--features: give --samples and --models din")
    seeds, epochs = (1, 1) if options.quick else (options.seeds, options.epochs)
    with tempfile.TemporaryDirectory(prefix="uic-family-") as folder:
        root = options.samples
        if root is None:
            shown = options.train_days + options.test_days
            root = simulated(Path(folder), users=60 if options.quick else 360, shown_days=shown)
        reader = SamplesReader(root)
        reader.features = rechub.in_tables(reader.features) if options.features else FeatureSet()
        bench = Comparison(reader, options.train_days, options.test_days, epochs)
        figures = {name: bench.compare(name, seeds) for name in options.models}
    ratios: dict[str, float] = {}
    targets: dict[str, str] = {}
    for name, found in figures.items():
        ratios[f"{name}_speed"] = found["ours_per_s"] / found["peer_per_s"]
        ratios[f"{name}_grouping"] = found["ours_per_s"] / found["one_row_per_s"]
        ratios[f"{name}_auc_behind_standard_errors"] = found["behind"] / found["standard_error"]
        targets |= {f"{name}_speed": ">=5", f"{name}_auc_behind_standard_errors": "<=2"}
    report(
        "family",
        ours={
            **bench.shape(),
            "seeds": seeds,
            "epochs": epochs,
            "impressions_per_s": {n: round(f["ours_per_s"]) for n, f in figures.items()},
            "one_row_impressions_per_s": {n: round(f["one_row_per_s"]) for n, f in figures.items()},
            "auc": {n: f["ours_auc"] for n, f in figures.items()},
            "auc_standard_error_of_difference": {
                n: round(f["standard_error"], 4) for n, f in figures.items()
            },
        },
        peers={
            "torch_rechub": {
                "impressions_per_s": {n: round(f["peer_per_s"]) for n, f in figures.items()},
                "auc": {n: f["peer_auc"] for n, f in figures.items()},
                # What its own loader would add; it is in no figure above.
                "own_loader_impressions_per_s": round(bench.own_loader_per_s()),
            }
        },
        ratios=ratios,
        targets=targets,
        packages=("numpy", "torch", "torch-rechub"),
    )


def simulated(folder: Path, users: int, shown_days: int) -> Path:
    """Samples of a simulated log with impressions on its last days only."""
    plan = SimulationPlan(
        users=users, items=400, days=DAYS_BEFORE + shown_days, impressions_per_user_day=20
    )
    simulation, log = Simulation(plan), EventLog(folder / "log")
    with LogWriter(log, Part("benchmark"), time_zone="UTC") as writer:
        for day in range(plan.days):
            for chunk in simulation.chunks(day):
                writer.add_behaviors(behaviors_table(chunk))
                if day >= DAYS_BEFORE:
                    writer.add_impressions(impressions_table(chunk))
        writer.publish()
    output = folder / "samples"
    days = (plan.day(DAYS_BEFORE), plan.last_day)
    make_samples(
        SamplesRequest(folder / "log", output, *days, "UTC", SamplesSettings(), SaleSettings())
    )
    return output


def warm_up() -> None:
    """What a process does once: torch imports its compiler, numba loads what it compiled."""
    pairs, one = torch.tensor([0, 1]), torch.zeros(1, dtype=torch.int64)
    alike = DistinctPairs(one, one, pairs, one, pairs, one, one + 1)
    vector = torch.ones(1, 16)
    weights, sums = AttentionUnit(16, 16).attend(vector, vector, alike)
    state = AttentionalGru(16, 16)(vector, one, weights, one + 1)
    (sums.sum() + state.sum()).backward()
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([weight])
    weight.sum().backward()
    optimizer.step()


class OneRowTrainer(Trainer):
    """Ours, with the history again for every impression."""

    def _epoch(self, progress: Progress) -> Iterator[GroupBatch]:
        return (batch.ungrouped() for batch in super()._epoch(progress))


class Comparison:
    """The same days for ours and for the peer.

    Args:
        reader: of the samples.
        train_days: to train on, the last before the test.
        test_days: the last days.
        epochs: passes over the training days.
    """

    def __init__(self, reader: SamplesReader, train_days: int, test_days: int, epochs: int) -> None:
        self.reader, self.epochs = reader, epochs
        kept = reader.days()[-(train_days + test_days) :]
        days = split_days(kept, None, None, test_days, reader.name)
        self.days = Days(days.first, days.last)  # nothing is scored while time runs
        assert days.test_first is not None
        assert days.test_last is not None
        training = list(reader.batches(self._plan(days.first, days.last)))
        self.test = list(reader.batches(self._plan(days.test_first, days.test_last)))
        self.vocabulary = build_vocabulary(training, 1, 256, 16, reader.features)
        self.rows = rechub.padded_rows(training, self.vocabulary, EVENTS)
        self.test_rows = rechub.padded_rows(self.test, self.vocabulary, EVENTS)
        self.groups = sum(batch.groups for batch in training)
        self.impressions = sum(batch.impressions for batch in training)
        self.labels = np.concatenate([batch.labels for batch in self.test])
        self.users = np.concatenate(
            [batch.user_ids[batch.impression_groups] for batch in self.test]
        )
        say(str(self.shape()))
        warm_up()

    def shape(self) -> dict[str, Any]:
        """How much data there is."""
        filled = float((self.rows[0]["seq"] > 0).float().mean())
        return {
            "train_impressions": self.impressions,
            "test_impressions": int(self.labels.size),
            "impressions_per_group": round(self.impressions / self.groups, 2),
            "history_events": EVENTS,
            "history_filled": round(filled, 3),
            "items": self.vocabulary.item.ids.size,
            "features": len(self.vocabulary.features.fitted),
        }

    def own_loader_per_s(self) -> float:
        """Impressions a second of the peer's own loader, without a network behind it."""
        seconds = rechub.own_loader_seconds(
            rechub.without_negatives(self.rows[0]), self.rows[1], BATCH
        )
        return self.impressions / seconds

    def compare(self, name: str, seeds: int) -> dict[str, Any]:
        """Speeds and AUCs of one model, the contenders in turn."""
        contenders: dict[str, Callable[[int], np.ndarray]] = {
            "ours": lambda seed: self._ours(name, seed),
            "peer": lambda seed: self._peer(name, seed),
        }
        scores: dict[str, list[np.ndarray]] = {who: [] for who in contenders}
        speeds: dict[str, list[float]] = {who: [] for who in contenders}
        for seed in range(seeds):
            for who, run in contenders.items():
                self.seconds = 0.0
                scores[who].append(run(seed))
                speeds[who].append(self.epochs * self.impressions / self.seconds)
                say(
                    f"{name}, {who}, seed {seed}: {speeds[who][-1]:,.0f} impressions/s, "
                    f"AUC {auc(scores[who][-1], self.labels):.4f}"
                )
        ours, peer = self._aucs(scores["ours"]), self._aucs(scores["peer"])
        behind = statistics.mean(peer) - statistics.mean(ours)
        one_row = self._one_row_per_s(name)
        say(f"{name}, ours on one row per impression: {one_row:,.0f} impressions/s")
        return {
            **{f"{who}_per_s": median(values) for who, values in speeds.items()},
            "one_row_per_s": one_row,
            "ours_auc": round(statistics.mean(ours), 4),
            "peer_auc": round(statistics.mean(peer), 4),
            "behind": behind,
            "standard_error": self._standard_error(scores["ours"], scores["peer"]),
        }

    def _plan(self, first: date, last: date) -> BatchPlan:
        return BatchPlan(batch_impressions=BATCH, shuffle=False, first=first, last=last)

    def _spec(self, name: str, seed: int, epochs: int) -> RunSpec:
        settings, training = apply_settings(
            name,
            TrainSettings(
                epochs=epochs,
                batch_impressions=BATCH,
                learning_rate=RATE,
                decay_rate=1.0,
                gradient_clip=0.0,
                min_count=1,
            ),
            [f"history_limit={EVENTS}", "activation=dice"],
        )
        if name == "dien":
            settings = settings.model_copy(update={"auxiliary_weight": AUXILIARY})
        sums = (self.reader.name, self.reader.manifest_sha256())
        return RunSpec(name, settings, training, self.days, seed, *sums)

    def _ours(self, name: str, seed: int) -> np.ndarray:
        started = time.process_time()
        trained = Trainer(self.reader, self._spec(name, seed, self.epochs)).run()
        self.seconds = time.process_time() - started
        return score(trained.model, self.test, Encoder(trained.vocabulary))[0]

    def _one_row_per_s(self, name: str) -> float:
        """One epoch, for its speed: it learns what ours does (`benchmarks/train.py`)."""
        started = time.process_time()
        OneRowTrainer(self.reader, self._spec(name, 0, 1)).run()
        return self.impressions / (time.process_time() - started)

    def _peer(self, name: str, seed: int) -> np.ndarray:
        spec = self._spec(name, seed, self.epochs)
        settings = rechub.PeerSettings(
            item_rows=self.vocabulary.item.rows,
            category_rows=self.vocabulary.category.rows,
            width=spec.settings.item_width,
            embedding_std=spec.settings.embedding_std,
            head_widths=spec.settings.head_widths,
            events=EVENTS,
            batch=BATCH,
            epochs=self.epochs,
            learning_rate=RATE,
            auxiliary_weight=AUXILIARY,
            features=self.vocabulary.features.fitted,
        )
        started = time.process_time()
        trainer = rechub.train(name, settings, *self.rows, seed)
        self.seconds = time.process_time() - started
        return rechub.scores(trainer, *self.test_rows)

    def _aucs(self, scores: list[np.ndarray]) -> list[float]:
        return [auc(values, self.labels) for values in scores]

    def _standard_error(self, ours: list[np.ndarray], peer: list[np.ndarray]) -> float:
        """Of the difference of mean AUCs: the spread over seeds, and that over test users."""
        order = np.argsort(self.users, kind="stable")
        counts = np.unique(self.users, return_counts=True)[1]
        firsts = offsets_of(counts)[:-1]
        generator = np.random.default_rng(0)
        differences = []
        for _ in range(BOOTSTRAPS):
            drawn = generator.integers(0, counts.size, counts.size)
            rows = order[ranges(firsts[drawn], counts[drawn])]
            means = [
                statistics.mean(auc(values[rows], self.labels[rows]) for values in of)
                for of in (ours, peer)
            ]
            differences.append(means[0] - means[1])
        variance = statistics.variance(differences)
        for of in (ours, peer):
            if len(of) > 1:
                variance += statistics.variance(self._aucs(of)) / len(of)
        return variance**0.5


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
