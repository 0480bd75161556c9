"""Events per second of the fold, on one thread, by number of users.

    python benchmarks/fold.py [--quick]

Ours is `PackedNetwork.fold` (states in, states out) and `MemoryFolder.fold` (records and raw ids
in, records out). Its peers are one `MemoryNetwork.step` per event, which is what a keyed stream
would do; the same fold in plain torch, all running users a step; and the time of the bare matrix
products with the network's weights, which is the limit of any implementation in torch. Ratios to
peers are events per second, ours over theirs; `over_products` is our time over the limit's.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numba
import numpy as np
import torch

from benchmarks.harness import alternate, arguments, in_process, median, report, say
from uic.models.kernels import lanes

USERS = (1, 16, 128, 512, 4096)
TARGET_USERS = 512


class FoldProblem:
    """A network of the default configuration, and `users` histories of `length` events."""

    def __init__(self, users, length):
        # Here, because `with_or_without_rounding` has to come before the kernel's import.
        from uic.models.memory.fold import MemoryFolder  # noqa: PLC0415 - see above
        from uic.models.memory.kernel import PackedNetwork  # noqa: PLC0415 - see above
        from uic.models.memory.network import MemoryConfig, MemoryNetwork  # noqa: PLC0415 - see above
        from uic.models.records.positions import EventBatch  # noqa: PLC0415 - see above

        torch.manual_seed(0)
        self.users, self.length, self.events = users, length, users * length
        self.memory = MemoryNetwork(MemoryConfig()).requires_grad_(requires_grad=False)
        self.hash8 = b"benchmrk"
        self.has_memory, self.state = True, None
        self.table = torch.randn(100_000, 32) * 0.3
        self.packed = PackedNetwork(self.memory)
        self.folder = MemoryFolder(self, generation=1)
        items = np.random.default_rng(0).integers(0, len(self.table), self.events)
        self.x = self.table[items]
        self.lengths = np.full(users, length)
        rows = self.memory.initial(users).to_rows().half()
        self.start = rows.numpy().view(np.uint16)
        self.save_rows = np.full(self.events, -1)
        self.save_rows[length - 1 :: length] = np.arange(users)
        self.records = self.folder.initial_records(users)
        # Interleaved, as a log has them.
        self.batch = EventBatch(
            user_index=np.tile(np.arange(users), length),
            item_ids=items,
            category_ids=items,
            behaviors=np.zeros(self.events, np.int8),
            event_times_ms=np.arange(self.events),
            log_times_ms=np.arange(self.events),
            epochs=np.ones(self.events, np.int64),
            partitions=np.zeros(self.events, np.int64),
            offsets=np.arange(self.events),
        )

    def embed(self, item_ids, category_ids):  # noqa: ARG002 - MemoryBundle's
        """A lookup, as in a bundle."""
        return self.table[torch.from_numpy(item_ids)]

    def fold_states(self):
        """Ours: states in, states out."""
        saved = np.empty_like(self.start)
        counts = np.zeros(self.users, np.int64)
        self.packed.fold(
            self.x, self.lengths, counts, start=self.start, save_rows=self.save_rows, saved=saved
        )

    def fold_records(self):
        """Ours: records and raw events in, records out."""
        self.folder.fold(self.records, self.batch)

    def torch_fold(self):
        """All users' next events in one step of torch."""
        xs = self.x.view(self.users, self.length, -1)
        state = self.memory.initial(self.users)
        for k in range(self.length):
            state = self.memory.step(state, xs[:, k])

    def step_per_event(self):
        """One user, one event, one step of torch."""
        state = self.memory.initial(1)
        for k in range(self.events):
            state = self.memory.step(state, self.x[k : k + 1])

    def bare_products(self):
        """The products with weights of `length` steps: two GRUs, the heads, W_g; nothing else."""
        memory, users = self.memory, self.users
        inputs, hidden, g = torch.ones(users, 64), torch.ones(users, 32), torch.ones(users, 8)
        pairs = [
            (inputs, memory.controller.weight_ih),
            (hidden, memory.controller.weight_hh),
            (hidden, memory.heads.weight),
            (g, memory.balance.weight),
            (inputs, memory.channel.weight_ih),
            (hidden, memory.channel.weight_hh),
        ]
        ready = [(a, w.t(), torch.empty(users, len(w))) for a, w in pairs]
        for _ in range(self.length):
            for a, w, out in ready:
                torch.mm(a, w, out=out)


