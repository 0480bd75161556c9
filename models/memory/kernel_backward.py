"""The fast gradient of a fold on a CPU: buffers, transposed weights, and sums over events.

`uic.models.kernels.fold_backward` walks the events and writes, for each, the gradients of the sums
that enter the activations; here torch turns them into gradients of weights, one product a matrix.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from uic.models.kernels.arguments import GradientBuffers, Matrix, Transposed
from uic.models.kernels.fold import BLOCK
from uic.models.kernels.fold_backward import fold_tiles_backward
from uic.models.memory.kernel import PackedNetwork, aligned, pack
from uic.models.memory.network import MemoryNetwork
from uic.models.memory.plan import FoldPlan


class PackedGradient:
    """The gradient of `PackedNetwork.fold`; made once for a backward pass.

    Args:
        memory: on the CPU, float32, with `utilization_gradient: all`.
        packed: the same network as the forward pass packed it.
    """

    def __init__(self, memory: MemoryNetwork, packed: PackedNetwork) -> None:
        self._memory, self._packed = memory, packed
        config = memory.config
        none = torch.zeros(0, 0)
        self._transposed = Transposed(
            controller=_transposed_gates(memory.controller),
            heads=_transposed(memory.heads.weight),
            balance=_transposed(memory.balance.weight if config.utilization else none),
            channel=_transposed_gates(memory.channel if config.induction else nn.GRUCell(1, 1)),
            route=_transposed(none if memory.route is None else memory.route.weight),
        )
        width, slots, top_k = config.memory_width, config.slots, config.top_k
        self._parts = {
            "event_gradient": config.event_width,
            "controller_gates": 4 * config.controller,
            "heads_gradient": 4 * width + 2,
            "logits_gradient": slots**2 if config.utilization else 0,
            "channel_gates": 4 * top_k * config.channel_width if config.induction else 0,
            "channel_inputs": top_k * (width + config.channel_width) if config.induction else 0,
            "routes_gradient": 2 * slots if config.routing else 0,
        }

    def _buffers(self) -> GradientBuffers:
        sizes = self._packed.sizes
        hidden = max(sizes.controller, sizes.channel)
        inputs = sizes.event + sizes.width + hidden
        rows = {
            "state": sizes.state,
            "carry": sizes.state,
            "seen": 1,
            "inputs": inputs,
            "controller": 5 * sizes.controller,
            "channel": 5 * sizes.channel,
            "heads": 4 * sizes.width + 2,
            "slopes": 4 * sizes.width + 2,
            "logits": sizes.slots**2,
            "routes": 2 * sizes.slots,
            "upstream": max(hidden, sizes.slots),
            "back": max(inputs, sizes.slots),
            "written": sum(self._parts.values()),
        }
        known = {*rows, "halves", *self._parts}
        rows |= {name: sizes.slots + 1 for name in GradientBuffers._fields if name not in known}
        buffers = {name: aligned(count + BLOCK, np.float32) for name, count in rows.items()}
        first = 0
        for name, count in self._parts.items():
            buffers[name] = buffers["written"][first : first + count]
            first += count
        return GradientBuffers(halves=aligned(sizes.state, np.uint16), **buffers)

    def backward(
        self,
        plan: FoldPlan,
        states: tuple[NDArray[np.uint16], NDArray[np.uint16], NDArray[np.int64]],
        x: Tensor,
        cut_gradient: Tensor,
        total_gradient: Tensor,
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Gradients of the events, of the starting states, and of the weights by name.

        Args:
            plan: of the forward pass.
            states: float16 bits of each group's start and of the state after each event, and each
                group's count at the start.
            x: (events, event width).
            cut_gradient: (cuts, floats), by each requested state.
            total_gradient: (groups, slots), by the write totals.

        Returns:
            (events, event width), (groups, floats) without the cuts before any event, weights.
        """
        start, after, counts = states
        seen = plan.cut_lengths > 0
        events, row = torch.unique(
            (plan.firsts[plan.cut_groups] + plan.cut_lengths - 1)[seen], return_inverse=True
        )
        summed = cut_gradient.new_zeros(len(events), start.shape[1])
        summed.index_add_(0, row, cut_gradient[seen])
        cut_of_event = np.full(len(x), -1, dtype=np.int64)
        cut_of_event[events.numpy()] = np.arange(len(events))
        lengths, order = plan.lengths.numpy(), plan.order.numpy()
        count = sum(self._parts.values())
        out = np.empty((len(x), count), dtype=np.float32)
        carried = np.zeros(start.shape, dtype=np.float32)
        fold_tiles_backward(
            self._packed.sizes,
            self._packed.weights,
            self._transposed,
            self._buffers(),
            count,
            (
                np.ascontiguousarray(x.detach().numpy()),
                order[lengths[order] > 0],
                plan.firsts.numpy(),
                lengths,
                counts,
                start,
                after,
            ),
            cut_of_event,
            summed.numpy(),
            np.ascontiguousarray(total_gradient.numpy()),
            carried,
            out,
        )
        parts = torch.split(torch.from_numpy(out), list(self._parts.values()), dim=1)
        named = dict(zip(self._parts, parts, strict=True))
        before = np.empty_like(after)
        before[1:] = after[:-1]
        before[plan.firsts.numpy()[lengths > 0]] = start[lengths > 0]
        weights = dict(self._weight_gradients(x.detach(), before, after, named))
        return named["event_gradient"].contiguous(), torch.from_numpy(carried), weights

    def _weight_gradients(
        self,
        x: Tensor,
        before: NDArray[np.uint16],
        after: NDArray[np.uint16],
        parts: dict[str, Tensor],
    ) -> Iterator[tuple[str, Tensor]]:
        """Sums over the events of the outer products of gradient and input."""
        config, layout = self._memory.config, self._memory.layout

        def field(states: NDArray[np.uint16], name: str) -> Tensor:
            part = np.ascontiguousarray(states[:, layout.columns(name)])
            return torch.from_numpy(part.view(np.float16)).float()

        inputs = torch.cat([x, field(before, "r")], dim=1)
        yield from _gate_gradients(
            "controller", parts["controller_gates"], inputs, field(before, "h")
        )
        heads = parts["heads_gradient"][:, : len(self._memory.heads.weight)]
        yield "heads.weight", heads.T @ field(after, "h")
        yield "heads.bias", heads.sum(0)
        if config.utilization:
            yield "balance.weight", parts["logits_gradient"].T @ field(before, "g")
        if config.routing:
            yield "route.weight", parts["routes_gradient"].T @ x
        if config.induction:
            picks = config.top_k
            # Widths in full, not as -1, which cannot be told of a batch without any event.
            widths = [config.memory_width, config.channel_width]
            seen = parts["channel_inputs"].reshape(len(x) * picks, sum(widths))
            slot, channel = torch.split(seen, widths, dim=1)
            gates = parts["channel_gates"].reshape(len(x) * picks, 4 * config.channel_width)
            inputs = torch.cat([x.repeat_interleave(picks, 0), slot], dim=1)
            yield from _gate_gradients("channel", gates, inputs, channel)


