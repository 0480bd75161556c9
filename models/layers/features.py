"""Features beside ids, as a part of the head's input."""

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn import functional

from uic.models.features.definition import Owner
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
            self.width += part_width(feature)
            if feature.rows:
                table = torch.randn(feature.rows, feature.feature.width) * _STD
                table[0] = 0.0
                self.tables[_name(feature)] = nn.Parameter(table)

    def forward(self, batch: RankerBatch) -> Tensor:
        """(impressions, width)."""
        if batch.embedded_features is not None:
            return batch.embedded_features
        encoded = zip(self._fitted, batch.features, strict=True)
        return torch.cat([self.part(feature, values) for feature, values in encoded], dim=1)

    @property
    def widths(self) -> dict[str, int]:
        """Numbers of each feature, by its key."""
        return {one.named.key: part_width(one) for one in self._fitted}

    def width_of(self, owners: Collection[Owner]) -> int:
        """Numbers of the features of some owners."""
        return sum(part_width(one) for one in self._fitted if one.named.owner in owners)

    def of(self, batch: RankerBatch, owners: Collection[Owner]) -> Tensor:
        """The features of some owners alone: (impressions, `width_of` them)."""
        parts = [
            self.part(feature, values)
            for feature, values in zip(self._fitted, batch.features, strict=True)
            if feature.named.owner in owners
        ]
        return torch.cat([batch.labels.new_zeros(len(batch.groups), 0), *parts], dim=1)

    def part(self, feature: FittedFeature, encoded: Tensor) -> Tensor:
        """The numbers of one feature: (n,) or (n, most) rows, or (n, numbers), to (n, width)."""
        if not feature.rows:
            return encoded
        table = self.tables[_name(feature)]
        if encoded.ndim == 1:
            return functional.embedding(encoded, table)
        there = (encoded > 0).to(table.dtype).unsqueeze(2)  # row 0: beyond the end of the list
        summed = (functional.embedding(encoded, table) * there).sum(1)
        return summed / there.sum(1).clamp(min=1)


def part_width(feature: FittedFeature) -> int:
    """Numbers that a feature gives the head."""
    return feature.feature.width if feature.rows else feature.numbers


def _name(feature: FittedFeature) -> str:
    """Of its table among a module's parameters, which may have no dots."""
    return feature.named.key.replace(".", "_", 1)