def repeated(run, times):
    def contender():
        for _ in range(times):
            run()

    return contender


def measure(users, length, repeats, least_events):
    """Events per second of every contender at one number of users."""
    example = FoldProblem(users, length)
    single = FoldProblem(1, 50)
    times = max(1, least_events // example.events)
    runs = {
        "fold_states": example.fold_states,
        "fold_records": example.fold_records,
        "torch_fold": example.torch_fold,
        "bare_products": example.bare_products,
    }
    for run in (*runs.values(), single.step_per_event):
        run()  # compiled, warm
    contenders = {name: repeated(run, times) for name, run in runs.items()}
    contenders["step_per_event"] = single.step_per_event
    say(f"{users} users, {length} events each, {times} times")
    seconds = alternate(contenders, repeats)
    events = dict.fromkeys(runs, example.events * times) | {"step_per_event": single.events}
    return {name: round(events[name] / median(seconds[name])) for name in contenders}


def with_or_without_rounding(rounding, length, repeats):
    """Events per second of `fold_states` at 512 users, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        # The compiled code must not be taken for the real one by a later run.
        numba.config.CACHE_DIR = folder
        if not rounding:
            lanes.round_to_half = numba.njit(_unchanged)
        example = FoldProblem(TARGET_USERS, length)
        example.fold_states()
        seconds = alternate({f"rounding={rounding}": example.fold_states}, repeats)
    return [example.events / run for run in next(iter(seconds.values()))]


def _unchanged(x):
    return x


def main():
    options = arguments(__doc__.splitlines()[0]).parse_args()
    torch.set_num_threads(1)
    repeats, length, least = (3, 10, 5_000) if options.quick else (7, 50, 50_000)
    with torch.inference_mode():
        figures = {users: measure(users, length, repeats, least) for users in USERS}
        one_each = measure(TARGET_USERS, 1, repeats, least)
    rounding = {True: [], False: []}
    for _ in range(1 if options.quick else 2):
        for switch, figures_so_far in rounding.items():
            run = in_process(with_or_without_rounding, switch, length, 3 * repeats)
            figures_so_far.extend(run["result"])
    target = figures[TARGET_USERS]
    names = {
        "fold_states": "fold_events_per_second",
        "fold_records": "fold_records_events_per_second",
        "torch_fold": "events_per_second",
        "bare_products": "events_per_second",
        "step_per_event": "events_per_second",
    }

    def by_users(name):
        return {f"{names[name]}_at_{users}_users": figures[users][name] for users in USERS}

    report(
        "fold",
        ours=by_users("fold_states")
        | by_users("fold_records")
        | {
            "fold_records_events_per_second_at_512_users_one_event_each": one_each["fold_records"],
            "rounding_events_per_second": round(median(rounding[True])),
            "no_rounding_events_per_second": round(median(rounding[False])),
            "events_per_user": length,
        },
        peers={name: by_users(name) for name in ("step_per_event", "torch_fold", "bare_products")},
        ratios={
            "step_per_event": target["fold_states"] / target["step_per_event"],
            "torch_fold": target["fold_states"] / target["torch_fold"],
            "over_products": target["bare_products"] / target["fold_states"],
        },
        targets={"step_per_event": ">=50", "over_products": "<=3"},
        packages=("numpy", "torch", "numba"),
    )


if __name__ == "__main__":
    main()
