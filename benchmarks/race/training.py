"""Training of one row of the race: the same optimiser, search and stop for each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from .batches import Batches
from .contestants import Contestant, Entry
from .judge import Judge, Result
from .logs import TEST, TRAIN, VALID, RaceLog

# Learning rate, and rows a batch: what the search tries.
SEARCHED = ((0.001, 512), (0.003, 512), (0.001, 2048), (0.003, 2048))
SEARCH_SHARE = 1 / 3  # of the training moments that the search sees
EPOCHS = 6  # at most; a row stops after the first that does not help on the validation days
_SCORED_ROWS = 4096


@dataclass(frozen=True)
class Trained:
    """One training.

    Attributes:
        valid: best AUC on the validation days.
        scores: of the test rows, after that epoch.
        epochs: how many it took.
    """

    valid: float
    scores: np.ndarray
    epochs: int


@dataclass(frozen=True)
class Race:
    """Everything that the rows of a race share.

    Attributes:
        log: the log.
        batches: its rows.
        judges: of the validation and the test rows.
        searched: learning rates and batches.
        epochs: at most.
    """

    log: RaceLog
    batches: Batches
    valid: Judge
    test: Judge
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
        say(
            f"  {', '.join(f'{key}: {run.valid:.4f} ({run.epochs})' for key, run in tried.items())}"
        )
        settings = {
            "learning_rate": best[0],
            "batch_rows": best[1],
            "valid_auc": round(float(np.mean([run.valid for run in found])), 4),
            "epochs": [run.epochs for run in found],
        }
        return Result([run.scores for run in found], settings)

    def train(self, entry: Entry, rate: float, size: int, seed: int, share: float = 1.0) -> Trained:
        """One training, stopped by the validation days."""
        torch.manual_seed(seed)
        generator = np.random.default_rng(seed)
        categories = self.log.sizes[self.log.keys[0]] if self.log.keys else 0
        example = next(self.batches.of(VALID, 64))
        model = Contestant(entry, self.log.sizes["item"], categories, example)
        optimizer = torch.optim.Adam(model.parameters(), lr=rate)
        best = Trained(0.0, np.empty(0), 0)
        for epoch in range(1, self.epochs + 1):
            model.train()
            for batch in self.batches.of(TRAIN, size, generator, share, model.block):
                loss = functional.binary_cross_entropy_with_logits(model(batch), batch.label)
                optimizer.zero_grad()
                (loss + model.penalty()).backward()
                optimizer.step()
            valid = self.valid.auc(self._scores(model, VALID))
            if valid <= best.valid:
                break
            best = Trained(valid, self._scores(model, TEST), epoch)
        return best

    def _scores(self, model: Contestant, split: int) -> np.ndarray:
        model.eval()
        with torch.no_grad():
            parts = [model(batch).numpy() for batch in self.batches.of(split, _SCORED_ROWS)]
        return np.concatenate(parts).astype(np.float64)
