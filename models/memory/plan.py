"""The schedule of a batched fold: active groups per step, and where each cut is taken."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class FoldPlan:
    """A fold's bookkeeping. All tensors are int64 on the CPU; "sorted" is longest group first.

    Attributes:
        lengths: (groups,), events of each group.
        firsts: (groups,), index of each group's first event.
        order: (groups,), the group at each sorted place.
        place: (groups,), the sorted place of each group.
        running: for each step, how many groups, the first in sorted order, have an event.
        cut_groups: (cuts,), the group of each cut.
        cut_lengths: (cuts,), the events that each cut has seen.
        cut_order: (cuts,), the cuts by length.
        cuts_at: for each number of events, 0 to the longest, how many cuts have seen that many.
    """

    lengths: Tensor
    firsts: Tensor
    order: Tensor
    place: Tensor
    running: list[int]
    cut_groups: Tensor
    cut_lengths: Tensor
    cut_order: Tensor
    cuts_at: list[int]

    @classmethod
    def of(cls, lengths: Tensor, cut_groups: Tensor, cut_lengths: Tensor) -> "FoldPlan":
        """The plan for groups of these lengths."""
        order = torch.argsort(lengths, descending=True, stable=True)
        longest = int(lengths.max()) if len(lengths) else 0
        # How many groups have more than k events: all but those of length k or less.
        ended = torch.bincount(lengths, minlength=longest + 1).cumsum(0)[:longest]
        return cls(
            lengths=lengths,
            firsts=lengths.cumsum(0) - lengths,
            order=order,
            place=invert(order),
            running=(len(lengths) - ended).tolist(),
            cut_groups=cut_groups,
            cut_lengths=cut_lengths,
            cut_order=torch.argsort(cut_lengths, stable=True),
            cuts_at=torch.bincount(cut_lengths, minlength=longest + 1).tolist(),
        )

    @property
    def longest(self) -> int:
        """Events of the longest group: steps of the fold."""
        return len(self.running)

    def events_at(self, step: int) -> Tensor:
        """Index of the event that each running group folds in `step`, in sorted order."""
        return self.firsts[self.order[: self.running[step]]] + step

    def cut_rows(self) -> list[Tensor]:
        """For each number of events, the cuts that have seen that many: indices of cuts."""
        return list(torch.split(self.cut_order, self.cuts_at))


def invert(order: Tensor) -> Tensor:
    """The permutation that undoes `order`."""
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order))
    return back
