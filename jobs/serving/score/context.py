"""The context of a request: values by name, each for all candidates or one a candidate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from uic.models.features.definition import Feature, Kind, NamedFeature
from uic.models.features.raw import FeatureValueError, RawValues, raw_values


@dataclass(frozen=True)
class RequestContext:
    """What a request says beside its candidates.

    Attributes:
        values: by name: a value, or a list parallel to the request's candidates.
        rows: of the candidates to be scored, their places in the request.
        count: candidates of the request.
    """

    values: Mapping[str, Any]
    rows: Sequence[int]
    count: int

    @classmethod
    def of(
        cls, values: Mapping[str, Any] | None, item_ids: Sequence[int], scored: Sequence[int]
    ) -> Self | None:
        """The context of candidates.

        Args:
            values: of the request; None for none.
            item_ids: of the request; of a repeated one the first place counts.
            scored: distinct candidates, some or all of them, in any order.
        """
        if values is None:
            return None
        count = len(item_ids)
        if len(scored) == count and list(scored) == list(item_ids):
            return cls(values, range(count), count)
        place = {
            item_id: at
            for at, item_id in zip(range(count - 1, -1, -1), item_ids[::-1], strict=True)
        }
        return cls(values, [place[item_id] for item_id in scored], count)

    def raw(self, named: NamedFeature) -> RawValues:
        """A feature's raw values: (1,) for all candidates, or (candidates,); or (…, width).

        Raises:
            FeatureValueError: a value is of another type, or there is not one for each candidate.
        """
        given, where = self.values[named.name], f"context.{named.name}"
        if not _one_a_candidate(named.feature, given):
            return raw_values(named.feature, [given], where)
        if len(given) != self.count:
            msg = f"{where}: {len(given)} values for {self.count} item_ids"
            raise FeatureValueError(msg)
        return raw_values(named.feature, given, where)[np.asarray(self.rows, np.int64)]


def _one_a_candidate(feature: Feature, given: Any) -> bool:
    """Whether a value is a list of values; of a feature of lists, a list of lists."""
    if not isinstance(given, list):
        return False
    if feature.type in (Kind.CATEGORIES, Kind.EMBEDDING):
        return any(isinstance(value, list) for value in given)
    return True
