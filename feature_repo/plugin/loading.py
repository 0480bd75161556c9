"""Loading a snapshot into the store, in bulk.

1. Register the generation as `loading`, its markers at the snapshot's positions.
2. Write the rows. What is in the store at a larger position stays, so a load can be repeated,
   interrupted, and run beside a stream job or `feast materialize`.
3. Hold the store against the snapshot: every user must be there. Then it is `ready`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from uic.feature_repo.snapshots.snapshots import Snapshot
from uic.feature_repo.store.generations import Generation, Generations
from uic.feature_repo.store.packed import PackedStore


@dataclass(frozen=True)
class Loaded:
    """What a load did: rows of the snapshot, those that landed, and the generation after it."""

    rows: int
    landed: int
    generation: Generation


def load_snapshot(
    snapshot: Snapshot,
    store: PackedStore,
    generations: Generations,
    progress: Callable[[int], None] = lambda _: None,
) -> Loaded:
    """Load a snapshot until its generation is ready; `progress` gets the rows written so far.

    Raises:
        GenerationStateError: the number is taken by memories of another bundle.
        StoreError: Redis does not take the writes; the generation stays as it was.
    """
    # Step 1
    generations.register(snapshot.as_generation())
    # Step 2
    rows = landed = 0
    for user_ids, records in snapshot.batches():
        landed += int(store.write(snapshot.generation, user_ids, records).sum())
        rows += len(user_ids)
        progress(rows)
    # Step 3
    return Loaded(rows, landed, generations.complete(snapshot.generation, snapshot.user_ids()))
