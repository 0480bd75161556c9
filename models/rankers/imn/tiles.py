"""IMN's weighted sums, a tile of (query, event) pairs at a time, so that memory stays bounded.

The hidden layer exists for one tile: the backward pass computes it again (`checkpoint`) instead of
keeping it. `uic.models.rankers.imn.attention` says what a score is.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

# Numbers of a hidden layer that are computed at a time: a megabyte or two, which a core's cache
# holds. A GPU wants more in flight, and has the memory.
_TILE: Final = {False: 1 << 18, True: 1 << 27}


@dataclass(frozen=True)
class Tile:
    """Some views and, for each, as many of its queries.

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
    """

    view_of: Tensor
    firsts: Tensor
    ends: Tensor


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
    sums = x.new_zeros(scorer.effective.shape[0], x.shape[2])
    cut = _cut(sight, x.shape[1], scorer.second.shape[0])
    if not cut:
        return sums
    # All tiles are gathered at once, so that a backward pass scatters once.
    queries = torch.cat([tile.queries.flatten() for tile in cut])
    shapes = [tile.queries.shape for tile in cut]
    places = [rows * columns for rows, columns in shapes]
    parts = zip(
        cut,
        shapes,
        torch.split(x[torch.cat([tile.views for tile in cut])], [rows for rows, _ in shapes]),
        torch.split(scorer.effective[queries], places),
        torch.split(scorer.constant[queries], places),
        strict=True,
    )
    partial_sums = []
    for tile, shape, events, effective, constant in parts:
        sums_of_tile = partial(_tile_sums, seen=_seen(sight, tile, x.shape[1]), softmax=softmax)
        at_queries = effective.view(*shape, *effective.shape[1:]), constant.view(*shape, -1)
        partial_sums.append(
            checkpoint(
                sums_of_tile,
                events,
                *at_queries,
                *scorer[2:],
                use_reentrant=False,
                preserve_rng_state=False,
            ).flatten(0, 1)
        )
    # A place that is not used has weights 0 and repeats some query.
    return sums.index_add(0, queries, torch.cat(partial_sums))


def entropies(x: Tensor, scorer: Scorer, sight: Sight, *, softmax: bool) -> Tensor:
    """Entropy in nats of each query's weights, divided by their sum; 0 without events."""
    entropy = x.new_zeros(scorer.effective.shape[0])
    for tile in _cut(sight, x.shape[1], scorer.second.shape[0]):
        at_queries = scorer.effective[tile.queries], scorer.constant[tile.queries]
        seen = _seen(sight, tile, x.shape[1])
        weights = _weights(x[tile.views], *at_queries, *scorer[2:], seen=seen, softmax=softmax)
        shares = weights / weights.sum(2, keepdim=True).clamp(min=1e-30)
        entropy[tile.queries[tile.used]] = torch.special.entr(shares).sum(2)[tile.used]
    return entropy


def _seen(sight: Sight, tile: Tile, steps: int) -> Tensor | None:
    """Pairs that count: (views, queries, steps) bool, None if all of them do."""
    firsts = sight.firsts[tile.queries]
    ends = torch.where(tile.used, sight.ends[tile.queries], 0)
    if bool((firsts == 0).all()) and bool((ends >= steps).all()):
        return None
    step = torch.arange(steps, device=firsts.device)
    return (step >= firsts.unsqueeze(2)) & (step < ends.unsqueeze(2))


def _tile_sums(
    events: Tensor,
    effective: Tensor,
    constant: Tensor,
    second: Tensor,
    bias: Tensor,
    *,
    seen: Tensor | None,
    softmax: bool,
) -> Tensor:
    """Weighted sums of a tile: (views, queries, width); arguments as `_weights`."""
    weights = _weights(events, effective, constant, second, bias, seen=seen, softmax=softmax)
    return torch.bmm(weights, events)


def _weights(
    events: Tensor,
    effective: Tensor,
    constant: Tensor,
    second: Tensor,
    bias: Tensor,
    *,
    seen: Tensor | None,
    softmax: bool,
) -> Tensor:
    """Weights of a tile's pairs, 0 where a query does not look: (views, queries, steps).

    Args:
        events: (views, steps, width).
        effective: (views, queries, hidden, width).
        constant: (views, queries, hidden).
        second: (hidden,).
        bias: (1,).
        seen: (views, queries, steps) bool, or None for all.
        softmax: instead of sigmoid.
    """
    views, queries, hidden, _ = effective.shape
    # c as one more column: adding it to the product would be another pass over all pairs.
    matrices = torch.cat([effective, constant.unsqueeze(3)], dim=3).flatten(1, 2)
    columns = functional.pad(events, (0, 1), value=1.0)
    layer = torch.bmm(matrices, columns.transpose(1, 2)).sigmoid_()
    # bmm and not matmul, which would copy the hidden layer to turn it.
    last = second.expand(views * queries, 1, -1)
    scores = torch.bmm(last, layer.view(views * queries, hidden, -1))
    scores = scores.view(views, queries, -1) + bias
    if softmax and seen is not None:
        scores = scores.masked_fill(~seen, torch.finfo(scores.dtype).min)
    weights = scores.softmax(2) if softmax else scores.sigmoid()
    return weights if seen is None else weights * seen


def _cut(sight: Sight, steps: int, hidden: int) -> list[Tile]:
    """Cut pairs of (query, view) into tiles of dense matrix products.

    Views of about as many queries go together: the padding is at most half of a tile.

    Args:
        sight: of the queries.
        steps: of a view.
        hidden: width of the hidden layer.
    """
    view_of = sight.view_of
    if not view_of.numel() or not steps:
        return []
    limit = max(_TILE[view_of.device.type == "cuda"] // (steps * hidden), 1)  # queries
    order = torch.argsort(view_of, stable=True)
    views, counts = torch.unique_consecutive(view_of[order], return_counts=True)
    firsts = counts.cumsum(0) - counts
    cut = []
    for size, members in _size_classes(counts):
        width = min(size, limit)
        rows = max(limit // width, 1)
        for part in torch.split(members, rows):
            for start in range(0, size, width):
                places = start + torch.arange(width, device=view_of.device)
                used = places < counts[part].unsqueeze(1)
                at = firsts[part].unsqueeze(1) + places
                cut.append(Tile(views[part], order[at.clamp(max=order.numel() - 1)], used))
    return cut


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
