"""What a sequence costs: training steps and forward passes of every model at 50 to 1,000 events.

    python benchmarks/sequence.py [--quick]

Everything is one group of 200 candidates that look at one history, as a request is; a forward
pass is timed without the look-up of embeddings (IMN, section 5.6), a training step with forward,
backward and optimiser. LMN is timed with 10^4, 10^5 and 10^6 values on the base that it is
plugged into. Peak memory is that of a process that does nothing but train one model at the
longest length. Beside our DIEN, whose recurrences are compiled, stands torch-rechub's with the same
widths, which is made of torch's modules; it embeds one row a candidate, since that is its form.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from benchmarks.harness import arguments, in_process, report, say
from uic.jobs.experiments.sequence_cost import CATEGORIES, ITEMS, SequenceProbe, in_turn, measure

CANDIDATES = 200
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
        runs = {name: SequenceProbe(name, length, ("lmn_keys=1000",)) for name in NAMES}
        forwards = {name: run.forward for name, run in runs.items()}
        trainings = {name: run.step for name, run in runs.items()}
        for name, seconds in in_turn(forwards, SECONDS_PER_FIGURE).items():
            forward[name][length] = seconds
        for name, seconds in in_turn(trainings, SECONDS_PER_FIGURE).items():
            steps[name][length] = seconds
        for name in NAMES:
            say(
                f"{length} events, {name}: forward {forward[name][length] * 1e3:.2f} ms, "
                f"{1 / steps[name][length]:.2f} steps/s"
            )
    rechub = rechub_dien(lengths[-1])
    say(f"{lengths[-1]} events, torch-rechub's DIEN: forward {rechub * 1e3:.1f} ms")
    values, base = large_memories(lengths[-1])
    peaks = {}
    for name in () if options.quick else NAMES:
        peaks[name] = in_process(peak_mib, name, lengths[-1])["result"]
        say(f"{name}: {peaks[name]} MiB more than before its first step")
    longest, half = lengths[-1], lengths[-2]
    targets = {
        "imn_forward_per_doubling": "<=2.3",
        "lmn_million_over_base": "<=1.5",
        "lmn_added_ms_1e6_over_1e4": "<=10",
    }
    if longest == LENGTHS[-1]:  # these are stated for 1,000 events
        targets |= {"imn_training_over_average_pooling": "<=2", "dien_forward_over_imn": ">=20"}
    # What is added is small beside the base, and a busy machine can make it less than nothing.
    added = {count: max(seconds - base, 1e-4) for count, seconds in values.items()}
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
        peers={"torch_rechub_dien_forward_ms": {lengths[-1]: round(rechub * 1e3, 1)}},
        ratios={
            # How much longer twice the history takes.
            "imn_forward_per_doubling": forward["imn"][longest] / forward["imn"][half],
            "imn_training_over_average_pooling": steps["imn"][longest]
            / steps["average_pooling"][longest],
            "dien_forward_over_imn": forward["dien"][longest] / forward["imn"][longest],
            "rechub_dien_forward_over_imn": rechub / forward["imn"][longest],
            "lmn_million_over_base": values[10**6] / base,
            # 100 times the values: 10 times the keys.
            "lmn_added_ms_1e6_over_1e4": added[10**6] / added[10**4],
        },
        targets=targets,
        packages=("numpy", "torch", "torch-rechub"),
    )


def rounded(seconds: dict[int, float], factor: float) -> dict[int, float]:
    return {key: float(f"{value * factor:.3g}") for key, value in seconds.items()}


def rechub_dien(length: int) -> float:
    """Seconds of a forward pass of torch-rechub's DIEN over the same request."""
    from peers.rechub import HISTORY, NEGATIVES, TARGETS, PeerSettings, build  # noqa: PLC0415 - imports torch-rechub

    sizes = (ITEMS, CATEGORIES)
    settings = PeerSettings(
        *sizes,
        width=16,
        embedding_std=0.1,
        head_widths=(200, 80),
        events=length,
        batch=CANDIDATES,
        epochs=1,
        learning_rate=1e-3,
        auxiliary_weight=0.0,
    )
    model = build("dien", settings).eval()
    random = np.random.default_rng(0)
    columns = {}
    for names, shape in ((TARGETS, CANDIDATES), (HISTORY, length), (NEGATIVES, length)):
        for name, rows in zip(names, sizes, strict=True):
            column = torch.from_numpy(random.integers(1, rows, shape))
            alone = names is TARGETS
            columns[name] = column if alone else column.expand(CANDIDATES, length)

    @torch.no_grad()
    def forward() -> None:
        model(columns)

    return in_turn({"dien": forward}, SECONDS_PER_FIGURE)["dien"]


def large_memories(length: int) -> tuple[dict[int, float], float]:
    """Forward seconds of LMN by number of values, and of its base."""
    runs = {"base": SequenceProbe("din", length, (f"history_limit={length}",)).forward}
    for keys in LMN_KEYS:
        settings = (f"lmn_keys={keys}", f"history_limit={length}")
        runs[str(keys)] = SequenceProbe("lmn", length, settings).forward
    seconds = in_turn(runs, SECONDS_PER_FIGURE)
    base = seconds.pop("base")
    # 316 squared is as near to 10^5 as a square comes.
    counts = {100: 10**4, 316: 10**5, 1000: 10**6}
    return {counts[int(keys)]: value for keys, value in seconds.items()}, base


def peak_mib(name: str, length: int) -> int:
    """MiB that two training steps add to the process's peak."""
    cost = measure(name, length, 0, 0.01)
    assert cost is not None
    return cost.memory_mib


if __name__ == "__main__":
    main()
