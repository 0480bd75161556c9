"""Batches of the race: rows grouped by moment, and each moment's history before it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from uic.models.samples.groups import offsets_of, ranges

from .logs import HOUR_MS, LISTS, RaceLog

HISTORY_EVENTS = 1024  # newest events of a history that a model sees


@dataclass(frozen=True)
class Bags:
    """Ids with weights, some of each moment, one moment after the other.

    Attributes:
        counts: (moments,) int64, how many.
        items: (ids,) int64.
        categories: (ids,) int64.
        weights: (ids,) float32.
    """

    counts: NDArray[np.int64]
    items: NDArray[np.int64]
    categories: NDArray[np.int64]
    weights: NDArray[np.float32]


@dataclass(frozen=True)
class RaceBatch:
    """Some moments, their histories and their rows.

    Attributes:
        owner: (rows,) int64, each row's moment.
        item: (rows,) int64.
        category: (rows,) int64, zeros in a log without.
        label: (rows,) float32.
        dense: name to (rows, features) float32.
        log_items: (all events,) int64, of the whole log.
        log_categories: (all events,) int64.
        begins: (moments,) int64, place of each history's first event in the log.
        ends: (moments,) int64, place after its last.
        event_items: (events,) int64.
        event_categories: (events,) int64.
        starts: (moments,) int64, first event of each history.
        counts: (moments,) int64, events of each history.
        age_hours: (events,) float32, before the moment.
        users: (moments,) int64, numbered within the batch.
        bag_counts: (moments,) int64, ids that a table of the record holds; as `Bags`.
        bag_items: (ids,) int64.
        bag_categories: (ids,) int64.
        bag_weights: (ids,) float32.
    """

    owner: Tensor
    item: Tensor
    category: Tensor
    label: Tensor
    dense: Mapping[str, Tensor]
    log_items: Tensor
    log_categories: Tensor
    begins: Tensor
    ends: Tensor
    event_items: Tensor
    event_categories: Tensor
    starts: Tensor
    counts: Tensor
    age_hours: Tensor
    users: Tensor
    bag_counts: Tensor
    bag_items: Tensor
    bag_categories: Tensor
    bag_weights: Tensor

    @property
    def ranks(self) -> Tensor:
        """(events,) float32, 0 for the newest event of its history."""
        last = (self.starts + self.counts - 1).repeat_interleave(self.counts)
        return (last - torch.arange(len(self.event_items))).float()

    def padded(self, newest: int) -> tuple[Tensor, Tensor]:
        """Places of the newest events of each history, and which of them are real.

        Returns:
            (moments, newest) int64 places in `event_items`, and (moments, newest) bool.
        """
        back = torch.arange(newest).unsqueeze(0)
        real = back < self.counts.unsqueeze(1)
        places = (self.starts + self.counts - 1).unsqueeze(1) - back
        return torch.where(real, places, 0), real


class Batches:
    """All rows of the race, and where each moment's rows and history lie.

    Args:
        log: the log.
        dense: name to (rows, features) float32, in the order of the log's rows.
        bags: of the moments, in the order of the log's rows.
    """

    def __init__(
        self, log: RaceLog, dense: Mapping[str, NDArray[np.float32]], bags: Bags | None = None
    ) -> None:
        rows, taken = log.rows, log.taken()
        user, time = rows.user.to_numpy(), rows.time_ms.to_numpy()
        self._first = np.flatnonzero(moment_begins(rows))
        self._count = np.diff(np.r_[self._first, user.size])
        self._user, self._time = user[self._first], time[self._first]
        # One number for user and time orders both: the span of times fits beside any user here.
        zero = min(int(time.min()), int(taken.time_ms.min()))
        span = int(max(time.max(), taken.time_ms.max())) - zero + 1
        keys = taken.user.to_numpy() * span + (taken.time_ms.to_numpy() - zero)
        self._ends = np.searchsorted(keys, self._user * span + (self._time - zero))
        begins = np.searchsorted(taken.user.to_numpy(), self._user)
        self._begins = np.maximum(begins, self._ends - HISTORY_EVENTS)
        self._event_time = taken.time_ms.to_numpy()
        category = log.keys[0] if log.keys else None
        self._event_items = torch.from_numpy(taken.item.to_numpy().copy())
        self._event_categories = _column(taken, category)
        self._items = torch.from_numpy(rows.item.to_numpy().copy())
        self._categories = _column(rows, category)
        self._labels = torch.from_numpy(rows.label.to_numpy().astype(np.float32))
        self._dense = {name: torch.from_numpy(values) for name, values in dense.items()}
        if bags is None:
            none = np.zeros(0, dtype=np.int64)
            bags = Bags(np.zeros_like(self._count), none, none, none.astype(np.float32))
        self._bags, self._bag_offsets = bags, offsets_of(bags.counts)
        splits = rows.split.to_numpy()[self._first]
        self._moments = [np.flatnonzero(splits == split) for split in range(LISTS + 1)]

    def rows(self, split: int) -> NDArray[np.int64]:
        """The log's rows of a split, in the order in which `of` gives them."""
        moments = self._moments[split]
        return ranges(self._first[moments], self._count[moments])

    def of(
        self,
        split: int,
        size: int,
        generator: np.random.Generator | None = None,
        share: float = 1.0,
        block: int = 1,
        *,
        history: bool = True,
    ) -> Iterator[RaceBatch]:
        """Batches of about `size` rows, whole moments each.

        Args:
            split: TRAIN, VALID, TEST or LISTS.
            size: in rows.
            generator: shuffles the moments; None keeps the log's order.
            share: of the moments, always the same ones.
            block: consecutive moments of a user that stay together, so that a fold is shared.
            history: list the events before each moment; else none of them.
        """
        moments = self._moments[split]
        if share < 1:
            moments = np.random.default_rng(2).permutation(moments)[: int(share * moments.size)]
        if generator is not None:
            moments = self._shuffled(np.sort(moments), block, generator)
        ends = np.cumsum(self._count[moments])
        cuts = np.searchsorted(ends, np.arange(size, ends[-1], size))
        for part in np.split(moments, np.unique(cuts)):
            if part.size:
                yield self._batch(part, history=history)

    def _shuffled(
        self, moments: NDArray[np.int64], block: int, generator: np.random.Generator
    ) -> NDArray[np.int64]:
        """In blocks of a user's consecutive moments; the blocks in a random order."""
        user = self._user[moments]
        first = np.flatnonzero(np.r_[True, np.diff(user) != 0])
        place = np.arange(moments.size) - np.repeat(first, np.diff(np.r_[first, moments.size]))
        numbers = np.cumsum(place % block == 0) - 1
        ranks = generator.permutation(int(numbers[-1]) + 1)
        return moments[np.argsort(ranks[numbers], kind="stable")]

    def _batch(self, moments: NDArray[np.int64], *, history: bool) -> RaceBatch:
        counts = self._count[moments]
        at = torch.from_numpy(ranges(self._first[moments], counts))
        lengths = (self._ends[moments] - self._begins[moments]) * history
        events = ranges(self._begins[moments], lengths)
        age = np.repeat(self._time[moments], lengths) - self._event_time[events]
        places = torch.from_numpy(events)
        held = ranges(self._bag_offsets[moments], self._bags.counts[moments])
        return RaceBatch(
            owner=torch.from_numpy(np.repeat(np.arange(moments.size), counts)),
            item=self._items[at],
            category=self._categories[at],
            label=self._labels[at],
            dense={name: values[at] for name, values in self._dense.items()},
            log_items=self._event_items,
            log_categories=self._event_categories,
            begins=torch.from_numpy(self._begins[moments]),
            ends=torch.from_numpy(self._ends[moments]),
            event_items=self._event_items[places],
            event_categories=self._event_categories[places],
            starts=torch.from_numpy(offsets_of(lengths)[:-1].copy()),
            counts=torch.from_numpy(lengths),
            age_hours=torch.from_numpy((age / HOUR_MS).astype(np.float32)),
            users=torch.from_numpy(np.unique(self._user[moments], return_inverse=True)[1]),
            bag_counts=torch.from_numpy(self._bags.counts[moments]),
            bag_items=torch.from_numpy(self._bags.items[held]),
            bag_categories=torch.from_numpy(self._bags.categories[held]),
            bag_weights=torch.from_numpy(self._bags.weights[held]),
        )


def moment_begins(rows: pd.DataFrame) -> NDArray[np.bool_]:
    """Which rows are the first of a moment, that is of one user, time and split: (rows,)."""
    columns = [np.diff(rows[name].to_numpy()) != 0 for name in ("user", "time_ms", "split")]
    return np.r_[True, np.any(columns, axis=0)]


def _column(frame: pd.DataFrame, name: str | None) -> Tensor:
    if name is None:
        return torch.zeros(len(frame), dtype=torch.int64)
    return torch.from_numpy(frame[name].to_numpy().copy())
