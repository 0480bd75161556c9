"""What a sequence costs: training steps and forward passes of every model at 50 to 1,000 events.

    python benchmarks/sequence.py [--quick]

Everything is one group of 200 candidates that look at one history, as a request is; a forward
pass is timed without the look-up of embeddings (IMN, section 5.6), a training step with forward,
backward and optimiser. LMN is timed with 10^4, 10^5 and 10^6 values on the base that it is
plugged into. Peak memory is that of a process that does nothing but train one model at the
longest length.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import arguments, in_process, report, say
from models.batch import Encoder
from models.catalogue import MODELS
from models.groups import GroupBatch
from models.optimizer import Optimizer
from models.run_spec import apply_settings
from models.train_settings import TrainSettings
from models.vocabulary import IdTable, Vocabulary

CANDIDATES = 200
ITEMS, CATEGORIES = 10_000, 200
LENGTHS = (50, 100, 200, 500, 1000)
NAMES = ("average_pooling", "din", "dien", "sasrec", "mimn", "imn", "lmn")
LMN_KEYS = (100, 316, 1000)
SECONDS_PER_FIGURE = 0.4


def main() -> None:
    options = arguments(__doc__.splitlines()[0]).parse_args()
    lengths = (50, 100) if options.quick else LENGTHS
    forward: dict[str, dict[int, float]] = {name: {} for name in NAMES}
    steps: dict[str, dict[int, float]] = {name: {} for name in NAMES}
    for length in lengths:
        runs = {name: Run(name, length, ("lmn_keys=1000",)) for name in NAMES}
        for name, seconds in in_turn({name: run.forward for name, run in runs.items()}).items():
            forward[name][length] = seconds
        for name, seconds in in_turn({name: run.step for name, run in runs.items()}).items():
            steps[name][length] = seconds
        for name in NAMES:
            say(
                f"{length} events, {name}: forward {forward[name][length] * 1e3:.2f} ms, "
                f"{1 / steps[name][length]:.2f} steps/s"
            )
    values, base = large_memories(lengths[-1])
    peaks = {}
    for name in () if options.quick else NAMES:
        peaks[name] = in_process(peak_mib, name, lengths[-1])["result"]
        say(f"{name}: {peaks[name]} MiB more than before its first step")
    longest, half = lengths[-1], lengths[-2]
    added = {count: seconds - base for count, seconds in values.items()}
    report(
        "sequence",
        ours={
            "candidates": CANDIDATES,
            "forward_ms": {name: rounded(forward[name], 1e3) for name in NAMES},
            "training_steps_per_s": {
                name: {length: round(1 / s, 2) for length, s in steps[name].items()}
                for name in NAMES
            },
            "lmn_forward_ms_by_values": rounded(values, 1e3),
            "lmn_base_forward_ms": round(base * 1e3, 2),
            "training_memory_mib": peaks,
        },
        peers={},
        ratios={
            # How much longer twice (or, in --quick, twice) the history takes.
            "imn_forward_per_doubling": forward["imn"][longest] / forward["imn"][half],
            "imn_training_over_average_pooling": steps["imn"][longest]
            / steps["average_pooling"][longest],
            "dien_forward_over_imn": forward["dien"][longest] / forward["imn"][longest],
            "lmn_million_over_base": values[10**6] / base,
            # 100 times the values: 10 times the keys.
            "lmn_added_ms_1e6_over_1e4": added[10**6] / added[10**4],
        },
        targets={
            "imn_forward_per_doubling": "<=2.3",
            "imn_training_over_average_pooling": "<=2",
            "dien_forward_over_imn": ">=20",
            "lmn_million_over_base": "<=1.5",
            "lmn_added_ms_1e6_over_1e4": "<=10",
        },
        packages=("numpy", "torch"),
    )


def rounded(seconds: dict[int, float], factor: float) -> dict[int, float]:
    return {key: float(f"{value * factor:.3g}") for key, value in seconds.items()}


def large_memories(length: int) -> tuple[dict[int, float], float]:
    """Forward seconds of LMN by number of values, and of its base."""
    runs = {"base": Run("din", length, (f"history_limit={length}",)).forward}
    for keys in LMN_KEYS:
        settings = (f"lmn_keys={keys}", f"history_limit={length}")
        runs[str(keys)] = Run("lmn", length, settings).forward
    seconds = in_turn(runs)
    base = seconds.pop("base")
    # 316 squared is as near to 10^5 as a square comes.
    counts = {100: 10**4, 316: 10**5, 1000: 10**6}
    return {counts[int(keys)]: value for keys, value in seconds.items()}, base


def in_turn(contenders: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds of each, run in turn, so that noise is shared."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for run in contenders.values():
        run()
    started = time.perf_counter()
    turns = 0
    while turns < 2 or time.perf_counter() - started < SECONDS_PER_FIGURE * len(contenders):
        for name, run in contenders.items():
            at = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - at)
        turns += 1
    return {name: statistics.median(found) for name, found in seconds.items()}


class Run:
    """One model and one request of a length.

    Args:
        name: of the model.
        length: events of the history, all of which the model looks at.
        extra: settings, for models that know them.
    """

    def __init__(self, name: str, length: int, extra: tuple[str, ...] = ()) -> None:
        known = MODELS[name].settings.model_fields
        wanted = [f"history_limit={length}", *extra]
        chosen = [text for text in wanted if text.partition("=")[0] in known]
        settings, _ = apply_settings(name, TrainSettings(), chosen)
        vocabulary = Vocabulary(IdTable(np.arange(ITEMS), 1), IdTable(np.arange(CATEGORIES), 1))
        torch.manual_seed(0)
        self.model = MODELS[name].build(settings, ITEMS + 1, CATEGORIES + 1)
        self.batch = Encoder(vocabulary).encode(request(length))
        self.optimizer = Optimizer(
            self.model, learning_rate=1e-3, decay_rate=1.0, decay_steps=1, gradient_clip=5.0
        )
        with torch.no_grad():
            self.rows = self.model.embedding.rows(self.batch)

    @torch.no_grad()
    def forward(self) -> None:
        """Scores of all candidates, from embeddings that are there."""
        self.model.eval().outputs(self.batch, self.rows)

    def step(self) -> None:
        """Forward, backward, optimiser."""
        rows = self.model.train().embedding.rows(self.batch)
        outputs = self.model.outputs(self.batch, rows)
        loss = binary_cross_entropy_with_logits(outputs.logits, self.batch.labels)
        (loss + outputs.penalty).backward()
        self.optimizer.step(self.batch, rows)


def request(length: int) -> GroupBatch:
    """One user's candidates over one history of 60 days."""
    random = np.random.default_rng(length)
    items, shown = random.integers(0, ITEMS, length), random.integers(0, ITEMS, CANDIDATES)
    now = 1_700_000_000_000
    return GroupBatch(
        user_ids=np.array([7]),
        days=np.array(["2023-11-14"], "datetime64[D]"),
        history_offsets=np.array([0, length]),
        history_item_ids=items,
        history_category_ids=items % CATEGORIES,
        history_behaviors=np.zeros(length, np.int8),
        history_times_ms=np.sort(random.integers(now - 60 * 86_400_000, now, length)),
        impression_offsets=np.array([0, CANDIDATES]),
        item_ids=shown,
        category_ids=shown % CATEGORIES,
        event_times_ms=np.full(CANDIDATES, now),
        labels=random.random(CANDIDATES) < 0.2,
        history_lengths=np.full(CANDIDATES, length),
    )


def peak_mib(name: str, length: int) -> int:
    """MiB that two training steps add to the process's peak."""
    torch.set_num_threads(1)
    run = Run(name, length)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(2):
        run.step()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024


if __name__ == "__main__":
    main()
