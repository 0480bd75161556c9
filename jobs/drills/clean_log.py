"""Expected memories without the poisoned events, and the users whose stored memory differs.

The clean log is folded in one go, without Flink, without exclude rules and without a store; the
poisoned payloads are left out by the drill's own list of them.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from uic.feature_repo.store.layout import ids_of_keys
from uic.feature_repo.store.opened import OpenedStore
from uic.jobs.drills.log import batch_fold
from uic.jobs.drills.poison import PoisonedDay
from uic.jobs.drills.shop import VERSION, Shop
from uic.jobs.stream.topics.event_files import LoggedPayload
from uic.jobs.stream.topics.produce import payload_of
from uic.models.bundles.bundle import load_bundle
from uic.models.memory.fold import MemoryFolder
from uic.pipelines.log.event_log import EventLog

# The shop's epochs: what was simulated up to midnight, and what streams.
IMPORT: Final = 1
TOPIC: Final = 2
_IDS: Final = ("user_id", "item_id", "category_id")


def compare(
    shop: Shop, poison: PoisonedDay, store: OpenedStore, generation: int
) -> tuple[int, int, int]:
    """Hold every memory of a generation against the clean log, byte for byte.

    Args:
        shop: whose log and model.
        poison: what to leave out of the events that streamed so far.
        store: opened.
        generation: whose memories.

    Returns:
        Users of the clean log, memories that differ from its, and users who should have none.
    """
    bundle = load_bundle(shop.context.bundles / "mimn" / VERSION)
    folder, limits = MemoryFolder(bundle, generation), shop.context.config.log
    before = batch_fold(_imported(EventLog(shop.context.log)), folder, limits, IMPORT)
    clean = poison.clean(shop.events.folder)
    expected = batch_fold(clean, folder, limits, TOPIC, before.memories).memories
    users = np.array(sorted(expected), dtype=np.int64)
    records, found = store.memories.read(generation, users, folder.record_bytes)
    right = np.stack([expected[user] for user in users.tolist()])
    prefix = store.memories.keys.prefix(generation)
    stored = ids_of_keys(list(store.client.scan_iter(match=prefix + b"*", count=1000)))
    wrong = int(((records != right).any(axis=1) | ~found).sum())
    return len(users), wrong, int((~np.isin(stored, users)).sum())


def _imported(log: EventLog) -> Iterator[LoggedPayload]:
    """The import's events as payloads with their positions."""
    for file in log.behavior_files():
        table = pq.read_table(file.path)
        table = table.filter(pc.equal(table.column("epoch"), IMPORT))
        kinds = table.column("behavior").cast(pa.string()).to_pylist()
        events = [*(table.column(name).to_pylist() for name in _IDS), kinds]
        places = [table.column(name).to_pylist() for name in ("partition", "offset")]
        times = [
            table.column(name).to_numpy().view(np.int64) for name in ("event_time", "log_time")
        ]
        for user, item, category, kind, event_ms, log_ms, partition, offset in zip(
            *events, *(column.tolist() for column in times), *places, strict=True
        ):
            yield LoggedPayload(
                payload_of(user, item, category, kind, event_ms), partition, offset, log_ms
            )
