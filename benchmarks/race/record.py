"""The features of the record, by the product's own code: `uic.models.state`, as of each row.

A row sees its user's events strictly before its own time, as the other rows of the race do.
"""

import numpy as np
from numpy.typing import NDArray

from uic.models.features.definition import Scale
from uic.models.records.positions import EVENT_KINDS, EventBatch
from uic.models.samples.groups import ranges
from uic.models.state.counts import Counts
from uic.models.state.definition import StateDefinition
from uic.models.state.part import Asked, rounds

from .batches import Bags, moment_begins
from .logs import TRAIN, RaceLog


def record_features(log: RaceLog, state: StateDefinition) -> NDArray[np.float32]:
    """All features of `state`, of each of the log's rows: (rows, features).

    Scaled as each is described; one that may be missing has a column more that says so.
    """
    events = event_batch(log)
    rows = log.rows
    asked = Asked(
        owners=rows.user.to_numpy(),
        now_ms=rows.time_ms.to_numpy(),
        item_ids=rows.item.to_numpy(),
        category_ids=_category(log, rows),
        columns={key: rows[key].to_numpy() for key in log.keys[1:]},
    )
    found = state.as_of(events, asked, _seen(log))
    trained = rows.split.to_numpy() == TRAIN
    columns = []
    for values, feature in zip(found.T, state.described, strict=True):
        missing = np.isnan(values)
        known = np.where(missing, 0, values)
        if feature.scale is Scale.LOG:
            known = np.sign(known) * np.log1p(np.abs(known))
        columns.append(known)
        if 0 < np.count_nonzero(missing[trained]) < np.count_nonzero(trained):
            columns.append(missing)
    return np.stack(columns, axis=1).astype(np.float32)


def table_bags(log: RaceLog, state: StateDefinition) -> Bags | None:
    """What the state's first table of items holds at each moment, as items of the log.

    None for a state without one.
    """
    tables = (part for part in state.parts if isinstance(part, Counts))
    counts = next((part for part in tables if part.settings.by == "item"), None)
    if counts is None:
        return None
    events, seen = event_batch(log), _seen(log)
    first = np.flatnonzero(moment_begins(log.rows))
    owner, ends = log.rows.user.to_numpy()[first], seen[first]
    begins = np.r_[0, ends[:-1]]
    fresh = np.diff(owner, prepend=-1) != 0
    begins[fresh] = np.searchsorted(events.user_index, owner[fresh])
    states = np.repeat(counts.fresh()[None], int(owner.max()) + 1, axis=0)
    taken = np.zeros(first.size, dtype=np.int64)
    prints = np.zeros((first.size, counts.settings.size), dtype=np.uint64)
    weights = np.zeros((first.size, counts.settings.size), dtype=np.float32)
    for moments in rounds(owner):
        lengths = ends[moments] - begins[moments]
        counts.fold(states, events.select(ranges(begins[moments], lengths)))
        entries = counts.entries(states[owner[moments]])
        prints[moments], weights[moments], taken[moments] = entries
    held = np.arange(counts.settings.size) < taken[:, None]
    items, known = _items_of(log, counts, prints[held])
    kept = np.flatnonzero(held)[known] // counts.settings.size
    category = log.events.drop_duplicates("item").set_index("item")
    of_item = np.zeros(log.sizes["item"], dtype=np.int64)
    if log.keys:
        of_item[category.index] = category[log.keys[0]]
    return Bags(
        np.bincount(kept, minlength=first.size), items, of_item[items], weights[held][known]
    )


def _items_of(
    log: RaceLog, counts: Counts, prints: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The items of fingerprints, and which have one; of several the most frequent."""
    frequent = np.argsort(-np.bincount(log.events.item, minlength=log.sizes["item"]), kind="stable")
    known, places = np.unique(counts.fingerprints(frequent).astype(np.uint64), return_index=True)
    at = np.minimum(np.searchsorted(known, prints), known.size - 1)
    found = known[at] == prints
    return frequent[places[at]][found], found


def event_batch(log: RaceLog) -> EventBatch:
    """The log's events as a fold reads them."""
    codes = {name: code for code, name in enumerate(EVENT_KINDS)}
    events = log.events[log.events.behavior.isin(codes)]
    zeros = np.zeros(len(events), dtype=np.int64)
    times = events.time_ms.to_numpy()
    return EventBatch(
        user_index=events.user.to_numpy(),
        item_ids=events.item.to_numpy(),
        category_ids=_category(log, events),
        behaviors=events.behavior.map(codes).to_numpy(np.int8),
        event_times_ms=times,
        log_times_ms=times,
        epochs=zeros,
        partitions=zeros,
        offsets=np.arange(len(events)),
        columns={key: events[key].to_numpy() for key in log.keys[1:]},
    )


def _seen(log: RaceLog) -> NDArray[np.int64]:
    events = log.events[log.events.behavior.isin(EVENT_KINDS)]
    zero = min(int(events.time_ms.min()), int(log.rows.time_ms.min()))
    span = int(max(events.time_ms.max(), log.rows.time_ms.max())) - zero + 1
    happened = events.user.to_numpy() * span + events.time_ms.to_numpy() - zero
    return np.searchsorted(happened, log.rows.user.to_numpy() * span + log.rows.time_ms - zero)


def _category(log: RaceLog, frame) -> NDArray[np.int64]:
    if not log.keys:
        return np.zeros(len(frame), dtype=np.int64)
    return frame[log.keys[0]].to_numpy()
