"""Multi-way attention without its input (IMN, eq. 2 and 3).

The paper's first layer sees `[x - m, x - v, x * m, x * v]`, 4 x width numbers for each pair of a
query (m, v) and an event x. It is linear in x once m and v are fixed, with W1 = [A B C D]:

    W1 [x - m, x - v, x * m, x * v] + b1  =  E x + c,
    E = A + B + C diag(m) + D diag(v)     (hidden x width, one for each query)
    c = b1 - A m - B v                    (hidden, one for each query)

So a query is turned into a small matrix once, and the scores of a whole history are one matrix
product with the events themselves, which all queries of a view share. The hidden layer exists
for a tile of pairs at a time and is computed again in the backward pass: what is kept for each
pair is its weight.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.imn_settings import Attention, Distance
from models.imn_sums import compiled_sums, compiles

# Numbers of a hidden layer that are computed at a time: a megabyte or two, which a core's cache
# holds. A GPU wants more in flight, and has the memory.
_TILE: Final = {False: 1 << 18, True: 1 << 27}


@dataclass(frozen=True)
class Tile:
    """Some views and, for each, as many of its queries; unused places have `ends` 0.

    Attributes:
        views: (views,) int64.
        queries: (views, queries) int64; an unused place repeats a query.
        used: (views, queries) bool.
    """

    views: Tensor
    queries: Tensor
    used: Tensor


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


@dataclass(frozen=True)
class Sight:
    """Which events each query looks at.

    Attributes:
        view_of: (queries,) int64.
        firsts: (queries,) int64, first step of its view.
        ends: (queries,) int64, step after the last.
        cut: `tiles` of the queries.
    """

    view_of: Tensor
    firsts: Tensor
    ends: Tensor
    cut: list[Tile]


class _Scorer(NamedTuple):
    """What gives a pair its score: `second . sigmoid(effective x + constant) + bias`.

    Attributes:
        effective: (queries, hidden, width), E.
        constant: (queries, hidden), c.
        second: (hidden,), W2.
        bias: (1,), b2.
    """

    effective: Tensor
    constant: Tensor
    second: Tensor
    bias: Tensor


class _WeightedSums(torch.autograd.Function):
    """Sum of each query's events, weighted by attention; see `weighted_sums`."""

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes by place
        ctx: Any,
        x: Tensor,
        effective: Tensor,
        constant: Tensor,
        second: Tensor,
        bias: Tensor,
        sight: Sight,
        softmax: bool,  # noqa: FBT001
    ) -> Tensor:
        scorer = _Scorer(effective, constant, second, bias)
        sums = x.new_zeros(effective.shape[0], x.shape[2])
        kept = []
        for tile in sight.cut:
            events = _of_views(x, tile)
            weights = _weights(events, scorer, sight, tile, softmax=softmax)
            partial = torch.bmm(weights, events)  # (views, queries, width)
            # A place that is not used has weights 0 and repeats some query.
            sums.index_add_(0, tile.queries.flatten(), partial.flatten(0, 1))
            kept.append(weights)
        ctx.save_for_backward(x, *scorer, *kept)
        ctx.cut, ctx.softmax = sight.cut, softmax
        return sums

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        (grad,) = grads
        x, effective, constant, second, bias, *kept = ctx.saved_tensors
        of_x, of_effective = torch.zeros_like(x), torch.zeros_like(effective)
        of_constant, of_second = torch.zeros_like(constant), torch.zeros_like(second)
        of_bias = torch.zeros_like(bias)
        width, hidden = x.shape[2], second.shape[0]
        for tile, weights in zip(ctx.cut, kept, strict=True):
            events = _of_views(x, tile)  # (views, steps, width)
            views, queries = tile.queries.shape
            wanted = grad[tile.queries]  # (views, queries, width)
            of_weights = torch.bmm(wanted, events.transpose(1, 2))  # (views, queries, steps)
            if ctx.softmax:
                mean = (weights * of_weights).sum(2, keepdim=True)
                of_scores = of_weights.sub_(mean).mul_(weights)
            else:
                # sigmoid' = w (1 - w) = w - w * w
                of_scores = of_weights.mul_(torch.addcmul(weights, weights, weights, value=-1))
            layer = _hidden(events, effective, constant, tile)
            layer = layer.view(views * queries, hidden, -1)
            scores = of_scores.view(views * queries, -1)
            of_second += torch.bmm(layer, scores.unsqueeze(2)).sum(0).squeeze(1)
            of_bias += scores.sum()
            # h (1 - h), in place: the tile's hidden layer is not needed any more. W2 is left out
            # here and multiplied into what is small.
            before = layer.addcmul_(layer, layer, value=-1).mul_(scores.unsqueeze(1))
            before = before.view(views, queries * hidden, -1)
            places = tile.queries.flatten()
            of_matrices = torch.bmm(before, events).view(-1, hidden, width)
            of_effective.index_add_(0, places, of_matrices * second.unsqueeze(1))
            of_constant.index_add_(0, places, before.sum(2).view(-1, hidden) * second)
            matrices = (effective * second.unsqueeze(1))[tile.queries]
            of_events = torch.bmm(before.transpose(1, 2), matrices.view(views, -1, width))
            of_events.baddbmm_(weights.transpose(1, 2), wanted)
            of_x.index_add_(0, tile.views, of_events)
        return of_x, of_effective, of_constant, of_second, of_bias, None, None


