"""IMN's weighted sums by torch, a tile of pairs at a time: any precision, device and weights.

The hidden layer exists for a tile of pairs at a time and is computed again in the backward pass:
what is kept for each pair is its weight. `uic.models.rankers.imn.attention` says what the scores
are, `uic.models.rankers.imn.sums` has the same sums compiled.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional


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


@dataclass(frozen=True)
class Sight:
    """Which events each query looks at.

    Attributes:
        view_of: (queries,) int64.
        firsts: (queries,) int64, first step of its view.
        ends: (queries,) int64, step after the last.
        cut: `tiles` of the queries; sums that are compiled do without.
    """

    view_of: Tensor
    firsts: Tensor
    ends: Tensor
    cut: list[Tile]


class Scorer(NamedTuple):
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


def tiled_sums(x: Tensor, scorer: Scorer, sight: Sight, *, softmax: bool) -> Tensor:
    """Sum of each query's events, weighted by attention.

    Args:
        x: (views, steps, width).
        scorer: of the queries.
        sight: which events each query looks at; none gives 0.
        softmax: whether weights are that of the scores, or their sigmoid.

    Returns:
        (queries, width).
    """
    sums = _TiledSums.apply(x, *scorer, sight, softmax)  # type: ignore[no-untyped-call] # torch's
    return cast("Tensor", sums)


class _TiledSums(torch.autograd.Function):
    """See `tiled_sums`."""

    @staticmethod
    def forward(  # noqa: PLR0917 - autograd passes by place
        ctx: Any,
        x: Tensor,
        effective: Tensor,
        constant: Tensor,
        second: Tensor,
        bias: Tensor,
        sight: Sight,
        softmax: bool,  # noqa: FBT001 - autograd passes by place
    ) -> Tensor:
        scorer = Scorer(effective, constant, second, bias)
        sums = x.new_zeros(effective.shape[0], x.shape[2])
        kept = []
        for tile in sight.cut:
            events = events_of(x, tile)
            weights = tile_weights(events, scorer, sight, tile, softmax=softmax)
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
            events = events_of(x, tile)  # (views, steps, width)
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


def events_of(x: Tensor, tile: Tile) -> Tensor:
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


def tile_weights(
    events: Tensor, scorer: Scorer, sight: Sight, tile: Tile, *, softmax: bool
) -> Tensor:
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
