"""Weighted sums of events by `uic.models.kernels.weighted_sums`, for autograd."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from uic.models.kernels.lanes import LANES
from uic.models.kernels.weighted_sums import weighted_sums, weighted_sums_backward
from uic.models.layers.kernel_arrays import arrays


class Formula(NamedTuple):
    """What a score is made of: `second . sigmoid(E x + c) + bias`, c of each query.

    Attributes:
        common: (hidden, width), the part of E that all queries share.
        of_memory: (hidden, width); its product with diag(m) is part of E.
        of_target: (hidden, width), the same with diag(v).
        constant: (queries, hidden), c.
        second: (hidden,).
        bias: (1,).
    """

    common: Tensor
    of_memory: Tensor
    of_target: Tensor
    constant: Tensor
    second: Tensor
    bias: Tensor


def compiles(x: Tensor, *, softmax: bool) -> bool:
    """Whether such events are summed by compiled code: float32 on a CPU, by sigmoid weights."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and not softmax


def compiled_sums(
    x: Tensor,
    memory: Tensor,
    target: Tensor,
    formula: Formula,
    sight: tuple[Tensor, Tensor, Tensor],
) -> Tensor:
    """Sum of the events that each query sees, by sigmoid weights (IMN, eq. 2, 3 and 5).

    Args:
        x: (views, steps, width) float32.
        memory: (queries, width), m.
        target: (queries, width), v.
        formula: of the scores.
        sight: (queries,) int64 each: view, its first step that is seen, and the step after the
            last.

    Returns:
        (queries, width).
    """
    wide: tuple[Tensor, ...] = (x, memory, target, *formula[:3])
    width, pad = x.shape[2], (0, -x.shape[2] % LANES)
    if pad[1]:
        wide = tuple(functional.pad(values, pad) for values in wide)
    order = torch.argsort(sight[0], stable=True)
    tensors = (*wide, *formula[3:])
    sums: Tensor = _CompiledSums.apply((order, *sight), *tensors)  # type: ignore[no-untyped-call]  # torch's
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
