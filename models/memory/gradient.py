"""The fold as one differentiable operation on a CPU: the kernel forward, torch backward.

Forward runs `uic.models.memory.kernel` and keeps each state as float16, as a record would hold it:
1,232 bytes an event with 8 slots of 32, about a twentieth of what autograd would keep. Backward
walks the steps from the last to the first, and repeats each from the stored state to get its
gradients; the rounding's gradient is straight through, so the repeated step does not round.
`uic.models.memory.kernel_backward` does that; torch does it where that one does not reach.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from uic.models.memory.kernel import PackedNetwork
from uic.models.memory.kernel_backward import PackedGradient
from uic.models.memory.network import MemoryNetwork
from uic.models.memory.plan import FoldPlan
from uic.models.memory.state import MemoryState


def fold_rows(
    memory: MemoryNetwork, plan: FoldPlan, x: Tensor, start: MemoryState
) -> tuple[Tensor, Tensor]:
    """The states at every cut as rows, and the write totals.

    Args:
        memory: float32, on the CPU.
        plan: of the groups and cuts.
        x: (events, event width), float32.
        start: one state a group, of numbers that float16 holds.

    Returns:
        (cuts, floats) and (groups, slots), differentiable.
    """
    rows = start.to_rows()
    learned = [weight for _, weight in _learned(memory)]
    if torch.is_grad_enabled() and any(t.requires_grad for t in (x, rows, *learned)):
        cuts, totals = _KernelFold.apply((memory, plan, start.count), x, rows, *learned)  # type: ignore[no-untyped-call]  # torch's
        return cuts, totals
    return _fold_to_cuts(memory, plan, start.count, x, rows)


def _learned(memory: MemoryNetwork) -> list[tuple[str, Tensor]]:
    """Weights of the steps that get a gradient, by name.

    The initial memory gets it through the states, and what events tell through the events.
    """
    return [
        (name, weight)
        for name, weight in memory.named_parameters()
        if weight.requires_grad and name != "initial_memory" and not name.startswith("event_terms.")
    ]


def _bits(rows: Tensor) -> NDArray[np.uint16]:
    bits: NDArray[np.uint16] = rows.detach().half().contiguous().numpy().view(np.uint16)
    return bits


def _fold_to_cuts(
    memory: MemoryNetwork, plan: FoldPlan, count: Tensor, x: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Without gradients: keep the states that a cut asks for, and no other."""
    lengths = plan.lengths.numpy()
    last = (plan.firsts[plan.cut_groups] + plan.cut_lengths - 1)[plan.cut_lengths > 0]
    events, place = np.unique(last.numpy(), return_inverse=True)
    save_rows = np.full(x.shape[0], -1, dtype=np.int64)
    save_rows[events] = np.arange(len(events))
    start = _bits(rows)
    saved = np.empty((len(events), start.shape[1]), dtype=np.uint16)
    totals = PackedNetwork(memory).fold(
        x, lengths, count.numpy(), start=start, save_rows=save_rows, saved=saved
    )
    cuts = np.empty((len(plan.cut_groups), start.shape[1]), dtype=np.uint16)
    seen_none = plan.cut_lengths.numpy() == 0
    cuts[seen_none] = start[plan.cut_groups.numpy()[seen_none]]
    cuts[~seen_none] = saved[place]
    return torch.from_numpy(cuts.view(np.float16)).float(), torch.from_numpy(totals)


class _KernelFold(torch.autograd.Function):
    """`fold_rows` with gradients for the events, the starting states and the weights."""

    @staticmethod
    def forward(
        ctx: Any,
        fold: tuple[MemoryNetwork, FoldPlan, Tensor],
        x: Tensor,
        rows: Tensor,
        *learned: Tensor,
    ) -> tuple[Tensor, Tensor]:
        memory, plan, count = fold
        start = _bits(rows)
        every = np.arange(x.shape[0])
        states = np.empty((x.shape[0], start.shape[1]), dtype=np.uint16)
        lengths = plan.lengths.numpy()
        packed = PackedNetwork(memory)
        totals = packed.fold(x, lengths, count.numpy(), start=start, save_rows=every, saved=states)
        after = torch.from_numpy(states.view(np.float16))
        ctx.memory, ctx.plan, ctx.count, ctx.after = memory, plan, count, after
        ctx.packed, ctx.states = packed, (start, states, count.numpy())
        ctx.save_for_backward(x, rows, *learned)
        groups, seen = plan.cut_groups, plan.cut_lengths
        cuts = torch.empty(len(groups), rows.shape[1])
        cuts[seen == 0] = rows.half().float()[groups[seen == 0]]
        cuts[seen > 0] = after[(plan.firsts[groups] + seen - 1)[seen > 0]].float()
        return cuts, torch.from_numpy(totals)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cut_gradient: Tensor, total_gradient: Tensor) -> tuple[Any, ...]:
        gradients = _compiled if ctx.memory.config.gradient_compiles else _by_steps
        return None, *gradients(ctx, cut_gradient, total_gradient)


def _compiled(ctx: Any, cut_gradient: Tensor, total_gradient: Tensor) -> list[Tensor]:
    """Gradients of the events, the starting states and the weights, by the compiled steps."""
    x = ctx.saved_tensors[0]
    plan = ctx.plan
    events, starts, weights = PackedGradient(ctx.memory, ctx.packed).backward(
        plan, ctx.states, x, cut_gradient, total_gradient
    )
    at_start = plan.cut_lengths == 0
    starts.index_add_(0, plan.cut_groups[at_start], cut_gradient[at_start])
    names = [name for name, _ in _learned(ctx.memory)]
    return [events, starts, *(weights[name] for name in names)]


def _by_steps(ctx: Any, cut_gradient: Tensor, total_gradient: Tensor) -> list[Tensor]:
    """The same by torch, a step on all running groups at a time."""
    memory, plan, states = ctx.memory, ctx.plan, ctx.after
    x, rows, *learned = ctx.saved_tensors
    sums = [torch.zeros_like(weight) for weight in learned]
    x_gradient = torch.zeros_like(x)
    carried = torch.zeros_like(rows)  # in sorted order: by the state after the step
    total_gradient = total_gradient[plan.order]
    count = ctx.count[plan.order]
    cut_rows = plan.cut_rows()
    for step in range(plan.longest - 1, -1, -1):
        active = plan.running[step]
        cuts = cut_rows[step + 1]
        carried.index_add_(0, plan.place[plan.cut_groups[cuts]], cut_gradient[cuts])
        events = plan.events_at(step)
        before = states[events - 1].float() if step else rows[plan.order[:active]]
        with torch.enable_grad():
            before = before.detach().requires_grad_()
            event = x[events].requires_grad_()
            state = MemoryState.from_rows(before, count[:active] + step, memory.layout)
            after, writes = memory.step_with_writes(state, event, rounding=False)
            outputs = [after.to_rows()]
            upstream = [carried[:active]]
            if writes is not None:
                outputs.append(writes)
                upstream.append(total_gradient[:active])
            gradients = torch.autograd.grad(
                outputs, [before, event, *learned], upstream, allow_unused=True
            )
        carried[:active] = gradients[0]
        x_gradient[events] = gradients[1]
        for weight, gradient in zip(sums, gradients[2:], strict=True):
            if gradient is not None:
                weight.add_(gradient)
    cuts = cut_rows[0]
    carried.index_add_(0, plan.place[plan.cut_groups[cuts]], cut_gradient[cuts])
    return [x_gradient, carried[plan.place], *sums]
