"""RUM, feature level: a user memory addressed by global features (Chen et al., WSDM 2018).

Each of K slots belongs to a latent feature f_k, the same for all users. For an event or candidate
q, with `z = softmax(beta F q)`:

    read:   p = sum_k z_k m_k
    erase:  m_k <- m_k (1 - z_k e),  e = sigmoid(E q + b)
    add:    m_k <- m_k + z_k a,      a = tanh(A q + c)

The paper's head input is [item, sum, read]; memories start at zero. Addresses do not depend on the
memory, so all of them are computed at once and only erase and add run event by event, once per
group.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from uic.models.layers.embedding import BatchRows
from uic.models.layers.head_inputs import ITEM, SUM
from uic.models.layers.ranker_settings import WindowedSettings
from uic.models.layers.windows import group_windows
from uic.models.rankers.ranker import Outputs, Ranker
from uic.models.samples.batch import RankerBatch


class RumSettings(WindowedSettings):
    """Hyper-parameters of the user memory."""

    slots: Annotated[int, Field(ge=1, le=1024)] = Field(
        8, description="latent features, each with a slot of the memory; count"
    )
    sharpness: Annotated[float, Field(gt=0)] = Field(
        1.0, description="factor on similarities before the softmax (beta)"
    )


class Rum(Ranker):
    """A memory written by events and read by candidates.

    Args:
        settings: hyper-parameters.
        item_rows: rows of the item table.
        category_rows: rows of the category table.
    """

    def __init__(self, settings: RumSettings, item_rows: int, category_rows: int) -> None:
        width = settings.item_width + settings.category_width
        limit = settings.history_limit
        own, paper = {"read": width}, (ITEM, SUM, "read")
        super().__init__(settings, item_rows, category_rows, own, paper, limit=limit)
        self.limit, self.sharpness = limit, settings.sharpness
        self.features = nn.Parameter(torch.randn(settings.slots, width) * width**-0.5)
        self.erase = nn.Linear(width, width)
        self.add = nn.Linear(width, width)

    def outputs(self, batch: RankerBatch, rows: BatchRows) -> Outputs:
        """See `Ranker.outputs`."""
        candidates = rows.candidates(batch)
        windows = group_windows(batch, self.limit)
        memories = self._memories(rows.history(batch)[windows.events])
        ends = batch.lengths - windows.firsts[batch.groups]
        read = torch.einsum("nk,nkd->nd", self._address(candidates), memories[ends, batch.groups])
        return self.finish({"read": read}, batch, rows)

    def _address(self, queries: Tensor) -> Tensor:
        """(..., width) to (..., slots), rows sum to 1."""
        return torch.softmax(self.sharpness * queries @ self.features.T, dim=-1)

    def _memories(self, x: Tensor) -> Tensor:
        """Memory before the first and after each event.

        Args:
            x: (groups, steps, width).

        Returns:
            (steps + 1, groups, slots, width).
        """
        z = self._address(x).unsqueeze(3)  # (groups, steps, slots, 1)
        keep = 1 - z * torch.sigmoid(self.erase(x)).unsqueeze(2)  # (groups, steps, slots, width)
        added = z * torch.tanh(self.add(x)).unsqueeze(2)
        memory = x.new_zeros(x.shape[0], *self.features.shape)
        memories = [memory]
        for step in range(x.shape[1]):
            memory = memory * keep[:, step] + added[:, step]
            memories.append(memory)
        return torch.stack(memories)
