"""Weighted sums of events by `models.imn_steps`, for autograd."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from models.imn_steps import weighted_sums, weighted_sums_backward
from models.lane_products import arrays
from models.lanes import LANES


def compiles(x: Tensor) -> bool:
    """Whether events of this kind are summed by compiled code: float32 on a CPU."""
    return x.device.type == "cpu" and x.dtype == torch.float32


def compiled_sums(
    x: Tensor, scorer: tuple[Tensor, Tensor, Tensor, Tensor], sight: tuple[Tensor, Tensor, Tensor]
) -> Tensor:
    """Sum of the events that each query sees, by sigmoid weights (IMN, eq. 2, 3 and 5).

    Args:
        x: (views, steps, width) float32.
        scorer: E (queries, hidden, width), c (queries, hidden), W2 (hidden,), b2 (1,).
        sight: (queries,) int64 each: view, its first step that is seen, and the step after the
            last.

    Returns:
        (queries, width).
    """
    effective, *rest = scorer
    width, pad = x.shape[2], (0, -x.shape[2] % LANES)
    if pad[1]:
        x, effective = functional.pad(x, pad), functional.pad(effective, pad)
    order = torch.argsort(sight[0], stable=True)
    sums: Tensor = _CompiledSums.apply((order, *sight), x, effective, *rest)  # type: ignore[no-untyped-call]  # torch's
    return sums[:, :width]


class _CompiledSums(torch.autograd.Function):
    """`imn_steps.weighted_sums` with its gradient."""

    @staticmethod
    def forward(ctx: Any, sight: tuple[Tensor, ...], *tensors: Tensor) -> Tensor:
        x, *scorer = arrays(*tensors)
        sums = torch.zeros(len(scorer[0]), x.shape[2])
        weighted_sums(x, tuple(scorer), arrays(*sight), sums.numpy())
        ctx.sight = sight
        ctx.save_for_backward(*tensors)
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Any, ...]:
        tensors = ctx.saved_tensors
        x, *scorer = arrays(*tensors)
        gradients = [torch.zeros(tensor.shape) for tensor in tensors]
        (by_sums,) = arrays(given)
        weighted_sums_backward(x, tuple(scorer), arrays(*ctx.sight), by_sums, arrays(*gradients))
        return None, *gradients
