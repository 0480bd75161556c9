"""A table over several machines: routing, and a table of trained rows on top of it.

`Router` finds the owner of each id and moves requests, answers and gradients; it does not know
what an owner does for an id. `ShardedTable` looks rows up and moves them with Adam, the moments
beside the rows (LMN's memory parameter server, section 2.2.4). Another service may compute an
answer from what it stores, and get the gradient of that answer (DICM's image servers).

The order of a training step, the same on all ranks:

1. `Router.route`: ids that a rank wants more than once are asked for once.
2. `Router.fetch`: an owner answers each id once, however many ranks asked.
3. The rank computes its loss.
4. `Router.push`: gradients, already summed per id on each rank, are summed at the owner.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.errors import BadInputError
from models.optimizer import RowAdam
from models.row_table import distinct_rows
from models.shard_world import ShardWorld

_SEED: Final = 0x1E37


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
        rows: (rows,) int64, distinct local rows asked of this rank, by anyone.
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

    def owned(self) -> Tensor:
        """Ids of this rank's rows, ascending: (local rows,) int64."""
        return torch.arange(self.world.rank, self.rows, self.world.size)

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
        wanted = world.exchange_counts(counts)
        asked, answered = counts.tolist(), wanted.tolist()
        places = torch.empty_like(order)
        places[order] = torch.arange(order.numel(), device=order.device)
        requests = world.exchange(distinct[order], asked, answered)
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


class ShardedTable(nn.Module):
    """`models.row_table.RowTable` over several ranks; every rank must make the same calls.

    Losses of ranks add up: for the loss of the whole batch, each rank divides the sum over its
    part by the size of the whole.

    Args:
        world: the ranks.
        rows: of the whole table.
        width: of a row.
        std: standard deviation of initial values; row i is the same on any number of ranks.
        serving: look up only; no moments are held, and `step` is an error.
        dtype: of values and moments.
    """

    # Initial values are drawn in blocks of this many rows, each from a seed of its own, so that
    # a rank draws what it owns of a table that no rank could hold.
    BLOCK: Final = 4096

    def __init__(
        self,
        world: ShardWorld,
        rows: int,
        width: int,
        std: float,
        *,
        serving: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.router = Router(world, rows)
        initial = torch.empty(self.router.local_rows, width)
        for start in range(0, rows, self.BLOCK):
            generator = torch.Generator().manual_seed(_SEED + start)
            block = torch.randn(min(self.BLOCK, rows - start), width, generator=generator)
            ids = torch.arange(start, start + block.shape[0])
            own = ids % world.size == world.rank
            initial[ids[own] // world.size] = block[own] * std
        self.weight = nn.Parameter(initial.to(world.device, dtype), requires_grad=False)
        self.serving = serving
        self.adam = None if serving else RowAdam(self.weight.data)
        self.steps = 0
        self._taken: list[tuple[Route, Tensor]] = []

    @property
    def width(self) -> int:
        """Of a row."""
        return self.weight.shape[1]

    def take(self, rows: Tensor) -> Tensor:
        """Rows by id: any shape of int64 to that shape and the width."""
        table, index = self._leaf(rows)
        return functional.embedding(index, table)

    def weighted_sum(self, rows: Tensor, weights: Tensor) -> Tensor:
        """`sum_k weights[:, k] table[rows[:, k]]`: (n, k), (n, k) to (n, width)."""
        table, index = self._leaf(rows)
        return functional.embedding_bag(index, table, mode="sum", per_sample_weights=weights)

    def forget(self) -> None:
        """Drop what forward passes without a step have read."""
        self._taken.clear()

    def step(self, rate: float) -> None:
        """Send the gradients of everything taken to its owners, and move those rows by Adam.

        Raises:
            ShardError: the table serves look-ups only.
            RankDiedError: names the ranks that are gone.
        """
        if self.adam is None:
            msg = "this table was opened for serving: look-ups only; open it with serving=False"
            raise ShardError(msg)
        self.steps += 1
        summed = [
            (route.rows, self.router.push(route, _gradient(leaf))) for route, leaf in self._taken
        ]
        self._taken.clear()
        if not summed:
            return
        rows, index = distinct_rows(
            torch.cat([found for found, _ in summed]), self.router.local_rows
        )
        gradient = self.weight.new_zeros(rows.shape[0], self.width)
        gradient.index_add_(0, index, torch.cat([part for _, part in summed]))
        self.adam.step(rows, gradient, rate, self.steps)

    def _leaf(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The distinct rows from their owners, and the index of each id among them."""
        route = self.router.route(ids)
        leaf = self.router.fetch(route, lambda rows: self.weight.index_select(0, rows))
        if torch.is_grad_enabled() and not self.serving:
            leaf.requires_grad_()
            self._taken.append((route, leaf))
        return leaf, route.index


def _gradient(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
