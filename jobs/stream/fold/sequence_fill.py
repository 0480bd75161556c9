"""Writes the histories of all users from the event log into the store (view `user_sequence`).

What `uic store sequences` does, so that a ranker that reads histories can be served from the first
hour, and not only for users whom the stream has met since `stream.sequences` was switched on. Of a
stored history and that of the log the one with the later position stays: it can be repeated, and
never takes an event back, but a history that the stream has begun with one event stays that short.
So it is run before the stream writes histories.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from uic.feature_repo.plugin.packed_view import with_vector_headers
from uic.feature_repo.store.layout import NO_GENERATION, SEQUENCE, ViewKeys
from uic.feature_repo.store.opened import open_for_writing
from uic.feature_repo.store.packed import PackedStore
from uic.feature_repo.store.settings import StoreSettings
from uic.feature_repo.store.tombstones import Tombstones
from uic.models.errors import BadInputError
from uic.models.hashing import stable_hash
from uic.models.records.positions import EventBatch
from uic.models.records.sequence_ring import SequenceRing
from uic.pipelines.log.columns import FOLDED_COLUMNS, event_batch
from uic.pipelines.log.event_log import EventLog

_USERS_AT_ONCE: Final = 20_000  # 340 MB of rings


def fill_from_log(
    log: EventLog,
    settings: StoreSettings,
    workspace: Path,
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Write the last events of every user of the log; returns the users that were written.

    Users that were forgotten on request stay so.

    Args:
        log: whose behaviour events.
        settings: of the store.
        workspace: whose store.
        progress: told the users done so far.

    Raises:
        BadInputError: the log has no behaviours.
        StoreError: Redis does not take the writes.
    """
    users = users_of(log)
    if not len(users):
        msg = f"{log.root}: no behaviours; import a log, or simulate one"
        raise BadInputError(msg)
    with open_for_writing(settings, workspace) as store:
        keys = ViewKeys.of_sequences(settings.project)
        packed = PackedStore(
            store.client,
            keys,
            address=str(store.address),
            layout=SEQUENCE,
            keys_per_script=settings.keys_per_script,
            keys_per_read=settings.keys_per_read,
        )
        Tombstones(workspace).tell(store.generations)
        gone = store.generations.forgotten()
        left = users[~np.isin(users, gone)]
        written = fill_sequences(log, packed, SequenceRing(), left, progress)
        # Users who were forgotten meanwhile.
        for user in np.setdiff1d(np.intersect1d(left, store.generations.forgotten()), gone):
            store.generations.forget(int(user))
    return written


def users_of(log: EventLog) -> NDArray[np.int64]:
    """Users with a behaviour, (users,), int64, ascending."""
    found = [
        pc.unique(pq.ParquetFile(file.path).read(columns=["user_id"])["user_id"]).to_numpy()
        for file in log.behavior_files()
    ]
    return np.unique(np.concatenate(found)) if found else np.zeros(0, dtype=np.int64)


def fill_sequences(
    log: EventLog,
    store: PackedStore,
    ring: SequenceRing,
    users: NDArray[np.int64],
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Write the last events of users from the log; returns the users that have any.

    Args:
        log: whose behaviour events.
        store: of the view `user_sequence`.
        ring: format.
        users: (users,), int64, distinct.
        progress: told the users done so far.
    """
    parts = max(1, -(-len(users) // _USERS_AT_ONCE))
    written = 0
    for part in range(parts):
        chosen = np.sort(users[stable_hash(users) % np.uint64(parts) == part])
        rings = ring.empty(len(chosen))
        for events in _events_of(log, chosen):
            rings = ring.append(rings, events)
        filled = np.flatnonzero(ring.header(rings)["appended"] > 0)
        write_rings(store, ring, chosen[filled], rings[filled])
        written += len(filled)
        progress(written)
    return written


def write_rings(
    store: PackedStore, ring: SequenceRing, users: NDArray[np.int64], rings: NDArray[np.uint8]
) -> None:
    """Write rings as values of `user_sequence`."""
    if not len(users):
        return
    times = ring.read(rings, limit=1).event_times_ms
    store.write(NO_GENERATION, users, with_vector_headers(rings, times.tolist()))


def _events_of(log: EventLog, users: NDArray[np.int64]) -> Iterable[EventBatch]:
    """The log's events of some users (sorted), file by file, in log order."""
    for file in log.behavior_files():
        table = pq.ParquetFile(file.path).read(columns=list(FOLDED_COLUMNS))
        ids = table["user_id"].to_numpy()
        places = np.minimum(np.searchsorted(users, ids), len(users) - 1)
        rows = np.flatnonzero(users[places] == ids)
        taken = table.take(rows)
        yield event_batch(taken, users)
