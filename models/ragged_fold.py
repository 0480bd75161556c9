"""Folding: the events of many users into their memories, and the state at every cut.

This is the whole of learning from behaviour (DESIGN, "The way of the data"). Training folds a
window and looks at the state at every impression (`fold_groups`); warm-up, stream and audit fold
raw events into packed records with the same code (`models.fold`).

The order of a fold:

1. Groups are sorted by length, longest first.
2. Step k advances every group with more than k events by one event.
3. After each step, the states that a cut asks for are kept.
4. The kept states are put into the order of the request.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from models.errors import BadInputError
from models.memory import MemoryNetwork
from models.memory_state import MemoryState

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
        rounding: to float16 after every event; off only to check gradients.

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
    if start is None:
        start = memory.initial(len(lengths))
    cuts = (cut_groups, cut_lengths)
    return _fold_stepwise(memory, x, lengths, cuts, start, rounding=rounding)


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
        msg = (
            f"events: embedding of event {event} is {float(x[event, column])} at {column}, "
            f"expected finite numbers up to {MAX_EMBEDDING:g}; check the bundle's embedding tables"
        )
        raise EventValueError(msg)


def _fold_stepwise(
    memory: MemoryNetwork,
    x: Tensor,
    lengths: Tensor,
    cuts: tuple[Tensor, Tensor],
    start: MemoryState,
    *,
    rounding: bool,
) -> GroupFold:
    """`fold_groups` by torch alone, one `MemoryNetwork.step` on all running groups at a time."""
    # 1. Longest first, so that the running groups are always the first rows.
    order = torch.argsort(lengths, descending=True, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    firsts = (lengths.cumsum(0) - lengths)[order]
    longest = int(lengths.max()) if len(lengths) else 0
    running = (lengths.unsqueeze(1) > torch.arange(longest)).sum(0).tolist()
    cut_groups, cut_lengths = cuts
    # Cuts by length, so that each step looks at one slice of them.
    by_length = torch.argsort(cut_lengths, stable=True)
    cut_rows = rank[cut_groups[by_length]]
    cuts_at = torch.bincount(cut_lengths, minlength=longest + 1).tolist()
    device = x.device
    state = start.select(order.to(device))
    kept: list[MemoryState] = []
    totals = x.new_zeros(len(lengths), memory.config.slots)
    seen = 0
    for done in range(longest + 1):
        # 3. Keep what the cuts after `done` events ask for.
        if cuts_at[done]:
            kept.append(state.select(cut_rows[seen : seen + cuts_at[done]].to(device)))
            seen += cuts_at[done]
        if done == longest:
            break
        # 2. One event for each group that still has one.
        active = running[done]
        events = x[(firsts[:active] + done).to(device)]
        state, writes = memory.step_with_writes(
            state.select(slice(0, active)), events, rounding=rounding
        )
        if writes is not None:
            totals = totals + functional.pad(writes, (0, 0, 0, len(lengths) - active))
    # 4. Back into the order of the request.
    states = MemoryState.concatenate(kept) if kept else memory.initial(0)
    back = torch.empty_like(by_length)
    back[by_length] = torch.arange(len(back))
    states = states.select(back.to(device))
    if not memory.config.utilization:
        return GroupFold(states, x.new_zeros(()), None)
    totals = totals[rank.to(device)]
    return GroupFold(states, memory.regularization(totals, lengths.to(device)), totals)
