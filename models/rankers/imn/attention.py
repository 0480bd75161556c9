"""Multi-way attention without its input (IMN, eq. 2 and 3).

The paper's first layer sees `[x - m, x - v, x * m, x * v]`, 4 x width numbers for each pair of a
query (m, v) and an event x. It is linear in x once m and v are fixed, with W1 = [A B C D]:

    W1 [x - m, x - v, x * m, x * v] + b1  =  E x + c,
    E = A + B + C diag(m) + D diag(v)     (hidden x width, one for each query)
    c = b1 - A m - B v                    (hidden, one for each query)

So a query is turned into a small matrix once, and the scores of a whole history are one matrix
product with the events themselves, which all queries of a view share. The hidden layer of all pairs
is never kept: the sums are computed tile by tile (`uic.models.rankers.imn.tiles`).
"""

import torch
from torch import Tensor, nn

from uic.models.rankers.imn.settings import Attention, Distance
from uic.models.rankers.imn.tiles import Scorer, Sight, entropies, tiled_sums


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

    def forward(self, x: Tensor, memory: Tensor, target: Tensor, sight: Sight) -> Tensor:
        """Weighted sums of the events that each query sees: (queries, width).

        Args:
            x: (views, steps, width).
            memory: (queries, width).
            target: (queries, width).
            sight: which events each query looks at; none gives 0.
        """
        return tiled_sums(x, self._scorer(memory, target), sight, softmax=self.softmax)

    @torch.no_grad()
    def entropies(self, x: Tensor, memory: Tensor, target: Tensor, sight: Sight) -> Tensor:
        """Entropy in nats of each query's weights, divided by their sum; 0 without events.

        The paper plots "attention entropy" (fig. 5b) of weights that do not sum to 1, without a
        formula. Arguments as in `forward`.
        """
        return entropies(x, self._scorer(memory, target), sight, softmax=self.softmax)

    def _scorer(self, memory: Tensor, target: Tensor) -> Scorer:
        weight, bias = self.first.weight, self.first.bias
        others = [memory, target] if self.target else [memory]
        common, constant = weight.new_zeros(1, 1), bias.expand(memory.shape[0], -1)
        if self.distance is Distance.DOT:
            # w1 (x . m) = (w1 m^T) x
            products = weight.unsqueeze(2).unbind(1)
        else:
            w_differences, w_products = weight.chunk(2, dim=1)
            differences = w_differences.chunk(len(others), dim=1)
            products = w_products.chunk(len(others), dim=1)
            if self.distance is Distance.HADAMARD:
                products = tuple(a + c for a, c in zip(differences, products, strict=True))
            else:
                common = torch.stack(differences).sum(0)
                constant = torch.addmm(bias, torch.cat(others, dim=1), w_differences.T, alpha=-1)
        effective = common.unsqueeze(0)
        for block, other in zip(products, others, strict=True):
            effective = effective + block * other.unsqueeze(1)
        return Scorer(effective, constant, self.second.weight[0], self.second.bias)
