"""The memory network of MIMN: what one behaviour event does to one user's memory.

The equations are the eight steps of docs/concepts.md ("MIMN, as built"); each is a function here,
and `MemoryNetwork.step` runs them in order. This module is the network that is trained (any device,
any float type, with gradients); `uic.models.memory.kernel` does the same eight steps for many
events at once and is held against this one by tests.

Points that the paper leaves open and that are closed here for good: the memory is read before it
is written; the controller is a GRU over [x; r] with the previous read; keys and the add vector go
through tanh, the erase vector through a sigmoid; the products of eq. 4 are elementwise; P is made
from the write weights of the events before this one (eq. 5 would need its own result); S, h, r, g
and the pool start from zero; channels that are not picked keep their value. The others are fields
of `MemoryConfig`.
"""

from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from uic.models.layers.batch_sums import BatchSums
from uic.models.layers.gru_start import begin_as_mean
from uic.models.memory.event_terms import EventTerms
from uic.models.memory.settings import MemoryConfig
from uic.models.memory.state import MAX_EVENTS, MemoryState, StateLayout

__all__ = ["MemoryConfig", "MemoryNetwork", "MemoryState", "StateLayout"]

# Seed of the initial memory: a constant of the model, not of a run.
_INITIAL_MEMORY_SEED: Final = 20190804


