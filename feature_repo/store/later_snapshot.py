"""A later snapshot of a generation that is loaded already: its markers move, too.

A load into a generation that is ready or live changes memories only. Until markers and snapshot
name follow, a stream would start again from where the older snapshot ended, and be refused.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from uic.feature_repo.store.generations import Generation, Generations, Positions, State
from uic.feature_repo.store.markers import NO_OFFSET, NO_TIME
from uic.feature_repo.store.packed import PackedStore
from uic.feature_repo.store.writer import MarkerMove
from uic.models.records.record import Records, header_view


def move_on(later: Generation, store: PackedStore, generations: Generations) -> Generation:
    """Let a generation be what its later snapshot says, once every row of it is in the store.

    Markers first: if this is cut off after them, the next load or start of a stream does the
    rest. A marker that a stream has moved further stays; an older snapshot changes nothing.
    """
    known = generations.get(later.number)
    newer = known.snapshot != later.snapshot and _reached(later.positions, known.positions)
    if known.state is State.LOADING or not newer or not later.positions:
        return known
    moves = [
        MarkerMove(
            epoch,
            partition,
            offset,
            log_time_ms=later.log_times.get(epoch, {}).get(partition, NO_TIME),
        )
        for epoch, partitions in later.positions.items()
        for partition, offset in partitions.items()
    ]
    none = np.zeros((0, later.record_bytes), dtype=np.uint8)
    store.write(later.number, np.zeros(0, dtype=np.int64), none, moves)
    return generations.describe(later)


def notice_load(
    later: Generation,
    batches: Iterable[tuple[NDArray[np.int64], Records]],
    store: PackedStore,
    generations: Generations,
) -> Generation:
    """`move_on` if Feast's own command has loaded the snapshot: it does not say when it ends.

    Reads the store only where its markers are behind the snapshot, and up to the first user whose
    memory is older than the snapshot's: then it is not loaded, or not yet.

    Args:
        later: the generation as its snapshot describes it.
        batches: user ids (n,) and records (n, record_bytes) of the snapshot.
        store: of the memories.
        generations: of the memories.
    """
    known = generations.get(later.number)
    # A snapshot of another bundle under the same number was never loaded, and has other records.
    if known.bundle != later.bundle or _reached(generations.markers(later.number), later.positions):
        return known
    if not _are_loaded(later, batches, store, generations):
        return known
    return move_on(later, store, generations)


def _are_loaded(
    later: Generation,
    batches: Iterable[tuple[NDArray[np.int64], Records]],
    store: PackedStore,
    generations: Generations,
) -> bool:
    forgotten = generations.forgotten()
    for user_ids, records in batches:
        there, present = store.read(later.number, user_ids, later.record_bytes)
        held, loaded = header_view(there), header_view(records)
        older = (held["epoch"] < loaded["epoch"]) | (
            (held["epoch"] == loaded["epoch"]) & (held["offset"] < loaded["offset"])
        )
        if ((~present | older) & ~np.isin(user_ids, forgotten)).any():
            return False
    return True


def _reached(positions: Positions, others: Positions) -> bool:
    """Whether `positions` are at or beyond `others` in every partition."""
    return all(
        positions.get(epoch, {}).get(partition, NO_OFFSET) >= offset
        for epoch, partitions in others.items()
        for partition, offset in partitions.items()
    )
