"""The fast fold on a CPU: a network's weights, packed, and the call of the compiled kernel.

`PackedNetwork.fold` is the forward pass of training on a CPU as well as of serving, so the two
cannot differ by a bit. The kernel itself is `uic.models.kernels.fold`.
"""

import threading
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uic.models.kernels.arguments import Floats, FoldBuffers, Gates, Sizes, Weights
from uic.models.kernels.fold import BLOCK, fold_tiles
from uic.models.kernels.lanes import LANES
from uic.models.memory.network import MemoryNetwork


class PackedNetwork:
    """A network's weights as the kernel wants them; holds copies, made once for many folds."""

    def __init__(self, memory: MemoryNetwork) -> None:
        config, layout = memory.config, memory.layout
        none = torch.zeros(0, 0)
        self.sizes = Sizes(
            slots=config.slots,
            event=config.event_width,
            width=config.memory_width,
            controller=config.controller,
            channel=config.channel_width,
            top_k=config.top_k,
            utilization_horizon=float(config.utilization_horizon_events),
            pool_horizon=float(config.pool_horizon_events),
            clip=config.clip,
            epsilon=config.cosine_epsilon,
            sharpening=config.sharpening,
            utilization=config.utilization,
            induction=config.induction,
            routing=config.routing,
            state=layout.floats,
            **{name: layout.columns(name).start for name in ("S", "h", "r", "g", "pool")},
        )
        heads, heads_bias = pack(memory.heads.weight, memory.heads.bias)
        balance, balance_bias = pack(
            memory.balance.weight if config.utilization else none, torch.zeros(config.slots**2)
        )
        route, route_bias = pack(
            none if memory.route is None else memory.route.weight, torch.zeros(2 * config.slots)
        )
        self._thread = threading.local()
        self.weights = Weights(
            controller=_pack_gates(memory.controller),
            heads=heads,
            heads_bias=heads_bias,
            balance=balance,
            balance_bias=balance_bias,
            channel=_pack_gates(memory.channel if config.induction else torch.nn.GRUCell(1, 1)),
            route=route,
            route_bias=route_bias,
        )

    def fold(
        self,
        x: Tensor,
        lengths: NDArray[np.int64],
        counts: NDArray[np.int64],
        *,
        start: NDArray[np.uint16],
        save_rows: NDArray[np.int64],
        saved: NDArray[np.uint16],
    ) -> Floats:
        """Fold groups of events.

        Args:
            x: (events, event width), float32, on the CPU, one group after the other.
            lengths: (groups,), events of each group.
            counts: (groups,), events that its starting state has seen.
            start: (groups, floats), float16 bits of the starting states.
            save_rows: (events,), the row of `saved` that gets the state after the event, or -1.
            saved: (rows, floats), float16 bits, written.

        Returns:
            (groups, slots), float32, each group's sums of re-balanced write weights.
        """
        totals = np.zeros((len(lengths), self.sizes.slots), dtype=np.float32)
        order = np.argsort(-lengths, kind="stable")
        firsts = np.cumsum(lengths) - lengths
        # One set a thread: the kernel runs without Python's lock.
        buffers = getattr(self._thread, "buffers", None)
        if buffers is None:
            buffers = self._thread.buffers = _buffers(self.sizes)
        events = np.ascontiguousarray(x.detach().numpy(), dtype=np.float32)
        fold_tiles(
            self.sizes,
            self.weights,
            buffers,
            events,
            order[lengths[order] > 0],
            firsts,
            lengths,
            counts,
            start,
            save_rows,
            saved,
            totals,
        )
        return totals


def pack(weight: Tensor, bias: Tensor) -> tuple[Floats, Floats]:
    """(outputs, inputs) and (outputs,) as (blocks, inputs, 8) and (blocks, 8), zero-padded."""
    outputs, inputs = weight.shape
    blocks = -(-outputs // BLOCK)
    packed = np.zeros((blocks * BLOCK, inputs), dtype=np.float32)
    packed[:outputs] = weight.detach().numpy()
    biases = np.zeros(blocks * BLOCK, dtype=np.float32)
    biases[:outputs] = bias.detach().numpy()[:outputs]
    packed = packed.reshape(blocks, BLOCK, inputs).transpose(0, 2, 1)
    return np.ascontiguousarray(packed), biases.reshape(blocks, BLOCK)


def _pack_gates(cell: torch.nn.GRUCell) -> Gates:
    two = 2 * cell.hidden_size
    both = torch.cat([cell.weight_ih[:two], cell.weight_hh[:two]], dim=1)
    return Gates(
        *pack(both, cell.bias_ih[:two] + cell.bias_hh[:two]),
        *pack(cell.weight_ih[two:], cell.bias_ih[two:]),
        *pack(cell.weight_hh[two:], cell.bias_hh[two:]),
    )


def aligned(rows: int, dtype: type) -> NDArray[Any]:
    """Zeros of shape (rows, 16), on a 64-byte boundary: one register, one cache line."""
    width = LANES * np.dtype(dtype).itemsize
    raw = np.zeros(rows * width + 64, dtype=np.uint8)
    first = -raw.ctypes.data % 64
    return raw[first : first + rows * width].view(dtype).reshape(rows, LANES)


def _buffers(sizes: Sizes) -> FoldBuffers:
    hidden = max(sizes.controller, sizes.channel)
    rows = {
        "state": sizes.state,
        "inputs": sizes.event + sizes.width + hidden,
        "gates": 2 * hidden,
        "fresh": hidden,
        "recurrent": hidden,
        "heads": 4 * sizes.width + 2,
        "read_weights": sizes.slots,
        "write_weights": sizes.slots,
        "routes": 2 * sizes.slots,
        "balanced": sizes.slots,
        "logits": sizes.slots**2,
        "totals": sizes.slots,
        "seen": 1,
    }
    buffers = {name: aligned(count + BLOCK, np.float32) for name, count in rows.items()}
    return FoldBuffers(halves=aligned(sizes.state, np.uint16), **buffers)
