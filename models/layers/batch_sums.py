"""Modules whose training depends on a whole batch, also where the batch lies on several ranks."""

from collections.abc import Callable

from torch import Tensor, nn


class BatchSums(nn.Module):
    """A module that divides by what the whole batch holds: a mean, a number of events.

    Attributes:
        sum_over_ranks: sums over all ranks that share a batch (`uic.models.sharding.rank_training`
            sets it); None for one process. Every rank must come here equally often, also with
            nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sum_over_ranks: Callable[[Tensor], Tensor] | None = None

    def over_ranks(self, own: Tensor) -> Tensor:
        """What this rank has of a batch to what all have; without gradient.

        Outside of training ranks score batches of their own, and nothing is summed.

        Args:
            own: of one shape on all ranks.
        """
        if self.sum_over_ranks is None or not self.training:
            return own
        return self.sum_over_ranks(own.detach())