def _of_views(x: Tensor, tile: Tile) -> Tensor:
    """Events of a tile's views: (views, steps, width); without a copy where there is one view."""
    if tile.views.shape[0] == 1:
        return x.narrow(0, int(tile.views[0]), 1)
    return x.index_select(0, tile.views)


def _hidden(events: Tensor, effective: Tensor, constant: Tensor, tile: Tile) -> Tensor:
    """The hidden layer of a tile: (views, queries * hidden, steps)."""
    views = tile.views.shape[0]
    matrices = effective[tile.queries].flatten(1, 2)  # (views, queries * hidden, width)
    # c as one more column: adding it to the product would be another pass over all pairs.
    matrices = torch.cat([matrices, constant[tile.queries].view(views, -1, 1)], dim=2)
    columns = functional.pad(events, (0, 1), value=1.0)
    return torch.bmm(matrices, columns.transpose(1, 2)).sigmoid_()


def _weights(events: Tensor, scorer: _Scorer, sight: Sight, tile: Tile, *, softmax: bool) -> Tensor:
    """Weights of a tile's pairs, 0 where a query does not look: (views, queries, steps)."""
    views, queries = tile.queries.shape
    layer = _hidden(events, scorer.effective, scorer.constant, tile)
    layer = layer.view(views * queries, scorer.second.shape[0], -1)
    # bmm and not matmul, which would copy the hidden layer to turn it.
    second = scorer.second.expand(views * queries, 1, -1)
    scores = torch.bmm(second, layer).view(views, queries, -1).add_(scorer.bias)
    firsts = sight.firsts[tile.queries]
    ends = torch.where(tile.used, sight.ends[tile.queries], 0)
    if bool((firsts == 0).all()) and bool((ends >= events.shape[1]).all()):
        return torch.softmax(scores, dim=2) if softmax else scores.sigmoid_()
    steps = torch.arange(events.shape[1], device=events.device)
    seen = (steps >= firsts.unsqueeze(2)) & (steps < ends.unsqueeze(2))
    if softmax:
        scores = scores.masked_fill_(~seen, torch.finfo(scores.dtype).min)
        return torch.softmax(scores, dim=2).mul_(seen)
    return scores.sigmoid_().mul_(seen)


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
        weight, bias = self.first.weight, self.first.bias
        others = (memory, target) if self.target else (memory,)
        if self.distance is Distance.DOT:
            # w1 (x . m) = (w1 m^T) x
            columns = weight.T
            matrices = [
                columns[k].unsqueeze(1) * other.unsqueeze(1) for k, other in enumerate(others)
            ]
            return sum(matrices[1:], matrices[0]), bias.expand(memory.shape[0], -1)
        half = weight.chunk(2, dim=1)
        first, products = (part.chunk(len(others), dim=1) for part in half)
        if self.distance is Distance.HADAMARD:
            parts = [
                (a + c) * other.unsqueeze(1)
                for a, c, other in zip(first, products, others, strict=True)
            ]
            return sum(parts[1:], parts[0]), bias.expand(memory.shape[0], -1)
        shared = sum(first[1:], first[0])
        matrix = shared.unsqueeze(0)
        for block, other in zip(products, others, strict=True):
            matrix = matrix + block * other.unsqueeze(1)
        constant = bias - torch.cat(others, dim=1) @ torch.cat(first, dim=1).T
        return matrix, constant

    def forward(self, x: Tensor, memory: Tensor, target: Tensor, sight: Sight) -> Tensor:
        """Weighted sums of the events that each query sees: (queries, width).

        Args:
            x: (views, steps, width).
            memory: (queries, width).
            target: (queries, width).
            sight: which events each query looks at; none gives 0.
        """
        scorer = self._scorer(memory, target)
        if compiles(x) and not self.softmax:
            return compiled_sums(x, scorer, (sight.view_of, sight.firsts, sight.ends))
        sums = _WeightedSums.apply(  # type: ignore[no-untyped-call] # torch's own is untyped
            x, *scorer, sight, self.softmax
        )
        return cast("Tensor", sums)

    @torch.no_grad()
    def entropies(self, x: Tensor, memory: Tensor, target: Tensor, sight: Sight) -> Tensor:
        """Entropy in nats of each query's weights, divided by their sum; 0 without events.

        The paper plots "attention entropy" (fig. 5b) of weights that do not sum to 1, without a
        formula. Arguments as in `forward`.
        """
        scorer = self._scorer(memory, target)
        found = x.new_zeros(memory.shape[0])
        for tile in sight.cut:
            events = _of_views(x, tile)
            weights = _weights(events, scorer, sight, tile, softmax=self.softmax)
            shares = weights / weights.sum(2, keepdim=True).clamp(min=1e-30)
            entropy = torch.special.entr(shares).sum(2)
            found[tile.queries[tile.used]] = entropy[tile.used]
        return found

    def _scorer(self, memory: Tensor, target: Tensor) -> _Scorer:
        effective, constant = self.effective(memory, target)
        return _Scorer(effective, constant, self.second.weight[0], self.second.bias)
