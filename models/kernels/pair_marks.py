"""Marks that find equal rows and distinct pairs in one pass, compiled by numba.

`uic.models.layers.distinct_pairs` says what for.
"""

import numpy as np

from uic.models.kernels.compiled import entry_point


@entry_point
def kinds_of(items, categories, distinct_items):
    """An item that changes its category begins a new kind each time: no less exact."""
    last = np.full(distinct_items, -1, np.int64)  # row in which the item's kind began
    kinds = np.empty(len(items), np.int64)
    for row in range(len(items)):
        item = items[row]
        if last[item] < 0 or categories[last[item]] != categories[row]:
            last[item] = row
        kinds[row] = last[item]
    return kinds


@entry_point
def find_pairs(order, candidates, starts, counts, kinds):
    """The parts of `DistinctPairs`; `order` has impressions of the same candidate side by side."""
    impressions, pairs = len(order), counts.sum()
    firsts = np.cumsum(counts) - counts  # where an impression's entries may begin
    key_row = np.full(len(kinds), -1, np.int64)
    asked = np.full(len(kinds), -1, np.int64)  # the last query that had the kind,
    pair_of = np.empty(len(kinds), np.int64)  # and its pair
    seen = np.full(len(kinds), -1, np.int64)  # the last impression that had the kind,
    entry_of = np.empty(len(kinds), np.int64)  # and its entry
    queries, offsets = np.empty(impressions, np.int64), np.zeros(impressions + 1, np.int64)
    keys, key_of = np.empty(min(len(kinds), pairs), np.int64), np.empty(pairs, np.int64)
    entries, times = np.empty(pairs, np.int64), np.empty(pairs, np.int64)
    lengths = np.zeros(impressions, np.int64)
    query, key_count, pair_count = -1, 0, 0
    for place in range(impressions):
        impression = order[place]
        if place == 0 or candidates[impression] != candidates[order[place - 1]]:
            query += 1
            queries[query] = impression
        entry = firsts[impression]
        for event in range(starts[impression], starts[impression] + counts[impression]):
            kind = kinds[event]
            if seen[kind] == impression:
                times[entry_of[kind]] += 1
                continue
            if asked[kind] != query:
                if key_row[kind] < 0:
                    key_row[kind] = key_count
                    keys[key_count] = event
                    key_count += 1
                asked[kind], pair_of[kind] = query, pair_count
                key_of[pair_count] = key_row[kind]
                pair_count += 1
            seen[kind], entry_of[kind] = impression, entry
            entries[entry], times[entry] = pair_of[kind], 1
            entry += 1
        lengths[impression] = entry - firsts[impression]
        offsets[query + 1] = pair_count
    entry_offsets = np.zeros(impressions + 1, np.int64)
    entry_offsets[1:] = np.cumsum(lengths)
    for impression in range(impressions):  # entries move together; the places before are read
        for step in range(lengths[impression]):
            to, at = entry_offsets[impression] + step, firsts[impression] + step
            entries[to], times[to] = entries[at], times[at]
    count = entry_offsets[impressions]
    return (
        queries[: query + 1].copy(),
        keys[:key_count].copy(),
        offsets[: query + 2].copy(),
        key_of[:pair_count].copy(),
        entry_offsets,
        entries[:count].copy(),
        times[:count].copy(),
    )