def _gate_gradients(
    name: str, gates: Tensor, inputs: Tensor, hidden: Tensor
) -> Iterator[tuple[str, Tensor]]:
    """A GRU's gradients; `gates` are those of reset, update, new, and its recurrent part."""
    reset_update, new, recurrent = torch.split(
        gates, [2 * hidden.shape[1], hidden.shape[1], hidden.shape[1]], dim=1
    )
    grad_input = torch.cat([reset_update, new], dim=1)
    grad_hidden = torch.cat([reset_update, recurrent], dim=1)
    yield f"{name}.weight_ih", grad_input.T @ inputs
    yield f"{name}.weight_hh", grad_hidden.T @ hidden
    yield f"{name}.bias_ih", grad_input.sum(0)
    yield f"{name}.bias_hh", grad_hidden.sum(0)


def _transposed(weight: Tensor) -> Matrix:
    return Matrix(*pack(weight.detach().T, torch.zeros(weight.shape[1])))


def _transposed_gates(cell: nn.GRUCell) -> Matrix:
    """From gradients of [reset; update; new; recurrent] to those of [input; hidden]."""
    inputs, hidden = cell.weight_ih.detach(), cell.weight_hh.detach()
    two = 2 * cell.hidden_size
    from_input = torch.cat([inputs, torch.zeros_like(inputs[two:])])
    from_hidden = torch.cat([hidden[:two], torch.zeros_like(hidden[two:]), hidden[two:]])
    return _transposed(torch.cat([from_input, from_hidden], dim=1))
