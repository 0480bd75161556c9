"""Small random logs and questions for tests of a record's parts."""

import numpy as np

from uic.models.records.positions import EventBatch
from uic.models.state.definition import StateDefinition
from uic.models.state.part import Asked

BEGIN_MS = 1_700_000_000_000
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

EVERY_KIND = {
    "version": 1,
    "parts": {
        "items": {"kind": "counts", "size": 12, "half_lives": ["1d", "7d"]},
        "ids": {"kind": "counts", "size": 5, "fingerprint_bits": 64, "count_bits": 16},
        "categories": {"kind": "counts", "by": "category", "size": 6, "fingerprint_bits": 32},
        "shops": {"kind": "counts", "by": "shop", "behaviors": ["buy"], "size": 4},
        "rate": {"kind": "rates", "half_life": "30d"},
        "item_rates": {"kind": "rates", "by": "item", "size": 7},
        "last": {"kind": "recent", "size": 5},
        "visits": {
            "kind": "aggregate",
            "functions": ["count", "distinct"],
            "windows": ["1h", "1d"],
        },
        "spent": {
            "kind": "aggregate",
            "of": "price",
            "functions": ["count", "sum", "mean", "min", "max", "variance", "first", "last"],
            "windows": ["6h", "12h"],
            "tile": "1h",
        },
    },
}


def state_of(**parts) -> StateDefinition:
    """A definition of some parts."""
    return StateDefinition.of_document({"version": 1, "parts": parts}, "test")


def random_events(seed: int, users: int = 6, most: int = 40) -> EventBatch:
    """Events of users one after the other, at times that mostly rise; some columns are missing."""
    draw = np.random.default_rng(seed)
    counts = draw.integers(0, most, users)
    total = int(counts.sum())
    steps = (draw.pareto(0.5, total) * 60_000).clip(max=20 * DAY_MS).astype(np.int64)
    steps[draw.random(total) < 0.05] *= -1  # a clock that steps back
    owner = np.repeat(np.arange(users), counts)
    return EventBatch(
        user_index=owner,
        item_ids=draw.integers(0, 30, total),
        category_ids=draw.integers(0, 9, total),
        behaviors=draw.integers(0, 4, total).astype(np.int8),
        event_times_ms=BEGIN_MS + draw.integers(0, DAY_MS, total),
        log_times_ms=BEGIN_MS + np.cumsum(steps) % (400 * DAY_MS),
        epochs=np.ones(total, np.int64),
        partitions=np.zeros(total, np.int64),
        offsets=np.arange(total),
        columns={
            "price": np.where(draw.random(total) < 0.2, np.nan, draw.random(total) * 100),
            "shop": np.where(draw.random(total) < 0.2, -(2**63), draw.integers(0, 8, total)),
        },
    )


def events_of(hours, items=0, *, price=None, behaviors=0) -> EventBatch:
    """One user's events at hours after `BEGIN_MS`."""
    hours = np.atleast_1d(np.asarray(hours, float))
    count = len(hours)
    column = np.zeros(count, np.int64)
    return EventBatch(
        user_index=column,
        item_ids=np.asarray(items) + column,
        category_ids=column,
        behaviors=(np.asarray(behaviors) + column).astype(np.int8),
        event_times_ms=column,
        log_times_ms=BEGIN_MS // DAY_MS * DAY_MS + (hours * HOUR_MS).astype(np.int64),
        epochs=column + 1,
        partitions=column,
        offsets=np.arange(count),
        columns={} if price is None else {"price": np.asarray(price, float) + np.zeros(count)},
    )


def asked_at(hour: float, items=0, owners=None) -> Asked:
    """Questions about items of category 0 at an hour of `events_of`."""
    items = np.atleast_1d(np.asarray(items, np.int64))
    now = BEGIN_MS // DAY_MS * DAY_MS + int(hour * HOUR_MS)
    owners = np.zeros(len(items), np.int64) if owners is None else owners
    return Asked(owners, np.full(len(items), now), items, np.zeros(len(items), np.int64))


def told(state: StateDefinition, events: EventBatch, asked: Asked) -> list[dict[str, float]]:
    """Features by name of each row, after a fold of all events."""
    states = np.repeat(state.initial()[None], 1 + int(asked.owners.max()), axis=0)
    state.fold(states, events)
    names = [one.name for one in state.described]
    rows = state.features(states, asked).tolist()
    return [dict(zip(names, row, strict=True)) for row in rows]
