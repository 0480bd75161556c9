"""Adam for the dense part and, row by row, for the embedding tables (MIMN, section 5.1).

`RowAdam` moves the rows that a batch touched and no others; their moments stand still in between.
Dense Adam would move every row of the table at every step, towards where old gradients pointed,
and cost the whole table. (The rule is that of `torch.optim.SparseAdam`; the gradient here is
already summed per row, which saves its sort.)
"""

from typing import Final

import torch
from torch import Tensor, nn

from uic.models.layers.embedding import BatchRows
from uic.models.layers.row_table import RowTable
from uic.models.rankers.ranker import Ranker
from uic.models.samples.batch import RankerBatch

BETAS: Final = (0.9, 0.999)
EPSILON: Final = 1e-8


class RowAdam:
    """Adam on some rows of a table.

    Args:
        table: (rows, width).
    """

    def __init__(self, table: Tensor) -> None:
        self.table = table
        self.mean = torch.zeros_like(table)
        self.square = torch.zeros_like(table)

    @torch.no_grad()
    def step(self, rows: Tensor, gradient: Tensor, rate: float, count: int) -> None:
        """Move `rows`.

        Args:
            rows: (touched,) int64, distinct.
            gradient: (touched, width).
            rate: learning rate.
            count: number of this step, from 1.
        """
        mean = self.mean[rows].lerp_(gradient, 1 - BETAS[0])
        square = self.square[rows].mul_(BETAS[1])
        square.addcmul_(gradient, gradient, value=1 - BETAS[1])
        self.mean[rows] = mean
        self.square[rows] = square
        scale = (1 - BETAS[1] ** count) ** 0.5
        rate_now = rate / (1 - BETAS[0] ** count)
        self.table.index_add_(
            0, rows, mean.div_(square.sqrt_().div_(scale).add_(EPSILON)), alpha=-rate_now
        )


class Optimizer:
    """One step for all of a ranker's weights.

    Args:
        model: its embedding and row tables are stepped by row, everything else densely.
        learning_rate: at step 0.
        decay_rate: factor on the rate after `decay_steps` steps.
        decay_steps: see above; the rate falls smoothly in between.
        gradient_clip: largest norm of the gradient of all weights together; 0 = no limit.

    Attributes:
        steps: done.
        dense: weights that are stepped densely.
        rows: Adam of each table that is stepped by row, by name.
    """

    def __init__(
        self,
        model: Ranker,
        *,
        learning_rate: float,
        decay_rate: float,
        decay_steps: int,
        gradient_clip: float,
    ) -> None:
        self._rate = learning_rate
        self._decay_rate = decay_rate
        self._decay_steps = decay_steps
        self.gradient_clip = gradient_clip
        self.steps = 0
        self.dense = [weight for weight in model.parameters() if weight.requires_grad]
        self._adam = torch.optim.Adam(self.dense, lr=learning_rate, betas=BETAS, eps=EPSILON)
        self.rows = {
            "item": RowAdam(model.embedding.item.data),
            "category": RowAdam(model.embedding.category.data),
        }
        self._tables = {
            name: module for name, module in model.named_modules() if isinstance(module, RowTable)
        }
        self.rows |= {name: RowAdam(table.weight.data) for name, table in self._tables.items()}

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        return float(self._rate * self._decay_rate ** (self.steps / self._decay_steps))

    def step(self, batch: RankerBatch, rows: BatchRows) -> None:
        """Apply the gradients that a backward pass has left on the weights and on `rows`."""
        touched = [
            ("item", batch.items, rows.items),
            ("category", batch.categories, rows.categories),
        ]
        for name, table in self._tables.items():
            part = table.taken()
            if part is not None:
                touched.append((name, part.rows, part.leaf))
        leaves = [leaf for _, _, leaf in touched if leaf.grad is not None]
        if self.gradient_clip:
            nn.utils.clip_grad_norm_([*self.dense, *leaves], self.gradient_clip)
        rate = self.step_dense()
        for name, index, leaf in touched:
            if leaf.grad is not None:
                self.rows[name].step(index, leaf.grad, rate, self.steps)

    def step_dense(self) -> float:
        """Begin a step: move the dense weights, drop their gradients; the rate of this step."""
        rate = self.rate
        self.steps += 1
        for group in self._adam.param_groups:
            group["lr"] = rate
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        return rate

    def tensors(self) -> dict[str, Tensor]:
        """All moments, by name, for a checkpoint."""
        tensors: dict[str, Tensor] = {}
        for name, table in self.rows.items():
            tensors[f"rows.{name}.mean"] = table.mean
            tensors[f"rows.{name}.square"] = table.square
        for index, weight in enumerate(self.dense):
            for key, value in self._adam.state.get(weight, {}).items():
                tensors[f"dense.{index}.{key}"] = value
        return tensors

    def restore(self, tensors: dict[str, Tensor], steps: int) -> None:
        """Continue from `tensors()` taken after `steps` steps."""
        self.steps = steps
        for name, table in self.rows.items():
            table.mean.copy_(tensors[f"rows.{name}.mean"])
            table.square.copy_(tensors[f"rows.{name}.square"])
        for index, weight in enumerate(self.dense):
            prefix = f"dense.{index}."
            state = {
                key.removeprefix(prefix): value.clone()
                for key, value in tensors.items()
                if key.startswith(prefix)
            }
            if state:
                self._adam.state[weight] = {
                    key: value if key == "step" else value.to(weight.device)
                    for key, value in state.items()
                }
