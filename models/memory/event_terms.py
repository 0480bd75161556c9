"""What an event tells the network beside its item: behaviour, gap, hour, and columns of its own.

Each is a learned vector that is added to the event's embedding before the fold, so a purchase is
more than a click, while a record keeps its layout and a candidate its vector. All are functions of
the log and of the record: the gap is from the event time of the user's event before, which the
record's header holds, so training, warm-up, stream and audit compute the same bits.

A column of events gives one vector a category, or a bucket of a number among the quantiles of the
training days; which are in the bundle. On a scale that rises with the number quantiles stay what
they are, so a number's scale says nothing here.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from uic.models.errors import BadInputError
from uic.models.features.definition import Feature, FeatureSet, Kind, NamedFeature, Scale
from uic.models.features.event_columns import ColumnValues
from uic.models.features.fitted import FittedFeature, FittedFeatures
from uic.models.features.raw import is_missing, missing_values
from uic.models.memory.settings import EventFeature

HOUR_MS: Final = 3_600_000
# Of a time that no event is before.
NO_EVENT: Final = -1
# Row 0: no event before. Then one a doubling of the seconds; the last from 2^24 (194 days) on.
_GAP_ROWS: Final = 27
_BUCKETS: Final = 16
_ROWS: Final = {EventFeature.BEHAVIOR: 4, EventFeature.GAP: _GAP_ROWS, EventFeature.HOUR: 24}


def event_codes(
    feature: EventFeature,
    behaviors: NDArray[np.int8],
    times_ms: NDArray[np.int64],
    before_ms: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Rows of a feature's table: (events,) int64.

    Args:
        feature: which.
        behaviors: (events,), index into the schema's behaviours.
        times_ms: (events,), event times, milliseconds since 1970 UTC.
        before_ms: (events,), event time of the user's event before; `NO_EVENT` for none.
    """
    if feature is EventFeature.BEHAVIOR:
        return behaviors.astype(np.int64)
    if feature is EventFeature.HOUR:
        return np.asarray(times_ms // HOUR_MS % 24)
    seconds = np.maximum(times_ms - before_ms, 0) // 1000
    doublings = np.frexp((seconds + 1).astype(np.float64))[1].astype(np.int64)
    gaps = np.minimum(doublings, _GAP_ROWS - 1)
    return np.where(before_ms == NO_EVENT, 0, gaps)


def times_before(
    times_ms: NDArray[np.int64],
    firsts: NDArray[np.int64],
    before_first_ms: NDArray[np.int64] | int = NO_EVENT,
) -> NDArray[np.int64]:
    """The event time before each event, of one user after the other.

    Args:
        times_ms: (events,).
        firsts: the first event of each user that has any.
        before_first_ms: what was before it, one a user.

    Returns:
        (events,) int64.
    """
    before = np.empty_like(times_ms)
    before[1:] = times_ms[:-1]
    before[firsts] = before_first_ms
    return before


class EventColumnsError(BadInputError):
    """A model reads a column of events that is not there."""


def in_buckets(features: FeatureSet) -> FeatureSet:
    """Features of events as the network takes them: numbers by their place among quantiles."""
    taken = []
    for named in features:
        own = named.feature
        if own.type is Kind.NUMBER and own.scale is not Scale.BUCKETS:
            given = {"column": own.column, "default": own.default, "buckets": _BUCKETS}
            own = Feature(type=Kind.NUMBER, scale=Scale.BUCKETS, **given)
        taken.append(NamedFeature(named.owner, named.name, own))
    return FeatureSet(tuple(taken))


def column_codes(fitted: FittedFeature, values: ColumnValues) -> NDArray[np.int64]:
    """Rows of a column's table: (events,) to (events,) int64; row 0 is of no value."""
    default = missing_values(fitted.feature, 1)[0]
    given = np.where(is_missing(fitted.feature, values), default, values)
    return fitted.encode(given).astype(np.int64, copy=False)


class EventTerms(nn.Module):
    """Vectors that are added to events; zero at first.

    Args:
        features: in the order in which they are added.
        width: of an event.
    """

    def __init__(self, features: tuple[EventFeature | str, ...], width: int) -> None:
        super().__init__()
        self._features, self._width = features, width
        self._fitted: dict[str, FittedFeature] = {}
        self.tables = nn.ParameterDict(
            {
                feature.value: nn.Parameter(torch.zeros(_ROWS[feature], width))
                for feature in features
                if isinstance(feature, EventFeature)
            }
        )

    def attach(self, fitted: FittedFeatures) -> None:
        """Give columns of events their tables; before training, or before weights are loaded.

        Raises:
            EventColumnsError: one is not among `fitted`.
        """
        known = {one.named.key: one for one in fitted.fitted}
        for key in self._features:
            if isinstance(key, EventFeature):
                continue
            if key not in known:
                msg = f"event_features: {key} is not among {', '.join(known) or 'any columns'}"
                raise EventColumnsError(msg)
            self._fitted[key] = known[key]
            table = torch.zeros(known[key].rows, self._width)
            self.tables[_table_name(key)] = nn.Parameter(table)

    def forward(
        self,
        x: Tensor,
        behaviors: NDArray[np.int8],
        times_ms: NDArray[np.int64],
        before_ms: NDArray[np.int64],
        columns: Mapping[str, ColumnValues],
    ) -> Tensor:
        """Events with what they tell: (events, width) to the same.

        Args:
            x: embeddings of events.
            behaviors: see `event_codes`.
            times_ms: see `event_codes`.
            before_ms: see `event_codes`.
            columns: of the events by name, (events,) each.

        Raises:
            EventColumnsError: a column that the model reads is not there.
        """
        for feature in self._features:
            if isinstance(feature, EventFeature):
                codes = event_codes(feature, behaviors, times_ms, before_ms)
            else:
                name = feature.removeprefix("event.")
                if name not in columns:
                    msg = f"events: no column {name}, which the model reads as {feature}"
                    raise EventColumnsError(msg)
                codes = column_codes(self._fitted[feature], columns[name])
            rows = torch.from_numpy(codes).to(x.device)
            x = x + functional.embedding(rows, self.tables[_table_name(feature)])
        return x


def _table_name(feature: str) -> str:
    """Of a parameter, which may have no dots."""
    return str(feature).replace(".", "_")
