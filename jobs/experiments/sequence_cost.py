"""What one model costs at one length: a request of 200 candidates over one history (IMN, 5.6).

Forward passes are timed without the look-up of embeddings, as in the paper; a training step is
forward, backward and optimiser. `measure` limits the memory of its own process, so that a model
which needs more is a recorded result and not a machine that swaps: call it in a fresh process.
"""

import resource
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from uic.models.rankers.catalogue import MODELS
from uic.models.samples.batch import Encoder
from uic.models.samples.groups import GroupBatch
from uic.models.samples.vocabulary import IdTable, Vocabulary
from uic.models.training.optimizer import Optimizer
from uic.models.training.run_spec import shared_assignments

ITEMS: Final = 10_000
CATEGORIES: Final = 200
_DAY_MS: Final = 86_400_000
_NOW_MS: Final = 1_700_000_000_000


@dataclass(frozen=True)
class Cost:
    """Figures of one model at one length.

    Attributes:
        forward_ms: median of a forward pass.
        steps_per_second: of training.
        memory_mib: that two training steps added to the process's peak.
    """

    forward_ms: float
    steps_per_second: float
    memory_mib: int


class SequenceProbe:
    """One model and one request.

    Args:
        model: in the catalogue.
        length: events of the history; a model with `history_limit` looks at all of them.
        settings: `key=value`; those that the model does not know are left out.
        candidates: of the request.
    """

    def __init__(
        self, model: str, length: int, settings: tuple[str, ...] = (), candidates: int = 200
    ) -> None:
        kind = MODELS[model]
        known = shared_assignments(model, [f"history_limit={length}", *settings])
        hyper_parameters = kind.settings.model_validate(dict(text.split("=", 1) for text in known))
        vocabulary = Vocabulary(IdTable(np.arange(ITEMS), 1), IdTable(np.arange(CATEGORIES), 1))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model = kind.build(hyper_parameters, ITEMS + 1, CATEGORIES + 1)
        self._batch = Encoder(vocabulary).encode(request(length, candidates))
        self._optimizer = Optimizer(
            self.model, learning_rate=1e-3, decay_rate=1.0, decay_steps=1, gradient_clip=5.0
        )
        with torch.no_grad():
            self._rows = self.model.embedding.rows(self._batch)

    @torch.no_grad()
    def forward(self) -> None:
        """Scores of all candidates, from embeddings that are there."""
        self.model.eval().outputs(self._batch, self._rows)

    def step(self) -> None:
        """Forward, backward, optimiser."""
        rows = self.model.train().embedding.rows(self._batch)
        outputs = self.model.outputs(self._batch, rows)
        loss = binary_cross_entropy_with_logits(outputs.logits, self._batch.labels)
        (loss + outputs.penalty).backward()  # type: ignore[no-untyped-call]
        self._optimizer.step(self._batch, rows)


def request(length: int, candidates: int) -> GroupBatch:
    """One user's candidates over one history of 60 days."""
    random = np.random.default_rng(length)
    items, shown = random.integers(0, ITEMS, length), random.integers(0, ITEMS, candidates)
    times = np.sort(random.integers(_NOW_MS - 60 * _DAY_MS, _NOW_MS, length))
    return GroupBatch(
        user_ids=np.array([7]),
        days=np.array([_NOW_MS // _DAY_MS]).astype("datetime64[D]"),
        history_offsets=np.array([0, length]),
        history_item_ids=items,
        history_category_ids=items % CATEGORIES,
        history_behaviors=np.zeros(length, np.int8),
        history_times_ms=times,
        impression_offsets=np.array([0, candidates]),
        item_ids=shown,
        category_ids=shown % CATEGORIES,
        event_times_ms=np.full(candidates, _NOW_MS),
        labels=random.random(candidates) < 0.2,
        history_lengths=np.full(candidates, length),
    )


def in_turn(contenders: dict[str, Callable[[], object]], seconds_each: float) -> dict[str, float]:
    """Median seconds of each, run in turn, so that noise is shared; at least two runs."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for run in contenders.values():
        run()
    started = time.perf_counter()
    turns = 0
    while turns < 2 or time.perf_counter() - started < seconds_each * len(contenders):
        for name, run in contenders.items():
            at = time.perf_counter()
            run()
            found[name].append(time.perf_counter() - at)
        turns += 1
    return {name: statistics.median(values) for name, values in found.items()}


def measure(model: str, length: int, limit_gib: float, seconds: float = 1.0) -> Cost | None:
    """Cost of a model in this process, or None if it needs more memory than the limit.

    Args:
        model: in the catalogue.
        length: events.
        limit_gib: memory that may be taken on top of what the process has mapped.
        seconds: to spend on forward passes, and again on steps.
    """
    torch.set_num_threads(1)
    probe = SequenceProbe(model, length)
    with memory_limit(limit_gib):
        before = _peak_mib()
        try:
            probe.step()
            probe.step()
            memory = _peak_mib() - before
            step = in_turn({"step": probe.step}, seconds)["step"]
            forward = in_turn({"forward": probe.forward}, seconds)["forward"]
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return None
    return Cost(forward * 1e3, 1 / step, memory)


@contextmanager
def memory_limit(limit_gib: float, device: str = "cpu") -> Iterator[None]:
    """Limit what this process may map on top of what it has mapped, or take of a GPU.

    Args:
        limit_gib: 0 for no limit.
        device: cpu or cuda; CUDA maps far more addresses than it uses, so there torch counts.
    """
    if device == "cuda":
        total = torch.cuda.get_device_properties(0).total_memory
        share = min(limit_gib * 2**30 / total, 1.0) if limit_gib else 1.0
        torch.cuda.set_per_process_memory_fraction(share)
        yield
        torch.cuda.set_per_process_memory_fraction(1.0)
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    if limit_gib:
        mapped = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        soft = mapped * resource.getpagesize() + int(limit_gib * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch or numpy says that there is no memory left."""
    words = ("can't allocate memory", "out of memory", "not enough memory", "std::bad_alloc")
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in words)


def _peak_mib() -> int:
    # Not getrusage: its peak is inherited from the process that started this one.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024
