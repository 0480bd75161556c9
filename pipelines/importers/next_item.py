"""The papers' protocol for sets without impressions: predict the last event from those before.

Of each user's sequence the last event is the target. It becomes a clicked impression at its time,
and beside it one impression, not clicked, of another item at the same time. The target is left
out of the behaviours altogether, so no history, window or memory can hold it (the public Taobao
preparation appends it to the history; MIMN, the authors' code). Users with a shorter sequence than
`min_length` are left out, as in the papers.

The papers do not say how negatives are drawn. Here: an item with the probability of its share of
all events (as in the public Amazon preparation), drawn again while it is in the user's own
sequence; a user who has every item drawn `ROUNDS` times gets no impressions and is counted.

Times of one user are made strictly rising: an event at the time of the one before it moves one
millisecond behind it. Without that, events of the target's second would count as not before it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from uic.models.hashing import stable_hash
from uic.pipelines.log.columns import times_ms
from uic.pipelines.log.spool import KeyedSpool
from uic.pipelines.negatives import ItemPool

_BUCKETS: Final = 64
_HASH_SEED: Final = 7919  # another hash than the one that gives partitions


@dataclass(frozen=True)
class NextItemOptions:
    """How targets are chosen; counts of events."""

    min_length: int = 20
    truncate: int | None = 100
    behaviors: tuple[int, ...] | None = (0,)  # indices into BEHAVIORS; None is all
    seed: int = 0


@dataclass
class NextItemCounts:
    """What became of the users."""

    users: int = 0
    too_short: int = 0
    without_negative: int = 0


class NextItem:
    """Collects behaviours, then gives histories and impressions."""

    def __init__(self, directory: Path, options: NextItemOptions) -> None:
        self._spool = KeyedSpool(directory)
        self._options = options
        self._items = np.empty(0, np.int64)
        self._categories = np.empty(0, np.int64)
        self._counts = np.empty(0, np.int64)
        self.counts = NextItemCounts()

    def add(self, behaviors: pa.Table) -> None:
        """Take behaviours in source order."""
        chosen = self._options.behaviors
        if chosen is not None:
            codes = behaviors["behavior"].to_numpy()
            behaviors = behaviors.filter(pa.array(np.isin(codes, chosen)))
        if not behaviors.num_rows:
            return
        users = behaviors["user_id"].to_numpy()
        buckets = stable_hash(users, _HASH_SEED) % np.uint64(_BUCKETS)
        self._spool.add(behaviors, buckets.astype(np.int32))
        self._count(behaviors["item_id"].to_numpy(), behaviors["category_id"].to_numpy())

    def _count(self, items: NDArray[np.int64], categories: NDArray[np.int64]) -> None:
        """Events of each item; 24 bytes an item."""
        unique, first, counts = np.unique(items, return_index=True, return_counts=True)
        merged, inverse = np.unique(np.r_[self._items, unique], return_inverse=True)
        total = np.bincount(inverse, np.r_[self._counts, counts], len(merged)).astype(np.int64)
        of_item = np.empty(len(merged), np.int64)
        of_item[inverse] = np.r_[self._categories, categories[first]]
        self._items, self._counts, self._categories = merged, total, of_item

    def results(self) -> Iterator[tuple[pa.Table, pa.Table]]:
        """(behaviours, impressions), a bucket of users at a time."""
        for bucket in self._spool.keys():  # noqa: SIM118 - not a dict
            table = pa.Table.from_batches(list(self._spool.pieces(bucket))).combine_chunks()
            order = np.lexsort((times_ms(table["event_time"]), table["user_id"].to_numpy()))
            yield self._of_bucket(table.take(pa.array(order)), bucket)

    def _of_bucket(self, table: pa.Table, bucket: int) -> tuple[pa.Table, pa.Table]:
        users = table["user_id"].to_numpy()
        firsts = np.flatnonzero(np.r_[True, users[1:] != users[:-1]])
        ends = np.r_[firsts[1:], len(users)]
        lengths = ends - firsts
        times = strictly_rising(times_ms(table["event_time"]), firsts, lengths)
        table = table.set_column(
            table.column_names.index("event_time"),
            "event_time",
            pa.array(times, pa.timestamp("ms")),
        )
        self.counts.users += len(firsts)
        long = lengths >= self._options.min_length
        self.counts.too_short += int((~long).sum())
        negatives = self._negatives(table["item_id"].to_numpy(), firsts, lengths, bucket)
        chosen = long & (negatives >= 0)
        self.counts.without_negative += int((long & (negatives < 0)).sum())
        before_target = np.repeat(ends - 1, lengths) - np.arange(len(users))
        limit = self._options.truncate or len(users)
        inside = np.repeat(chosen, lengths) & (before_target > 0) & (before_target <= limit)
        targets = table.take(pa.array((ends - 1)[chosen]))
        return table.filter(pa.array(inside)), self._impressions(targets, negatives[chosen])

    def _impressions(self, targets: pa.Table, negatives: NDArray[np.int64]) -> pa.Table:
        """The target, clicked, then the negative, for each user."""
        pairs = np.arange(2 * len(negatives))
        shown = targets.take(pa.array(pairs // 2))
        clicked = pairs % 2 == 0
        other = negatives[pairs // 2]
        items = np.where(clicked, shown["item_id"].to_numpy(), self._items[other])
        categories = np.where(clicked, shown["category_id"].to_numpy(), self._categories[other])
        return pa.table(
            {
                "user_id": shown["user_id"],
                "item_id": items,
                "category_id": categories,
                "event_time": shown["event_time"],
                "clicked": clicked,
            }
        )

    def _negatives(
        self,
        items: NDArray[np.int64],
        firsts: NDArray[np.int64],
        lengths: NDArray[np.int64],
        bucket: int,
    ) -> NDArray[np.int64]:
        """For each user the row of an item that is not in the sequence, or -1; (users,)."""
        pool = ItemPool(self._items, self._categories, self._counts)
        events, owners = pool.events, np.arange(len(firsts))
        random = np.random.default_rng([self._options.seed, bucket])
        return pool.outside(
            owners,
            (np.repeat(owners, lengths), items),
            lambda _attempt, still: random.integers(0, events, len(still)),
        )


def strictly_rising(
    times: NDArray[np.int64], firsts: NDArray[np.int64], lengths: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Each group's times, each at least one more than the one before.

    Args:
        times: (events,), not falling within a group.
        firsts: (groups,), where each begins.
        lengths: (groups,).
    """
    # Less its rank, a strictly rising sequence does not fall: so take running maxima of that. The
    # groups are kept apart by steps larger than any difference within one, as many groups at a
    # time as fit int64.
    rank = np.arange(len(times)) - np.repeat(firsts, lengths)
    slack = times - rank
    span = int(slack.max() - slack.min()) + 1 if len(times) else 1
    group = np.repeat(np.arange(len(firsts)), lengths)
    at_once = max((1 << 61) // span, 1)
    risen = np.empty_like(times)
    for first in range(0, len(firsts), at_once):
        low = firsts[first]
        high = firsts[first + at_once] if first + at_once < len(firsts) else len(times)
        step = (group[low:high] - first) * span
        based = slack[low:high] - slack.min()
        risen[low:high] = np.maximum.accumulate(based + step) - step + slack.min()
    return risen + rank
