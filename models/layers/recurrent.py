"""Recurrent networks over ragged sequences: torch's GRU and DIEN's AUGRU as one operation each.

On a CPU in float32 the steps are compiled, forward and backward (`uic.models.kernels.recurrent`);
anywhere else torch takes them one by one.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from uic.models.kernels.lanes import LANES
from uic.models.kernels.recurrent import run, run_backward
from uic.models.layers.kernel_arrays import arrays, compiles


class Steps(NamedTuple):
    """Which sequence has which steps.

    Attributes:
        firsts: (sequences,) int64, number of the first step of each.
        counts: (sequences,) int64, its steps.
        input_of: (steps,) int64, the input of each step.
    """

    firsts: Tensor
    counts: Tensor
    input_of: Tensor


def gru_states(gru: nn.GRU, inputs: Tensor, counts: Tensor) -> Tensor:
    """`gru(inputs)[0]`, of which only the first steps of each sequence are asked for.

    Args:
        gru: of one layer, `batch_first`, with biases.
        inputs: (sequences, steps, input width).
        counts: (sequences,) int64, steps that are asked for.

    Returns:
        (sequences, steps, width); what lies behind a sequence's count is not defined.
    """
    if not compiles(inputs):
        states: Tensor = gru(inputs)[0]
        return states
    width, (sequences, steps) = gru.hidden_size, inputs.shape[:2]
    # torch's gates are reset, z, new, and its z is 1 - u: sigmoid(-x) = 1 - sigmoid(x).
    reset, update, new = (slice(at * width, (at + 1) * width) for at in range(3))

    def gates(name: str) -> Tensor:
        weight: Tensor = getattr(gru, name)
        return torch.cat([-weight[update], weight[reset], weight[new]])

    projected = functional.linear(inputs.flatten(0, 1), gates("weight_ih_l0"), gates("bias_ih_l0"))
    every_step = torch.arange(sequences * steps)
    states = _run(
        Steps(every_step[::steps], counts, every_step),
        torch.ones(sequences * steps),
        projected,
        gates("weight_hh_l0"),
        gates("bias_hh_l0"),
        every=True,
    )
    return states.view(sequences, steps, width)


class AttentionalGru(nn.Module):
    """AUGRU (DIEN, eq. 14 to 16): a GRU whose update gate is scaled by attention.

    Args:
        inputs: width of an input.
        width: of the state.
    """

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.of_input = nn.Linear(inputs, 3 * width)
        self.of_state = nn.Linear(width, 3 * width, bias=False)

    def forward(
        self, inputs: Tensor, input_of: Tensor, attention: Tensor, counts: Tensor
    ) -> Tensor:
        """The last state of each sequence, from zeros.

        Args:
            inputs: (inputs, input width).
            input_of: (steps,) int64, the input of each step, sequence after sequence.
            attention: (steps,), in [0, 1].
            counts: (sequences,) int64, steps of each.

        Returns:
            (sequences, width); zeros for a sequence without a step.
        """
        projected = self.of_input(inputs)
        firsts = counts.cumsum(0) - counts
        if compiles(projected):
            weight = self.of_state.weight
            bias = projected.new_zeros(3 * self.width)
            return _run(
                Steps(firsts, counts, input_of), attention, projected, weight, bias, every=False
            )
        # Longest first: step k runs on those that still have one.
        order = torch.argsort(counts, descending=True, stable=True)
        longest = int(counts.max()) if counts.shape[0] else 0
        steps = torch.arange(longest, device=counts.device)
        running = (counts[order].unsqueeze(1) > steps).sum(0)
        state = projected.new_zeros(counts.shape[0], self.width)
        for step, alive in enumerate(running.tolist()):
            at = firsts[order[:alive]] + step
            moved = self._step(projected[input_of[at]], attention[at], state[:alive])
            state = torch.cat([moved, state[alive:]])
        return torch.zeros_like(state).index_copy(0, order, state)

    def _step(self, projected: Tensor, attention: Tensor, state: Tensor) -> Tensor:
        """(n, 3 * width), (n,), (n, width) to (n, width)."""
        update_in, reset_in, new_in = projected.chunk(3, dim=1)
        update_state, reset_state, new_state = self.of_state(state).chunk(3, dim=1)
        update = torch.sigmoid(update_in + update_state) * attention.unsqueeze(1)
        reset = torch.sigmoid(reset_in + reset_state)
        new = torch.tanh(new_in + reset * new_state)
        return state + update * (new - state)


def _padded(gates: Tensor, width: int) -> Tensor:
    """Zeros behind each of the three gates, up to a multiple of what a lane holds."""
    pad = -width % LANES
    if not pad:
        return gates
    apart = gates.reshape(*gates.shape[:-1], 3, width)
    return functional.pad(apart, (0, pad)).flatten(-2)


def _run(
    steps: Steps, attention: Tensor, projected: Tensor, weight: Tensor, bias: Tensor, *, every: bool
) -> Tensor:
    """States after every step, or the last ones; `weight` is (3 * width, width)."""
    width = weight.shape[1]
    turned = functional.pad(_padded(weight.T, width), (0, 0, 0, -width % LANES))
    tensors = _padded(projected, width), attention, turned, _padded(bias, width)
    states: Tensor = _Recurrence.apply(steps, every, *tensors)  # type: ignore[no-untyped-call]  # torch's
    return states[:, :width]


class _Recurrence(torch.autograd.Function):
    """`kernels.recurrent.run` with its gradient."""

    @staticmethod
    def forward(ctx: Any, steps: Steps, every: bool, *tensors: Tensor) -> Tensor:  # noqa: FBT001  # torch's
        projected, attention, weight, bias = arrays(*tensors)
        firsts, counts, input_of = arrays(*steps)
        states = torch.zeros(len(input_of), len(weight))
        order = np.argsort(-counts, kind="stable")
        run(
            order, firsts, counts, projected, input_of, attention, weight, bias, states.numpy()
        )  # fmt: skip
        ctx.steps, ctx.every, ctx.order = steps, every, order
        ctx.save_for_backward(*tensors, states)
        if every:
            return states.clone()
        last = torch.zeros(len(counts), len(weight))
        some = steps.counts > 0
        last[some] = states[(steps.firsts + steps.counts - 1)[some]]
        return last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Any, ...]:
        *tensors, states = ctx.saved_tensors
        gradients = [torch.zeros(tensor.shape) for tensor in tensors]
        projected, attention, weight, bias = arrays(*tensors)
        firsts, counts, input_of = arrays(*ctx.steps)
        run_backward(
            ctx.order,
            firsts,
            counts,
            projected,
            input_of,
            attention,
            weight,
            bias,
            states.numpy(),
            upstream.contiguous().numpy(),
            ctx.every,
            arrays(*gradients),
        )
        return None, None, *gradients
