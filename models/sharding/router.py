"""Who owns an id, and the way there and back: requests, answers, gradients.

`Router` does not know what an owner does for an id: `uic.models.sharding.table.ShardedTable`
answers with a trained row, DICM's image servers compute an answer from what they store and get the
gradient of that answer (`uic.models.sharding.ams_images`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from uic.models.errors import BadInputError
from uic.models.layers.row_table import distinct_rows
from uic.models.sharding.world import ShardWorld


class ShardError(BadInputError):
    """A table cannot be sharded like this, or a shard is asked for what it does not do."""


@dataclass(frozen=True)
class Route:
    """Where the ids of one request live.

    Attributes:
        index: the shape of the ids, int64: which distinct id each one is.
        distinct: (distinct,) int64, ids in the order in which they are sent, owner after owner.
        asked: distinct ids asked of each rank.
        answered: ids that each rank asks of this one.
        rows: (rows,) int64, distinct local rows asked of this rank, by all ranks together.
        places: (sum(answered),) int64, which of `rows` each of them is.
    """

    index: Tensor
    distinct: Tensor
    asked: list[int]
    answered: list[int]
    rows: Tensor
    places: Tensor


class Router:
    """Ids to owners and back: id `i` lives on rank `i % size`, as its local row `i // size`.

    Args:
        world: the ranks.
        rows: of the whole table.

    Raises:
        ShardError: more ranks than rows.
    """

    def __init__(self, world: ShardWorld, rows: int) -> None:
        if world.size > rows:
            msg = f"{world.size} ranks for a table of {rows} rows; use at most {rows} ranks"
            raise ShardError(msg)
        self.world, self.rows = world, rows

    @property
    def local_rows(self) -> int:
        """Rows that this rank owns."""
        return (self.rows - self.world.rank - 1) // self.world.size + 1

    def route(self, ids: Tensor) -> Route:
        """Ask the owners of `ids`; every rank must call it, with no ids if it needs none.

        Args:
            ids: any shape, int64, in [0, rows).

        Raises:
            ShardError: an id outside the table.
            RankDiedError: names the ranks that are gone.
        """
        world = self.world
        if ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= self.rows):
            msg = f"ids from {int(ids.min())} to {int(ids.max())}; the table has {self.rows} rows"
            raise ShardError(msg)
        distinct, index = distinct_rows(ids, self.rows)
        owners = distinct % world.size
        order = torch.argsort(owners, stable=True)
        counts = torch.bincount(owners, minlength=world.size)
        requested = world.exchange_counts(counts)
        asked, answered = counts.tolist(), requested.tolist()
        places = torch.empty_like(order)
        places[order] = torch.arange(order.numel(), device=order.device)
        requests = world.exchange(distinct[order], asked, answered)
        world.traffic.wanted += ids.numel()
        world.traffic.distinct += distinct.numel()
        world.traffic.ids += world.sent_elsewhere(asked) * requests.element_size()
        local, local_places = distinct_rows(requests // world.size, self.local_rows)
        return Route(places[index], distinct[order], asked, answered, local, local_places)

    def fetch(self, route: Route, answer: Callable[[Tensor], Tensor]) -> Tensor:
        """Every rank's answers to its distinct ids.

        Args:
            route: of this step.
            answer: (rows,) int64 local rows to (rows, ...) values; called once with `route.rows`.

        Returns:
            (distinct, ...), detached.

        Raises:
            RankDiedError: names the ranks that are gone.
        """
        values = answer(route.rows).detach().index_select(0, route.places)
        arrived = self.world.exchange(values, route.answered, route.asked)
        self.world.traffic.values += self._bytes_elsewhere(values, route.answered)
        return arrived

    def push(self, route: Route, gradient: Tensor) -> Tensor:
        """Every rank's gradients to the owners, summed there.

        Args:
            route: of this step.
            gradient: (distinct, ...), of the fetched values.

        Returns:
            (rows, ...): the gradient of what was answered for `route.rows`, over all ranks.

        Raises:
            RankDiedError: names the ranks that are gone.
        """
        arrived = self.world.exchange(gradient, route.asked, route.answered)
        self.world.traffic.gradients += self._bytes_elsewhere(gradient, route.asked)
        summed = arrived.new_zeros((route.rows.shape[0], *arrived.shape[1:]))
        return summed.index_add_(0, route.places, arrived)

    def _bytes_elsewhere(self, rows: Tensor, sent: list[int]) -> int:
        each = rows.element_size() * (rows.numel() // max(rows.shape[0], 1))
        return self.world.sent_elsewhere(sent) * each
