"""The activation unit of DIN: how much one event of a history says about one candidate.

On a CPU in float32 the pairs are compiled (`uic.models.kernels.attention`); anywhere else torch
does the same.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from uic.models.kernels.attention import blend, blend_backward, score_pairs, score_pairs_backward
from uic.models.kernels.lanes import LANES
from uic.models.layers.distinct_pairs import DistinctPairs
from uic.models.layers.kernel_arrays import arrays, compiles
from uic.models.layers.windows import Pairs


class AttentionUnit(nn.Module):
    """Score of a pair: a small network over [q, k, q - k, q * k] (DIN, section 4.3, figure 2).

    The first layer is linear in its input, so its four blocks are applied where they are cheap:
    to each query once and to each key once. Only the block of q * k is computed for each pair.

    Args:
        query_width: of a candidate.
        key_width: of an event or a channel; a query of another width is mapped to it first.
        widths: of the two hidden layers.
    """

    def __init__(
        self, query_width: int, key_width: int, widths: tuple[int, int] = (80, 40)
    ) -> None:
        super().__init__()
        self.match = (
            nn.Identity() if query_width == key_width else nn.Linear(query_width, key_width)
        )
        self.first = nn.Linear(4 * key_width, widths[0])
        self.rest = nn.Sequential(
            nn.PReLU(widths[0]),
            nn.Linear(widths[0], widths[1]),
            nn.PReLU(widths[1]),
            nn.Linear(widths[1], 1),
        )

    def forward(self, queries: Tensor, keys: Tensor, query_of: Tensor, key_of: Tensor) -> Tensor:
        """Scores of pairs.

        Args:
            queries: (queries, query width).
            keys: (keys, key width).
            query_of: (pairs,) int64, the query of each pair.
            key_of: (pairs,) int64, the key of each pair.

        Returns:
            (pairs,), not normalised.
        """
        queries = self.match(queries)
        w_query, w_key, w_difference, w_product = self.first.weight.chunk(4, dim=1)
        proj_q = queries @ (w_query + w_difference).T + self.first.bias
        proj_k = keys @ (w_key - w_difference).T
        products = queries.index_select(0, query_of) * keys.index_select(0, key_of)
        hidden = torch.addmm(proj_q.index_select(0, query_of), products, w_product.T)
        scores: Tensor = self.rest(hidden + proj_k.index_select(0, key_of))
        return scores.squeeze(1)

    def attend(self, queries: Tensor, keys: Tensor, pairs: DistinctPairs) -> tuple[Tensor, Tensor]:
        """Softmax over what each impression looks at, and the sum of it.

        Args:
            queries: (queries, query width), of `pairs.queries`.
            keys: (keys, key width), of `pairs.keys`.
            pairs: which query looks at which key.

        Returns:
            (entries,), of which an impression's add up to 1, and (impressions, key width).
        """
        scores = self.scores(queries, keys, pairs)
        if compiles(keys):
            width = keys.shape[1]
            weights, sums = _Blend.apply(scores, _padded(keys), pairs)  # type: ignore[no-untyped-call]  # torch's
            return weights, sums[:, :width]
        entries = _entries(pairs)
        times = pairs.times.to(scores.dtype)
        weights = entries.softmax(scores[pairs.entries] + times.log())
        return weights, entries.sums(weights.unsqueeze(1) * keys.index_select(0, entries.events))

    def attend_raw(self, queries: Tensor, keys: Tensor, pairs: DistinctPairs) -> Tensor:
        """As `attend`, weighted by the scores themselves (DIN, section 4.3): (impressions, w)."""
        entries = _entries(pairs)
        weights = self.scores(queries, keys, pairs)[pairs.entries] * pairs.times
        return entries.sums(weights.unsqueeze(1) * keys.index_select(0, entries.events))

    def scores(self, queries: Tensor, keys: Tensor, pairs: DistinctPairs) -> Tensor:
        """`forward` of the distinct pairs: (pairs,)."""
        if compiles(keys):
            return self._compiled_scores(queries, keys, pairs)
        query_of = torch.repeat_interleave(pairs.offsets.diff())
        scores: Tensor = self(queries, keys, query_of, pairs.key_of)
        return scores

    def _compiled_scores(self, queries: Tensor, keys: Tensor, pairs: DistinctPairs) -> Tensor:
        queries = self.match(queries)
        w_query, w_key, w_difference, w_product = self.first.weight.chunk(4, dim=1)
        proj_q = torch.addmm(self.first.bias, queries, (w_query + w_difference).T)
        weights = dict(self.rest.named_parameters())
        scores: Tensor = _Scores.apply(  # type: ignore[no-untyped-call]  # torch's
            pairs,
            _padded(queries),
            _padded(proj_q),
            _padded(keys),
            _padded((w_key - w_difference).T, both=True),
            _padded(w_product.T, both=True),
            _padded(weights["0.weight"]),
            _padded(weights["1.weight"].T, both=True),
            _padded(weights["1.bias"]),
            _padded(weights["2.weight"]),
            _padded(weights["3.weight"][0]),
            weights["3.bias"],
        )
        return scores


def _entries(pairs: DistinctPairs) -> Pairs:
    """What each impression looks at, as indices of keys."""
    counts = pairs.entry_offsets.diff()
    return Pairs(torch.repeat_interleave(counts), pairs.key_of[pairs.entries], counts)


def _padded(values: Tensor, *, both: bool = False) -> Tensor:
    """Zeros behind the last dimension, or the last two, up to a multiple of what a lane holds."""
    pad = [0, -values.shape[-1] % LANES]
    if both:
        pad += [0, -values.shape[0] % LANES]
    return functional.pad(values, pad) if any(pad) else values


class _Scores(torch.autograd.Function):
    """`kernels.attention.score_pairs` with its gradient."""

    @staticmethod
    def forward(ctx: Any, pairs: DistinctPairs, *tensors: Tensor) -> Tensor:
        queries, proj_q, keys, *weights = arrays(*tensors)
        scores = torch.empty(pairs.key_of.shape[0])
        offsets, key_of = pairs.offsets.numpy(), pairs.key_of.numpy()
        score_pairs(queries, proj_q, keys, offsets, key_of, tuple(weights), scores.numpy())
        ctx.pairs = pairs
        ctx.save_for_backward(*tensors)
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Any, ...]:
        pairs, tensors = ctx.pairs, ctx.saved_tensors
        gradients = [torch.zeros(tensor.shape) for tensor in tensors]
        queries, proj_q, keys, *weights = arrays(*tensors)
        grad_queries, grad_proj_q, grad_keys, *grad_weights = arrays(*gradients)
        second = weights[3].T.copy()
        score_pairs_backward(
            queries,
            proj_q,
            keys,
            pairs.offsets.numpy(),
            pairs.key_of.numpy(),
            tuple(weights),
            second,
            upstream.contiguous().numpy(),
            (grad_queries, grad_proj_q, grad_keys, tuple(grad_weights)),
        )
        return None, *gradients


class _Blend(torch.autograd.Function):
    """`kernels.attention.blend` with its gradient."""

    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, keys: Tensor, pairs: DistinctPairs
    ) -> tuple[Tensor, Tensor]:
        weights = torch.empty(pairs.entries.shape[0])
        sums = torch.zeros(pairs.entry_offsets.shape[0] - 1, keys.shape[1])
        blended = pairs.key_of, pairs.entry_offsets, pairs.entries, pairs.times
        blend(*arrays(scores, keys, *blended, weights, sums))
        ctx.pairs = pairs
        ctx.save_for_backward(scores, keys, weights)
        return weights, sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_weights: Tensor, grad_sums: Tensor) -> tuple[Any, ...]:
        scores, keys, weights = ctx.saved_tensors
        pairs = ctx.pairs
        grad_scores, grad_keys = torch.zeros(scores.shape), torch.zeros(keys.shape)
        blend_backward(
            *arrays(keys, pairs.key_of, pairs.entry_offsets, pairs.entries, weights),
            *arrays(grad_weights, grad_sums, grad_scores, grad_keys),
        )
        return grad_scores, grad_keys, None
