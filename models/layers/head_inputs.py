"""One contract for what every ranker feeds its head (docs/adr/022-one-head-contract.md).

Models are compared by what they know of a history, so all of them are given the same basic
features, [item, mean, item * mean], and each adds what it alone knows. `head_inputs=paper` feeds
what the model's paper, or its authors' code, does instead.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from uic.models.errors import BadInputError
from uic.models.layers.embedding import BatchRows
from uic.models.layers.ranker_settings import HeadInputs
from uic.models.layers.windows import window_sums
from uic.models.samples.batch import RankerBatch

ITEM: Final = "item"
SUM: Final = "sum"
MEAN: Final = "mean"
ITEM_SUM: Final = "item * sum"
ITEM_MEAN: Final = "item * mean"

# Of what is pooled, which pool, and whether the candidate multiplies it.
_POOLED: Final[Mapping[str, tuple[str, bool]]] = {
    SUM: (SUM, False),
    MEAN: (MEAN, False),
    ITEM_SUM: (SUM, True),
    ITEM_MEAN: (MEAN, True),
}
COMMON: Final = (ITEM, MEAN, ITEM_MEAN)


@dataclass(frozen=True)
class HeadParts:
    """The features of a head by name, in their order; one after the other they are its input.

    Attributes:
        widths: of each.
        own: names of those that the model computes; all others are basic.
        limit: newest events that the mean and the sum are over; None for all.
    """

    widths: Mapping[str, int]
    own: frozenset[str]
    limit: int | None = None

    @classmethod
    def of(
        cls,
        kind: HeadInputs,
        own: Mapping[str, int],
        paper: Sequence[str] | None,
        *,
        width: int,
        limit: int | None,
    ) -> "HeadParts":
        """The parts that a model's settings ask for.

        Args:
            kind: the common contract, or the paper's.
            own: widths of what the model alone knows, in the order that follows the common parts.
            paper: names, basic ones and the model's own, in the paper's order; None for a model
                without a paper, which keeps to the contract.
            width: of an event.
            limit: see above.
        """
        names = (*COMMON, *own) if paper is None or kind is HeadInputs.COMMON else tuple(paper)
        return cls({name: own.get(name, width) for name in names}, frozenset(own), limit)

    @property
    def width(self) -> int:
        """Of all parts; 0 for a model without a head."""
        return sum(self.widths.values())

    def joined(self, own: Mapping[str, Tensor], batch: RankerBatch, rows: BatchRows) -> Tensor:
        """All parts of a batch, side by side: (impressions, `width`).

        Args:
            own: what the model computed, (impressions, its width) each.
            batch: ragged groups.
            rows: embeddings of its items.

        Raises:
            BadInputError: other names than the model declared.
        """
        if own.keys() != self.own:
            msg = (
                f"the model computed {', '.join(sorted(own)) or 'nothing'} for its head, and "
                f"declared {', '.join(sorted(self.own)) or 'nothing'}; name the same in both"
            )
            raise BadInputError(msg)
        item = total = mean = rows.candidates(batch)
        if not self.own.issuperset(self.widths.keys() - {ITEM}):
            total = window_sums(rows, batch, self.limit)  # (impressions, event width)
            counts = batch.lengths if self.limit is None else batch.lengths.clamp(max=self.limit)
            mean = total / counts.clamp(min=1).unsqueeze(1)
        parts = [
            own[name] if name in own else _basic(name, item, total, mean) for name in self.widths
        ]
        return torch.cat(parts, dim=1)


def _basic(name: str, item: Tensor, total: Tensor, mean: Tensor) -> Tensor:
    """A basic feature from the candidate, and the sum and mean of its history."""
    if name == ITEM:
        return item
    pool, multiplied = _POOLED[name]
    pooled = total if pool == SUM else mean
    return item * pooled if multiplied else pooled
