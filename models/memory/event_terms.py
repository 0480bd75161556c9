"""What an event tells the network beside its item: its behaviour, its gap, its hour.

Each is a learned vector that is added to the event's embedding before the fold, so a purchase is
more than a click, while a record keeps its layout and a candidate its vector. All three are
functions of the log and of the record: the gap is from the event time of the user's event before,
which the record's header holds, so training, warm-up, stream and audit compute the same bits.
"""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from uic.models.memory.settings import EventFeature

HOUR_MS: Final = 3_600_000
# Of a time that no event is before.
NO_EVENT: Final = -1
# Row 0: no event before. Then one a doubling of the seconds; the last from 2^24 (194 days) on.
_GAP_ROWS: Final = 27
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


class EventTerms(nn.Module):
    """Vectors that are added to events; zero at first.

    Args:
        features: in the order in which they are added.
        width: of an event.
    """

    def __init__(self, features: tuple[EventFeature, ...], width: int) -> None:
        super().__init__()
        self._features = features
        self.tables = nn.ParameterDict(
            {
                feature.value: nn.Parameter(torch.zeros(_ROWS[feature], width))
                for feature in features
            }
        )

    def forward(
        self,
        x: Tensor,
        behaviors: NDArray[np.int8],
        times_ms: NDArray[np.int64],
        before_ms: NDArray[np.int64],
    ) -> Tensor:
        """Events with what they tell: (events, width) to the same; arguments of `event_codes`."""
        for feature in self._features:
            codes = event_codes(feature, behaviors, times_ms, before_ms)
            rows = torch.from_numpy(codes).to(x.device)
            x = x + functional.embedding(rows, self.tables[feature.value])
        return x
