"""A history as it looks from a moment: items, elapsed times and positions (IMN, section 4.1).

An encoded event depends on the ranking time and on its place before the impression, and not on
the candidate. So all candidates of a request, and all impressions of a page, share one *view*:
one row of encoded events, however many candidates look at it.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uic.models.errors import BadInputError
from uic.models.rankers.imn.settings import ImnSettings, Position
from uic.models.samples.batch import RankerBatch
from uic.models.samples.groups import GroupBatch, longest

_NO_TIME = np.iinfo(np.int64).min  # what numpy's NaT is as an integer


class MissingTimesError(BadInputError):
    """A model that encodes elapsed times was given a history without them."""


@dataclass(frozen=True)
class Views:
    """Distinct views of a batch, padded at the end to the longest; padding is masked by `ends`.

    Attributes:
        events: (views, steps) int64, indices of events in the batch; padding repeats an event.
        buckets: (views, steps) int64, of elapsed time; None without times.
        positions: (views, steps) int64, from 0; None without positions.
        of: (impressions,) int64, the view of each impression.
        ends: (impressions,) int64, steps of its view that an impression may see.
    """

    events: Tensor
    buckets: Tensor | None
    positions: Tensor | None
    of: Tensor
    ends: Tensor


def views_of(batch: RankerBatch, settings: ImnSettings) -> Views:
    """The distinct views of a batch's impressions.

    Raises:
        MissingTimesError: time buckets are asked for, and an event or impression has no time.
    """
    source = batch.source
    lengths = source.history_lengths
    groups = source.impression_groups
    firsts = np.maximum(lengths - settings.history_limit, 0)
    newest = settings.positions is Position.NEWEST
    clock = np.zeros_like(lengths)
    if settings.time_buckets:
        check_times(source)
        clock = source.event_times_ms // (1000 * settings.ranking_clock_seconds)
    # From the newest end every position moves with each event, from the oldest with the window.
    keys = np.stack([groups, firsts, lengths if newest else np.zeros_like(lengths), clock])
    distinct, of = _distinct_columns(keys)
    view_groups, view_firsts, _, view_clocks = distinct
    counts = np.zeros(distinct.shape[1], dtype=np.int64)
    np.maximum.at(counts, of, lengths - firsts)
    steps = np.arange(int(counts.max(initial=0)))
    places = np.minimum(steps, np.maximum(counts - 1, 0)[:, None]) + view_firsts[:, None]
    events = source.history_offsets[view_groups][:, None] + places
    # An empty last history would point behind the last event of the batch.
    events = np.minimum(events, max(source.events - 1, 0))
    buckets = positions = None
    if settings.time_buckets and source.events:
        moments = view_clocks * (1000 * settings.ranking_clock_seconds)
        elapsed_ms = moments[:, None] - source.history_times_ms[events]
        buckets = elapsed_buckets(elapsed_ms, settings.time_unit_seconds, settings.time_buckets)
    if settings.positions is not Position.NONE:
        back = np.maximum(counts[:, None] - 1 - steps, 0)
        positions = back if newest else np.broadcast_to(steps, events.shape)
    device = batch.lengths.device
    return Views(
        events=torch.from_numpy(events).to(device),
        buckets=None if buckets is None else torch.from_numpy(buckets).to(device),
        positions=None if positions is None else torch.from_numpy(positions.copy()).to(device),
        of=torch.from_numpy(of).to(device),
        ends=torch.from_numpy(lengths - firsts).to(device),
    )


def _distinct_columns(keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`np.unique` of columns with the index of each; that one takes seven times as long."""
    order = np.lexsort(keys[::-1])
    ordered = keys[:, order]
    new = np.ones(order.size, dtype=np.bool_)
    new[1:] = (ordered[:, 1:] != ordered[:, :-1]).any(axis=0)
    index = np.empty_like(order)
    index[order] = new.cumsum() - 1
    return ordered[:, new], index


def elapsed_buckets(
    elapsed_ms: NDArray[np.int64], unit_seconds: float, buckets: int
) -> NDArray[np.int64]:
    """[0, 1) to 0, [1, 2) to 1, [2, 4) to 2, ..., [2^k, 2^(k+1)) to k + 1 (IMN, section 4.1).

    Args:
        elapsed_ms: any shape; an event after the moment (a clock that is off) counts as now.
        unit_seconds: length of 1.
        buckets: their number; the last one has no end.
    """
    units = np.floor(np.maximum(elapsed_ms, 0) / (1000 * unit_seconds))
    exponents = np.frexp(units)[1]  # units = f * 2^exponent with f in [1/2, 1): exact
    bucket: NDArray[np.int64] = np.minimum(exponents, buckets - 1).astype(np.int64)
    return bucket


def check_times(source: GroupBatch) -> None:
    """Refuse a batch without times.

    Raises:
        MissingTimesError: says which column and for how many events or impressions.
    """
    seen = longest(source.history_lengths, source.impression_offsets)
    for name, times, expected in (
        ("history_times", source.history_times_ms, source.events),
        ("event_times", source.event_times_ms, source.impressions),
    ):
        missing = expected - times.size + int(np.count_nonzero(times == _NO_TIME))
        if missing and seen.any():
            msg = (
                f"{', '.join(source.files) or 'batch'}: {name}: {missing} of {expected} have no "
                "time, which this model encodes; give times, or train with --set time_buckets=0"
            )
            raise MissingTimesError(msg)
