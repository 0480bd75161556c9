"""The activation unit of DIN: how much one event of a history says about one candidate."""

import torch
from torch import Tensor, nn


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
        by_query, by_key, by_difference, by_product = self.first.weight.chunk(4, dim=1)
        of_queries = queries @ (by_query + by_difference).T + self.first.bias
        of_keys = keys @ (by_key - by_difference).T
        products = queries.index_select(0, query_of) * keys.index_select(0, key_of)
        hidden = torch.addmm(of_queries.index_select(0, query_of), products, by_product.T)
        scores: Tensor = self.rest(hidden + of_keys.index_select(0, key_of))
        return scores.squeeze(1)
