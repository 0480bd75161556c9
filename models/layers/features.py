"""Features beside ids, as a part of the head's input."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from uic.models.features.fitted import FittedFeature, FittedFeatures
from uic.models.samples.batch import RankerBatch

_STD = 0.05


class FeatureEmbedding(nn.Module):
    """Encoded features to numbers: tables for categories and buckets, numbers as they are.

    A list of categories is the mean of its members. The row of a missing value is zero at first.

    Args:
        fitted: in the order in which a batch has them.
    """

    def __init__(self, fitted: FittedFeatures) -> None:
        super().__init__()
        self.tables = nn.ParameterDict()
        self.width = 0
        self._fitted = fitted.fitted
        for feature in fitted.fitted:
            self.width += feature.numbers
            if feature.rows:
                width = feature.feature.width
                table = torch.randn(feature.rows, width) * _STD
                table[0] = 0.0
                self.tables[_name(feature)] = nn.Parameter(table)
                self.width += width

    def forward(self, batch: RankerBatch) -> Tensor:
        """(impressions, width)."""
        parts = []
        for feature, encoded in zip(self._fitted, batch.features, strict=True):
            if not feature.rows:
                parts.append(encoded)
                continue
            table = self.tables[_name(feature)]
            if encoded.ndim == 1:
                parts.append(functional.embedding(encoded, table))
                continue
            there = (encoded > 0).to(table.dtype).unsqueeze(2)  # row 0: beyond the end of the list
            summed = (functional.embedding(encoded, table) * there).sum(1)
            parts.append(summed / there.sum(1).clamp(min=1))
        return torch.cat(parts, dim=1)


def _name(feature: FittedFeature) -> str:
    """Of its table among a module's parameters, which may have no dots."""
    return feature.named.key.replace(".", "_", 1)
