"""Folding: the events of many users into their memories, and the state at every cut.

This is the whole of learning from behaviour (docs/concepts.md, "The way of the data"). Training
folds a window and looks at the state at every impression (`fold_groups`); warm-up, stream and audit
fold raw events into packed records with the same code (`uic.models.memory.fold`).

The order of a fold:

1. Groups are sorted by length, longest first.
2. Step k advances every group with more than k events by one event.
3. After each step, the states that a cut asks for are kept.
4. The kept states are put into the order of the request.

On a CPU, steps 2 and 3 are `uic.models.memory.kernel`, with or without gradients: a state after n
events is a pure function of those events, to the bit, whatever else is in the batch, on one machine
type.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from uic.models.errors import BadInputError
from uic.models.memory.gradient import fold_rows
from uic.models.memory.network import MemoryNetwork
from uic.models.memory.plan import FoldPlan, invert
from uic.models.memory.state import MAX_EVENTS, MemoryState

# The largest float16; an embedding beyond it would be infinite in the pool.
MAX_EMBEDDING = 65504.0


class EventValueError(BadInputError):
    """An event's embedding is not finite, or too large for float16."""


@dataclass(frozen=True)
class GroupFold:
    """What a fold of groups gives.

    Attributes:
        states: one row per requested cut, in the order of the request.
        regularization: scalar, L_reg of all groups; zero without utilisation.
        write_totals: (groups, slots), each slot's sum of re-balanced write weights (the paper's
            Fig. 6); None without utilisation.
    """

    states: MemoryState
    regularization: Tensor
    write_totals: Tensor | None


def fold_groups(
    memory: MemoryNetwork,
    x: Tensor,
    lengths: Tensor,
    cut_groups: Tensor,
    cut_lengths: Tensor,
    *,
    start: MemoryState | None = None,
    rounding: bool = True,
) -> GroupFold:
    """Fold each group's events in order, and give the state at every cut, in one pass.

    Args:
        memory: the network.
        x: (events, event width), the groups' events one group after the other.
        lengths: (groups,), int64, events of each group; 0 is allowed.
        cut_groups: (cuts,), int64, the group of each cut.
        cut_lengths: (cuts,), int64, how many of its group's events a cut has seen; 0 to length.
        start: states to start from, one a group; default new users.
        rounding: to float16 after every event; off only to measure what it costs, and to check
            gradients: rounding has none of its own.

    Returns:
        States with one row per cut, L_reg, and the write totals.

    Raises:
        EventValueError: an embedding is NaN, infinite or beyond float16.
        BadInputError: lengths do not add up, or a cut lies beyond its group.
    """
    lengths, cut_groups, cut_lengths = (
        indices.to(device="cpu", dtype=torch.int64)
        for indices in (lengths, cut_groups, cut_lengths)
    )
    check_groups(memory, x, lengths, cut_groups, cut_lengths)
    plan = FoldPlan.of(lengths, cut_groups, cut_lengths)
    if start is None:
        start = memory.initial(len(lengths), rounding=rounding)
    if rounding and kernel_fits(memory, x):
        rows, totals = fold_rows(memory, plan, x, start)
        seen = (start.count[cut_groups] + cut_lengths).clamp(max=MAX_EVENTS)
        states = MemoryState.from_rows(rows, seen, memory.layout)
    else:
        states, totals = _fold_stepwise(memory, plan, x, start, rounding=rounding)
    if not memory.config.utilization:
        return GroupFold(states, x.new_zeros(()), None)
    return GroupFold(states, memory.regularization(totals, lengths.to(x.device)), totals)


def kernel_fits(memory: MemoryNetwork, x: Tensor) -> bool:
    """Whether the kernel can fold: float32 on a CPU, and a state that float16 holds."""
    weight = memory.initial_memory
    plain = all(t.dtype == torch.float32 and t.device.type == "cpu" for t in (x, weight))
    return plain and memory.config.fits_record


def check_groups(
    memory: MemoryNetwork, x: Tensor, lengths: Tensor, cut_groups: Tensor, cut_lengths: Tensor
) -> None:
    """Refuse events, lengths and cuts that do not fit each other (see `fold_groups`)."""
    width = memory.config.event_width
    if x.dim() != 2 or x.shape[1] != width:
        msg = f"events: shape {tuple(x.shape)}, expected (events, {width})"
        raise BadInputError(msg)
    if int(lengths.sum()) != x.shape[0]:
        msg = f"lengths: add up to {int(lengths.sum())}, but there are {x.shape[0]} events"
        raise BadInputError(msg)
    check_values(x)
    if len(cut_groups):
        wrong = ((cut_lengths < 0) | (cut_lengths > lengths[cut_groups])).nonzero()
        if len(wrong):
            cut = int(wrong[0])
            msg = (
                f"cuts: cut {cut} is after {int(cut_lengths[cut])} events, "
                f"its group has {int(lengths[cut_groups[cut]])}"
            )
            raise BadInputError(msg)


def check_values(x: Tensor) -> None:
    """Refuse embeddings that would poison a memory for good.

    Raises:
        EventValueError: names the first event, and the value found.
    """
    # A NaN makes the maximum NaN, and no comparison with NaN holds: one pass for both.
    if x.numel() and not bool(x.detach().abs().max() <= MAX_EMBEDDING):
        bad = ~(x.detach().abs() <= MAX_EMBEDDING)
        event, column = bad.nonzero()[0].tolist()
        value = float(x.detach()[event, column])
        msg = (
            f"events: embedding of event {event} is {value} at {column}, "
            f"expected finite numbers up to {MAX_EMBEDDING:g}; check the bundle's embedding tables"
        )
        raise EventValueError(msg)


def _fold_stepwise(
    memory: MemoryNetwork, plan: FoldPlan, x: Tensor, start: MemoryState, *, rounding: bool
) -> tuple[MemoryState, Tensor]:
    """By torch alone, one `MemoryNetwork.step` on all running groups at a time.

    For accelerators, float64 and the paper's running sum. Its last bits may depend on what else
    is in the batch, because those of a matrix product depend on its number of rows.
    """
    device = x.device
    # 1. Longest first, so that the running groups are always the first rows.
    state = start.select(plan.order.to(device))
    cut_rows = plan.cut_rows()
    states_at_cuts: list[MemoryState] = []
    totals = x.new_zeros(len(plan.lengths), memory.config.slots)
    for done in range(plan.longest + 1):
        # 3. Keep what the cuts after `done` events ask for.
        cuts = cut_rows[done]
        if len(cuts):
            states_at_cuts.append(state.select(plan.place[plan.cut_groups[cuts]].to(device)))
        if done == plan.longest:
            break
        # 2. One event for each group that still has one.
        active = plan.running[done]
        events = x[plan.events_at(done).to(device)]
        state, writes = memory.step_with_writes(
            state.select(slice(0, active)), events, rounding=rounding
        )
        if writes is not None:
            totals = totals + functional.pad(writes, (0, 0, 0, len(totals) - active))
    # 4. Back into the order of the request.
    states = MemoryState.concatenate(states_at_cuts) if states_at_cuts else memory.initial(0)
    return states.select(invert(plan.cut_order).to(device)), totals[plan.place.to(device)]
