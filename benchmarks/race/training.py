"""Training of one row of the race: the same optimiser, search and stop for each."""

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from uic.models.training.metrics import auc

from .batches import Batches
from .contestants import Contestant, Entry
from .judge import Judge, Result, Scores
from .logs import TEST, TRAIN, VALID, RaceLog

# Learning rate, and rows a batch: what the search tries.
SEARCHED = tuple(itertools.product((0.001, 0.003, 0.01), (512, 1024)))
SEARCH_SHARE = 1 / 3  # of the training moments that the search sees
EPOCHS = 6  # at most; a row stops after the first that does not help on the validation days
_SCORED_ROWS = 4096


@dataclass(frozen=True)
class Trained:
    """One training.

    Attributes:
        model: as it was after the best epoch.
        valid: its AUC on the validation days.
        epochs: how many it took.
    """

    model: Contestant
    valid: float
    epochs: int


@dataclass(frozen=True)
class Race:
    """Everything that the rows of a race share.

    Attributes:
        log: the log.
        batches: its rows.
        valid: labels of the validation rows.
        judge: of the test.
        searched: learning rates and batches.
        epochs: at most.
    """

    log: RaceLog
    batches: Batches
    valid: NDArray[np.bool_]
    judge: Judge
    searched: Sequence[tuple[float, int]] = SEARCHED
    epochs: int = EPOCHS

    def run(self, entry: Entry, seeds: int, say: Callable[[str], None]) -> Result:
        """Search on the validation days with the first seed, then all seeds."""
        tried = {
            (rate, size): self.train(entry, rate, size, seed=0, share=SEARCH_SHARE)
            for rate, size in self.searched
        }
        best = max(tried, key=lambda key: tried[key].valid)
        found = [self.train(entry, *best, seed=seed) for seed in range(seeds)]
        said = (f"{key}: {run.valid:.4f} ({run.epochs})" for key, run in tried.items())
        say(f"  {', '.join(said)}")
        settings = {
            "learning_rate": best[0],
            "batch_rows": best[1],
            "valid_auc": round(float(np.mean([run.valid for run in found])), 4),
            "epochs": [run.epochs for run in found],
        }
        return Result([self.scores(run) for run in found], settings)

    def train(self, entry: Entry, rate: float, size: int, seed: int, share: float = 1.0) -> Trained:
        """One training, stopped by the validation days."""
        torch.manual_seed(seed)
        generator = np.random.default_rng(seed)
        categories = self.log.sizes[self.log.keys[0]] if self.log.keys else 0
        example = next(self.batches.of(VALID, 64))
        model = Contestant(entry, self.log.sizes["item"], categories, example)
        optimizer = torch.optim.Adam(model.parameters(), lr=rate)
        best, kept, epochs = 0.0, model.state_dict(), 0
        for epoch in range(1, self.epochs + 1):
            model.train()
            for batch in self.batches.of(
                TRAIN, size, generator, share, model.block, history=model.history
            ):
                loss = functional.binary_cross_entropy_with_logits(model(batch), batch.label)
                optimizer.zero_grad()
                (loss + model.penalty()).backward()
                optimizer.step()
            valid = auc(self._scores(model, VALID), self.valid)
            if valid <= best:
                break
            best, kept, epochs = valid, copy.deepcopy(model.state_dict()), epoch
        model.load_state_dict(kept)
        return Trained(model, best, epochs)

    def scores(self, trained: Trained) -> Scores:
        """Of the test."""
        rows = self._scores(trained.model, TEST)
        listed = self.log.listed
        return Scores(rows, rows if listed == TEST else self._scores(trained.model, listed))

    def unlearned(self, worth: NDArray[np.float64]) -> Scores:
        """Of (rows,) scores that nothing was trained for."""
        return Scores(*(worth[self.batches.rows(split)] for split in (TEST, self.log.listed)))

    def _scores(self, model: Contestant, split: int) -> np.ndarray:
        model.eval()
        with torch.no_grad():
            batches = self.batches.of(split, _SCORED_ROWS, history=model.history)
            parts = [model(batch).numpy() for batch in batches]
        return np.concatenate(parts).astype(np.float64)
