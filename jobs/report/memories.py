"""What memories look like inside: how evenly slots are used, and one user, event by event."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from uic.jobs.checks.user_view import nearest_items
from uic.jobs.config.context import Context
from uic.jobs.replay.run import FOLDER, LIVE_NAME
from uic.models.bundles.bundle import Bundle, load_bundle
from uic.models.bundles.shelf import BundleShelf
from uic.models.features.event_columns import EventColumn
from uic.models.memory.fold import MemoryFolder
from uic.models.memory.state import MemoryState
from uic.models.records.record import Records
from uic.pipelines.audit.sampled import UserSample
from uic.pipelines.log.columns import FOLDED_COLUMNS, event_batch, readable
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.schemas import BEHAVIORS
from uic.pipelines.log.text_ids import TextIds

# Users whose slots are averaged: a second of folding.
SLOT_USERS: Final = 500
LIFE_EVENTS: Final = 60
_LIFE_MOST: Final = 2000


def slot_use(context: Context) -> list[dict[str, Any]]:
    """Share of writing that each slot gets, for every memory bundle of the workspace.

    Folds the same sampled users with each bundle; the share is the mean of g (MIMN eq. 6), the
    running mean of re-balanced write weights, over users.
    """
    files = EventLog(context.log).behavior_files()
    if not files:
        return []
    shelf = BundleShelf(context.bundles)
    rows = []
    for version in shelf.versions("mimn"):
        bundle = load_bundle(shelf.path("mimn", version))
        memory = bundle.memory.config
        if not memory.utilization:
            continue
        folder = MemoryFolder(bundle, 1)
        events = _sampled(context, bundle.event_columns)
        users = np.unique(events.column("user_id").to_numpy())
        batch = event_batch(events, users)
        records = folder.fold(folder.initial_records(len(users)), batch).records
        state = MemoryState.unpack(records, bundle.memory.layout)
        assert state.g is not None  # noqa: S101 - utilization is on
        share = state.g.numpy().astype(np.float64)
        share = share / share.sum(axis=1, keepdims=True)
        rows.append(
            {
                "bundle": f"mimn/{version}",
                "loss_weight": memory.utilization_loss_weight,
                "users": len(users),
                "share": share.mean(axis=0).tolist(),
                # Of one user at a time: an average over users hides that each uses one slot.
                "largest_share_of_a_user": float(share.max(axis=1).mean()),
            }
        )
    return rows


def one_life(context: Context, bundle_name: str) -> dict[str, Any] | None:
    """The busiest user of the replayed day: the last events, channels, and nearest items."""
    path = context.workspace / FOLDER / LIVE_NAME
    if not path.is_file():
        return None
    table = pq.read_table(path, columns=["user_id", "clicked"])
    clicked = table.filter(table.column("clicked")).column("user_id").to_numpy()
    if not len(clicked):
        return None
    ids, counts = np.unique(clicked, return_counts=True)
    user = int(ids[np.argmax(counts)])
    bundle = load_bundle(BundleShelf(context.bundles).find(bundle_name))
    events = _of_user(context, user, bundle.event_columns)
    batch = event_batch(events, np.array([user]))
    folder = MemoryFolder(bundle, 1)
    first = max(0, len(batch) - LIFE_EVENTS)
    record = folder.fold(folder.initial_records(1), batch.select(slice(first))).records
    changes = []
    before = _channels(record, bundle)
    for at in range(first, len(batch)):
        record = folder.fold(record, batch.select(slice(at, at + 1))).records
        after = _channels(record, bundle)
        changes.append(np.linalg.norm(after - before, axis=1).tolist())
        before = after
    log = EventLog(context.log)
    items, ids = log.items_file(), TextIds.of(log)
    nearest = None if items is None else nearest_items(record, bundle, items, 3)
    times = events.column("event_time").to_numpy()[first:]
    return {
        "user_id": ids.said("user", [user])[0],
        "events": len(batch),
        "shown_events": len(changes),
        "channel_changes": changes,
        "times_ms": times.tolist(),
        "behaviors": [BEHAVIORS[code] for code in batch.behaviors[first:].tolist()],
        "category_ids": batch.category_ids[first:].tolist(),
        "nearest_items": _with_categories(nearest, items, ids),
    }


def _with_categories(
    nearest: list[list[int]] | None, items: Path | None, ids: TextIds
) -> list[list[dict[str, int | str]]] | None:
    if nearest is None or items is None:
        return None
    table = pq.read_table(items)
    category = dict(
        zip(
            table.column("item_id").to_pylist(),
            table.column("category_id").to_pylist(),
            strict=True,
        )
    )
    told = []
    for channel in nearest:
        said = ids.said("item", channel), ids.said("category", [category[one] for one in channel])
        told.append([{"item_id": a, "category_id": b} for a, b in zip(*said, strict=True)])
    return told


def _channels(record: Records, bundle: Bundle) -> NDArray[np.float64]:
    state = MemoryState.unpack(record, bundle.memory.layout)
    parts = state.M if state.S is None else state.S
    channels: NDArray[np.float64] = parts[0].numpy().astype(np.float64)
    return channels


def _sampled(context: Context, columns: Sequence[EventColumn]) -> pa.Table:
    """Events of about `SLOT_USERS` users."""
    users: set[int] = set()
    files = EventLog(context.log).behavior_files()
    for file in files:
        found = pc.unique(pq.read_table(file.path, columns=["user_id"]).column(0))
        users.update(found.to_pylist())
    sample = UserSample(min(1.0, SLOT_USERS / max(1, len(users))))
    return _read(context, sample.takes, columns)


def _of_user(context: Context, user: int, columns: Sequence[EventColumn]) -> pa.Table:
    table = _read(context, lambda ids: ids == user, columns)
    return table.slice(max(0, table.num_rows - _LIFE_MOST))


def _read(context: Context, takes: Any, columns: Sequence[EventColumn]) -> pa.Table:
    """Events of some users, in the order of each one's log, with a bundle's columns."""
    parts = []
    for file in EventLog(context.log).behavior_files():
        there = pq.read_schema(file.path).names
        further = [column.logged for column in columns if column.logged in there]
        table = pq.read_table(file.path, columns=[*FOLDED_COLUMNS, *further])
        table, refused = readable(columns, table)
        taken = takes(table.column("user_id").to_numpy()) & ~refused
        table = table.filter(pa.array(taken))
        codes = pc.index_in(
            table.column("behavior").cast(pa.string()), value_set=pa.array(BEHAVIORS)
        )
        table = table.set_column(3, "behavior", codes.cast(pa.int8()))
        at = table.column_names.index("event_time")
        times = table.column("event_time").cast(pa.timestamp("ms")).cast(pa.int64())
        parts.append(table.set_column(at, "event_time", times))
    order = [(name, "ascending") for name in ("user_id", "epoch", "offset")]
    return pa.concat_tables(parts).sort_by(order).combine_chunks()
