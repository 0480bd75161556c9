"""Multi-way attention without its input (IMN, eq. 2 and 3).

The paper's first layer sees `[x - m, x - v, x * m, x * v]`, 4 x width numbers for each pair of a
query (m, v) and an event x. It is linear in x once m and v are fixed, with W1 = [A B C D]:

    W1 [x - m, x - v, x * m, x * v] + b1  =  E x + c,
    E = A + B + C diag(m) + D diag(v)     (hidden x width, one for each query)
    c = b1 - A m - B v                    (hidden, one for each query)

So a query is turned into a small matrix once, and the scores of a whole history are one matrix
product with the events themselves, which all queries of a view share. A hidden layer of all pairs
is never kept: the sums are compiled (`uic.models.rankers.imn.sums`) or torch's, tile by tile
(`uic.models.rankers.imn.tiles`).
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from uic.models.rankers.imn.settings import Attention, Distance
from uic.models.rankers.imn.sums import Formula, compiled_sums, compiles
from uic.models.rankers.imn.tiles import Scorer, Sight, Tile, events_of, tile_weights, tiled_sums

# Numbers of a hidden layer that are computed at a time: a megabyte or two, which a core's cache
# holds. A GPU wants more in flight, and has the memory.
_TILE: Final = {False: 1 << 18, True: 1 << 27}


def tiles(view_of: Tensor, steps: int, hidden: int) -> list[Tile]:
    """Cut pairs of (query, view) into tiles of dense matrix products.

    Views of about as many queries go together: the padding is at most half of a tile.

    Args:
        view_of: (queries,) int64.
        steps: of a view.
        hidden: width of the hidden layer.
    """
    if not view_of.numel() or not steps:
        return []
    limit = max(_TILE[view_of.device.type == "cuda"] // (steps * hidden), 1)  # queries
    order = torch.argsort(view_of, stable=True)
    views, counts = torch.unique_consecutive(view_of[order], return_counts=True)
    firsts = counts.cumsum(0) - counts
    found = []
    for size, chosen in _size_classes(counts):
        width = min(size, limit)
        rows = max(limit // width, 1)
        for part in torch.split(chosen, rows):
            for start in range(0, size, width):
                places = start + torch.arange(width, device=view_of.device)
                used = places < counts[part].unsqueeze(1)
                at = firsts[part].unsqueeze(1) + places
                found.append(Tile(views[part], order[at.clamp(max=order.numel() - 1)], used))
    return found


def _size_classes(counts: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Views by number of queries: 1, 2, 3, 4, 6, 8, 12, 16, ...; (largest of the class, views)."""
    remaining = torch.argsort(counts, stable=True)
    ordered = counts[remaining]
    low, size = 0, 1
    while low < remaining.numel():
        high = int(torch.searchsorted(ordered, size, right=True))
        if high > low:
            yield int(ordered[high - 1]), remaining[low:high]
            low = high
        power = size & (size - 1) == 0
        size = size + 1 if size < 4 else (size * 3 // 2 if power else size * 4 // 3)


class _Blocks(NamedTuple):
    """What E and c are made of: (hidden, width) each, or as broadcasting makes it.

    Attributes:
        common: S = A + B.
        products: C, and D unless the target is left out.
        differences: [A B], or A without the target; None if the first layer sees no difference.
    """

    common: Tensor
    products: tuple[Tensor, ...]
    differences: Tensor | None


class MultiWayAttention(nn.Module):
    """Weighted sums of events for queries (m, v) (IMN, eq. 2, 3 and 5).

    Args:
        width: of events, memories and targets.
        hidden: of the first layer.
        distance: what the first layer sees.
        weighting: sigmoid or softmax.
        target: False leaves v out (delayed cross).
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        distance: Distance = Distance.MULTIWAY,
        weighting: Attention = Attention.SIGMOID,
        *,
        target: bool = True,
    ) -> None:
        super().__init__()
        self.distance = distance
        self.softmax = weighting is Attention.SOFTMAX
        self.target = target
        terms = (2 if distance is Distance.DOT else 4 * width) // (1 if target else 2)
        self.first = nn.Linear(terms, hidden)
        self.second = nn.Linear(hidden, 1)

    def effective(self, memory: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """E and c of each query: (queries, hidden, width) and (queries, hidden).

        Args:
            memory: (queries, width), m.
            target: (queries, width), v; not looked at with a delayed cross.
        """
        blocks = self._blocks()
        matrix = blocks.common.unsqueeze(0)
        for block, other in zip(blocks.products, (memory, target), strict=False):
            matrix = matrix + block * other.unsqueeze(1)
        return matrix, self._constant(blocks, memory, target)

    def _blocks(self) -> _Blocks:
        weight, others = self.first.weight, 2 if self.target else 1
        if self.distance is Distance.DOT:
            # w1 (x . m) = (w1 m^T) x
            return _Blocks(weight.new_zeros(1, 1), weight.unsqueeze(2).unbind(1), None)
        differences, products = weight.chunk(2, dim=1)
        first, second = differences.chunk(others, dim=1), products.chunk(others, dim=1)
        if self.distance is Distance.HADAMARD:
            both = tuple(a + c for a, c in zip(first, second, strict=True))
            return _Blocks(weight.new_zeros(1, 1), both, None)
        return _Blocks(sum(first[1:], first[0]), second, differences)

    def _constant(self, blocks: _Blocks, memory: Tensor, target: Tensor) -> Tensor:
        """The vector c of each query: (queries, hidden)."""
        if blocks.differences is None:
            return self.first.bias.expand(memory.shape[0], -1)
        others = torch.cat([memory, target], dim=1) if self.target else memory
        return torch.addmm(self.first.bias, others, blocks.differences.T, alpha=-1)

    def _formula(self, memory: Tensor, target: Tensor) -> Formula:
        blocks = self._blocks()
        none = blocks.common.new_zeros(1, 1)
        shape = self.first.out_features, memory.shape[1]
        of_memory, of_target = (*blocks.products, none)[:2]
        return Formula(
            blocks.common.expand(shape),
            of_memory.expand(shape),
            of_target.expand(shape),
            self._constant(blocks, memory, target),
            self.second.weight[0],
            self.second.bias,
        )

    def forward(self, x: Tensor, memory: Tensor, target: Tensor, sight: Sight) -> Tensor:
        """Weighted sums of the events that each query sees: (queries, width).

        Args:
            x: (views, steps, width).
            memory: (queries, width).
            target: (queries, width).
            sight: which events each query looks at; none gives 0.
        """
        if compiles(x, softmax=self.softmax):
            seen = sight.view_of, sight.firsts, sight.ends
            return compiled_sums(x, memory, target, self._formula(memory, target), seen)
        scorer = self._scorer(memory, target)
        return tiled_sums(x, scorer, sight, softmax=self.softmax)

    @torch.no_grad()
    def entropies(self, x: Tensor, memory: Tensor, target: Tensor, sight: Sight) -> Tensor:
        """Entropy in nats of each query's weights, divided by their sum; 0 without events.

        The paper plots "attention entropy" (fig. 5b) of weights that do not sum to 1, without a
        formula. Arguments as in `forward`.
        """
        scorer = self._scorer(memory, target)
        found = x.new_zeros(memory.shape[0])
        for tile in sight.cut:
            events = events_of(x, tile)
            weights = tile_weights(events, scorer, sight, tile, softmax=self.softmax)
            shares = weights / weights.sum(2, keepdim=True).clamp(min=1e-30)
            entropy = torch.special.entr(shares).sum(2)
            found[tile.queries[tile.used]] = entropy[tile.used]
        return found

    def _scorer(self, memory: Tensor, target: Tensor) -> Scorer:
        effective, constant = self.effective(memory, target)
        return Scorer(effective, constant, self.second.weight[0], self.second.bias)
