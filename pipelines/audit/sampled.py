"""Users by a hash of their id, and their part of the event log, on disk by bucket.

The log is read once, part after part; what is sampled of it waits in a spool, so that memory is
bounded by a part and a bucket, whatever the size of the log.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from uic.models.features.event_columns import EventColumn
from uic.models.hashing import stable_hash
from uic.pipelines.log.columns import with_columns
from uic.pipelines.log.event_log import LogFile
from uic.pipelines.log.schemas import BEHAVIOR_EVENTS
from uic.pipelines.log.spool import KeyedSpool
from uic.pipelines.memories.exclude import Exclusion
from uic.pipelines.memories.read import event_schema, read_events
from uic.pipelines.samples.log_parts import log_parts

# Another hash than that of an import's partitions, or a sample would be a few whole partitions.
SAMPLE_SEED: Final = 8
BUCKET_SEED: Final = 9
# Of one bucket: a hundred megabytes of events, and of memories with their float32 states.
BUCKET_EVENTS: Final = 250_000
BUCKET_USERS: Final = 25_000


@dataclass(frozen=True)
class UserSample:
    """Which users are taken: those whose hash is in the lowest `rate` of all hashes.

    Args:
        rate: share of all hashes.
        at_least: a user who is taken whatever the hash, so that few users are not none.
    """

    rate: float
    at_least: int | None = None

    def takes(self, user_ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(users,) -> (users,), bool."""
        if self.rate >= 1:
            return np.ones(len(user_ids), dtype=np.bool_)
        limit = np.uint64(self.rate * 2.0**64)
        sampled: NDArray[np.bool_] = stable_hash(user_ids, SAMPLE_SEED) < limit
        return sampled if self.at_least is None else sampled | (user_ids == self.at_least)

    def lowest(self, user_ids: NDArray[np.int64]) -> int:
        """The user of the lowest hash, whom the next larger rate would take first; of (users,)."""
        return int(user_ids[stable_hash(user_ids, SAMPLE_SEED).argmin()])


def bucket_of(user_ids: NDArray[np.int64], buckets: int) -> NDArray[np.int32]:
    """(users,) -> (users,): where their events and memories are compared."""
    return (stable_hash(user_ids, BUCKET_SEED) % np.uint64(buckets)).astype(np.int32)


class SampledLog:
    """The behaviours of sampled users that a generation does not leave out.

    Args:
        directory: an empty or missing folder for the spool.
        buckets: of users; one must fit memory.
        columns: of the events that the generation's bundle reads.
    """

    def __init__(self, directory: Path, buckets: int, columns: Sequence[EventColumn] = ()) -> None:
        self.buckets, self._columns = buckets, columns
        self._spool = KeyedSpool(directory)

    def read(
        self,
        files: Sequence[LogFile],
        exclusion: Exclusion,
        takes: Callable[[NDArray[np.int64]], NDArray[np.bool_]],
        progress: Callable[[int], None],
    ) -> None:
        """Read files of the log: of the users that `takes` names; `progress` gets rows of parts.

        Raises:
            LogFileError: a file is damaged.
        """
        for part in log_parts(files, with_columns(BEHAVIOR_EVENTS, self._columns)):
            table, facts = read_events(part, {}, exclusion, self._columns)
            users = table.column("user_id").to_numpy()
            sampled = takes(users)
            if sampled.any():
                self._spool.add(
                    table.filter(pa.array(sampled)), bucket_of(users[sampled], self.buckets)
                )
            progress(facts.rows)

    def events(self, bucket: int) -> pa.Table:
        """`event_schema` of one bucket, in the order of the log's files."""
        pieces, schema = list(self._spool.pieces(bucket)), event_schema(self._columns)
        return pa.Table.from_batches(pieces, schema) if pieces else schema.empty_table()

    def close(self) -> None:
        """Remove the spool."""
        self._spool.close()


def buckets_for(events: float, users: float) -> int:
    """How many buckets so many events and memories need."""
    return max(1, int(-(-events // BUCKET_EVENTS)), int(-(-users // BUCKET_USERS)))


def by_bucket(user_ids: NDArray[np.int64], buckets: int) -> Iterator[NDArray[np.int64]]:
    """The users of each bucket, ascending, bucket after bucket."""
    keys = bucket_of(user_ids, buckets)
    order = np.lexsort((user_ids, keys))
    edges = np.searchsorted(keys[order], np.arange(buckets + 1))
    for first, end in itertools.pairwise(edges):
        yield user_ids[order[first:end]]