class _RoundToHalf(torch.autograd.Function):
    """Round to float16 and back; the gradient passes straight through."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:  # noqa: ARG004 - torch's signature
        return value.half().to(value.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        return gradient


def round_to_half(value: Tensor) -> Tensor:
    """`value` rounded to what a record can hold, with a straight-through gradient."""
    rounded: Tensor = _RoundToHalf.apply(value)  # type: ignore[no-untyped-call]
    return rounded


def address(
    key: Tensor, strength: Tensor, memory: Tensor, epsilon: float, routes: Tensor | None = None
) -> Tensor:
    """Content addressing: softmax over slots of `strength * cos(key, slot)` (eq. 1 and 2).

    Args:
        key: (users, width).
        strength: (users,), at least 1; the paper has none, and its weights stay nearly uniform.
        memory: (users, slots, width).
        epsilon: added to the product of the squared norms.
        routes: (users, slots), added before the softmax (`MemoryConfig.routing`); None for none.

    Returns:
        (users, slots), each row sums to 1.
    """
    dots = (memory * key.unsqueeze(1)).sum(2)  # (users, slots)
    norms = memory.square().sum(2) * key.square().sum(1, keepdim=True)
    scores = strength.unsqueeze(1) * dots / (norms + epsilon).sqrt()
    return functional.softmax(scores if routes is None else scores + routes, dim=1)


def rebalance(weights: Tensor, logits: Tensor) -> Tensor:
    """Re-balanced write weights w P, P the row-wise softmax of the logits (eq. 5 and 6).

    Args:
        weights: (users, slots), the write weights.
        logits: (users, slots * slots), W_g g; row i of P says where slot i's share goes.

    Returns:
        (users, slots), each row sums to 1.
    """
    slots = weights.shape[1]
    transfer = functional.softmax(logits.view(-1, slots, slots), dim=2)
    return (weights.unsqueeze(2) * transfer).sum(1)


def read(weights: Tensor, memory: Tensor) -> Tensor:
    """The read vector, sum over slots of weight times slot (eq. 3): (users, width)."""
    return (weights.unsqueeze(2) * memory).sum(1)


def write(memory: Tensor, weights: Tensor, erase: Tensor, add: Tensor) -> Tensor:
    """Erase and add: M(i) <- (1 - w(i) erase) * M(i) + w(i) add (eq. 4).

    Args:
        memory: (users, slots, width).
        weights: (users, slots).
        erase: (users, width), in (0, 1).
        add: (users, width).

    Returns:
        (users, slots, width).
    """
    share = weights.unsqueeze(2)  # (users, slots, 1)
    return memory - share * erase.unsqueeze(1) * memory + share * add.unsqueeze(1)


def pick_channels(weights: Tensor, top_k: int) -> Tensor:
    """The `top_k` slots of largest weight, ties to the lowest index: (users, top_k), int64."""
    return torch.sort(weights, dim=1, descending=True, stable=True).indices[:, :top_k]


def mean_step(count: Tensor, horizon_events: int, dtype: torch.dtype) -> Tensor:
    """How far a running mean moves towards event number `count`: (users, 1).

    1 / count makes a mean of everything; from `horizon_events` on it is a moving mean, because in
    float16 a step of 1 / count would round to nothing after some thousand events.
    """
    return 1.0 / count.clamp(1, horizon_events).to(dtype).unsqueeze(1)


class Control(NamedTuple):
    """What the controller says of an event: (users, any) each.

    Attributes:
        h: the controller's next state.
        read_key: (users, memory width), in (-1, 1).
        write_key: likewise.
        erase: (users, memory width), in (0, 1).
        add: (users, memory width), in (-1, 1).
        strengths: (users, 2), of reading and writing.
    """

    h: Tensor
    read_key: Tensor
    write_key: Tensor
    erase: Tensor
    add: Tensor
    strengths: Tensor


class MemoryNetwork(BatchSums):
    """One memory per user, moved by one behaviour event at a time (MIMN, section 4).

    Parameters are few and shared by all users; `initial` makes a new user's state, `step` folds
    one event into each of a batch of states. `uic.models.memory.fold` folds whole histories.

    Args:
        config: sizes and switches.
    """

    def __init__(self, config: MemoryConfig) -> None:
        super().__init__()
        self.config = config
        self.layout = StateLayout.of(config)
        slots, width = config.slots, config.memory_width
        inputs = config.event_width + width
        start = torch.randn(
            slots, width, generator=torch.Generator().manual_seed(_INITIAL_MEMORY_SEED)
        )
        self.initial_memory = nn.Parameter(
            start * config.initial_memory_std,
            requires_grad=config.initial_memory == "learned",
        )
        self.controller = nn.GRUCell(inputs, config.controller)
        if config.controller_half_life_events:
            begin_as_mean(self.controller, config.event_width, config.controller_half_life_events)
        # Outputs in this order: read key, write key, erase, add, then the two strengths.
        strengths = 2 if config.sharpening else 0
        self.heads = nn.Linear(config.controller, 4 * width + strengths)
        if config.utilization:
            self.balance = nn.Linear(slots, slots * slots, bias=False)  # W_g
            with torch.no_grad():
                # g as mean sums to 1, so a row of equal weights c is a logit of c.
                diagonal = self.balance.weight.view(slots, slots, slots)
                diagonal[range(slots), range(slots)] += config.utilization_diagonal
        if config.induction:
            self.channel = nn.GRUCell(inputs, config.channel_width)
        self.route: nn.Linear | None = None
        if config.routing:
            # Scores of the slots for an event: to read, then to write.
            self.route = nn.Linear(config.event_width, 2 * slots, bias=False)
            nn.init.normal_(self.route.weight, std=config.routing_std)
        self.event_terms: EventTerms | None = None
        if config.event_features:
            self.event_terms = EventTerms(config.event_features, config.event_width)

    def initial(self, users: int, *, rounding: bool = True) -> MemoryState:
        """The state of users without an event: the initial memory, and zeros."""
        config = self.config
        like = self.initial_memory
        memory = (round_to_half(like) if rounding else like).expand(users, -1, -1)
        return MemoryState(
            M=memory,
            S=like.new_zeros(users, config.slots, config.channel_width)
            if config.induction
            else None,
            h=like.new_zeros(users, config.controller),
            r=like.new_zeros(users, config.memory_width),
            g=like.new_zeros(users, config.slots) if config.utilization else None,
            pool=like.new_zeros(users, config.event_width),
            count=torch.zeros(users, dtype=torch.int64, device=like.device),
        )

    def step(self, state: MemoryState, x: Tensor, *, rounding: bool = True) -> MemoryState:
        """Fold one event into each user's memory.

        Args:
            state: of some users.
            x: (users, event width), the embedding of each user's next event.
            rounding: to float16 after the event, as a record will hold it; off only to check
                gradients, since rounding has none of its own.

        Returns:
            The state after the event, in the same float type.
        """
        return self.step_with_writes(state, x, rounding=rounding)[0]

    def step_with_writes(
        self, state: MemoryState, x: Tensor, *, rounding: bool = True
    ) -> tuple[MemoryState, Tensor | None]:
        """`step`, and the re-balanced write weights for L_reg: (users, slots), None without MUR.

        With `utilization_gradient: regularization` the state's gradient does not reach W_g; that
        of the returned weights does.
        """
        config = self.config
        count = (state.count + 1).clamp(max=MAX_EVENTS)
        # 1. and 2. Controller: what to read, what to write.
        control = self.control(state, x)
        # 3. Where, on the memory before the write.
        read_weights, write_weights = self.addressed(state, x, control)
        # 4. Utilisation.
        write_weights, balanced, g = self._utilize(state.g, write_weights, count)
        # 5. Read.
        r = read(read_weights, state.M)
        # 6. Write.
        memory = write(state.M, write_weights, control.erase, control.add)
        if rounding:  # here already: the channels see the slot as a record will hold it
            memory = round_to_half(memory)
        # 7. Induction.
        channels = self._induce(state.S, read_weights, memory, x)
        # 8. Pool.
        step = mean_step(count, config.pool_horizon_events, x.dtype)
        pool = state.pool + step * (x - state.pool)
        after = MemoryState(M=memory, S=channels, h=control.h, r=r, g=g, pool=pool, count=count)
        return (self.round(after) if rounding else after), balanced

    def control(self, state: MemoryState, x: Tensor) -> Control:
        """Steps 1 and 2: the controller moves, and says what to read and what to write.

        Args:
            state: of some users.
            x: (users, event width).
        """
        config, width = self.config, self.config.memory_width
        h = self.controller(torch.cat([x, state.r], dim=1), state.h)
        heads = self.heads(h).clamp(-config.clip, config.clip)
        if config.sharpening:
            strengths = 1 + functional.softplus(heads[:, 4 * width :])
        else:
            strengths = torch.ones_like(heads[:, :2])
        return Control(
            h,
            read_key=heads[:, :width].tanh(),
            write_key=heads[:, width : 2 * width].tanh(),
            erase=heads[:, 2 * width : 3 * width].sigmoid(),
            add=heads[:, 3 * width : 4 * width].tanh(),
            strengths=strengths,
        )

    def addressed(self, state: MemoryState, x: Tensor, control: Control) -> tuple[Tensor, Tensor]:
        """Step 3: the weights to read and to write with, before re-balancing: (users, slots) each.

        Args:
            state: before the event.
            x: (users, event width).
            control: of the event.
        """
        to_read = to_write = None
        if self.route is not None:
            to_read, to_write = self.route(x).chunk(2, dim=1)
        memory, strengths, epsilon = state.M, control.strengths, self.config.cosine_epsilon
        return (
            address(control.read_key, strengths[:, 0], memory, epsilon, to_read),
            address(control.write_key, strengths[:, 1], memory, epsilon, to_write),
        )

    def _utilize(
        self, g: Tensor | None, weights: Tensor, count: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Step 4: the weights to write with, the weights for L_reg, and the next g."""
        if g is None:
            return weights, None, None
        balanced = rebalance(weights, self.balance(g))
        if self.config.utilization_gradient == "regularization":
            used = rebalance(weights, functional.linear(g, self.balance.weight.detach()))
        else:
            used = balanced
        if self.config.utilization_input == "sum":
            return used, balanced, g + used
        step = mean_step(count, self.config.utilization_horizon_events, g.dtype)
        return used, balanced, g + step * (used - g)

    def _induce(
        self, channels: Tensor | None, read_weights: Tensor, memory: Tensor, x: Tensor
    ) -> Tensor | None:
        """Step 7: S(i) <- GRU([x; M(i)], S(i)) for the picked channels (eq. 9)."""
        if channels is None:
            return None
        users, top_k = x.shape[0], self.config.top_k
        picked = pick_channels(read_weights, top_k).unsqueeze(2)  # (users, top_k, 1)
        slots = memory.gather(1, picked.expand(-1, -1, memory.shape[2]))
        places = picked.expand(-1, -1, channels.shape[2])
        inputs = torch.cat([x.unsqueeze(1).expand(-1, top_k, -1), slots], dim=2)
        moved = self.channel(inputs.flatten(0, 1), channels.gather(1, places).flatten(0, 1))
        return channels.scatter(1, places, moved.view(users, top_k, -1))

    def round(self, state: MemoryState) -> MemoryState:
        """Every field but M, which is by now, rounded to what its place in a record holds.

        The paper's running sum keeps float32: in float16 it would stop at 2,048.
        """
        keep_g = self.config.utilization_input == "sum"
        return MemoryState(
            M=state.M,
            S=None if state.S is None else round_to_half(state.S),
            h=round_to_half(state.h),
            r=round_to_half(state.r),
            g=state.g if state.g is None or keep_g else round_to_half(state.g),
            pool=round_to_half(state.pool),
            count=state.count,
        )

    def regularization(self, totals: Tensor, events: Tensor) -> Tensor:
        """L_reg = lambda * sum over slots of (total - mean)^2, per event and slot (eq. 7 and 8).

        Args:
            totals: (groups, slots), each group's sum of re-balanced write weights.
            events: (groups,), events of each group.

        Returns:
            A scalar; the sum over the groups divided by the batch's events and slots.
        """
        spread = (totals - totals.mean(1, keepdim=True)).square().sum()
        places = self.over_ranks(events.sum()).clamp(min=1) * self.config.slots
        return self.config.utilization_loss_weight * spread / places
