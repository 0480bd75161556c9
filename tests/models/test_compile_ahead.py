"""What is compiled ahead is all that training and serving call later."""

import os
import subprocess
import sys
from pathlib import Path

import uic

_COMPILED_AHEAD = """
import numpy as np
import torch
from uic.models.kernels import attention, fold, fold_backward, pair_marks, recurrent
from uic.models.memory.fold import EventBatch, MemoryFolder
from uic.models.memory.network import MemoryConfig, MemoryNetwork
from uic.models.rankers.catalogue import MODELS
from uic.models.samples.batch import Encoder
from uic.models.samples.groups import GroupBatch, offsets_of
from uic.models.samples.vocabulary import IdTable, Vocabulary
from uic.models.training.compile_ahead import compile_kernels

compile_kernels()
kernels = {
    name: function
    for module in (attention, fold, fold_backward, pair_marks, recurrent)
    for name, function in vars(module).items()
    if getattr(function, "signatures", ())
}
for name in ("fold_tiles", "fold_tiles_backward", "score_pairs", "score_pairs_backward", "blend",
             "blend_backward", "run", "run_backward", "kinds_of", "find_pairs"):
    assert name in kernels, name
known = {name: list(function.signatures) for name, function in kernels.items()}

random = np.random.default_rng(0)
lengths, shown = random.integers(0, 30, 40), random.integers(1, 5, 40)
events, impressions = int(lengths.sum()), int(shown.sum())
batch = GroupBatch(
    user_ids=np.arange(40),
    days=np.full(40, "2025-01-01", dtype="datetime64[D]"),
    history_offsets=offsets_of(lengths),
    history_item_ids=random.integers(0, 50, events),
    history_category_ids=random.integers(0, 5, events),
    history_behaviors=np.zeros(events, np.int8),
    history_times_ms=np.arange(events),
    impression_offsets=offsets_of(shown),
    item_ids=random.integers(0, 50, impressions),
    category_ids=random.integers(0, 5, impressions),
    event_times_ms=np.full(impressions, 10**6),
    labels=random.random(impressions) < 0.5,
    history_lengths=np.repeat(lengths, shown),
)
ids = IdTable(np.arange(40), 3)
encoded = Encoder(Vocabulary(ids, ids)).encode(batch)
for name in ("mimn", "din", "dien", "gru4rec", "arnn", "sim", "ubr4ctr"):
    model = MODELS[name].build(MODELS[name].settings(), ids.rows, ids.rows)
    model(encoded).sum().backward()
    with torch.inference_mode():
        model.eval()(encoded)


class Bundle:
    memory = MemoryNetwork(MemoryConfig()).requires_grad_(requires_grad=False)
    hash8 = b"12345678"
    has_memory = True
    state = None

    def embed(self, items, categories):
        return torch.zeros(len(items), 32)


folder = MemoryFolder(Bundle(), 3)
bytes_of_redis = folder.initial_records(3).tobytes()
records = np.frombuffer(bytes_of_redis, np.uint8).reshape(3, -1)
column = np.arange(3)
column.flags.writeable = False
folder.fold(records, EventBatch(*[column] * 9))
assert {name: list(function.signatures) for name, function in kernels.items()} == known
"""


def test_later_calls_compile_nothing_that_was_not_compiled_ahead(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(Path(uic.__file__).parent.parent)}
    command = [sys.executable, "-c", _COMPILED_AHEAD]
    finished = subprocess.run(
        command, env=environment, cwd=tmp_path, check=False, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr
