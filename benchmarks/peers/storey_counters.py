"""Counters by user and item, and by user and category, with storey: what it is made for.

    python benchmarks/peers/storey_counters.py EVENTS.jsonl OUT.json

Two `AggregateByKey` steps of count and last over a sliding window that holds all events. Run by
`benchmarks/stream_state.py`, with the Python of an environment that has storey. Writes the counters
and the seconds of CPU from the first event to the last.
"""

import json
import sys
import time
from pathlib import Path

from storey import (
    AggregateByKey,
    FieldAggregator,
    NoopDriver,
    Reduce,
    SyncEmitSource,
    Table,
    build_flow,
)
from storey.dtypes import SlidingWindows


def counters(field):
    """Count and last time of each user's `field`."""
    return AggregateByKey(
        [FieldAggregator(field, "hour", ["count", "last"], SlidingWindows(["24h"], "1h"))],
        Table(field, NoopDriver()),
        key_field=lambda event: f"{event['user_id']}:{event[field]}",
        time_field=lambda event: event.body["event_time"] / 1000,
    )


def kept(found, event):
    """The newest counters of each key."""
    for field in ("item_id", "category_id"):
        key = f"{field}:{event['user_id']}:{event[field]}"
        found[key] = [event[f"{field}_count_24h"], event[f"{field}_last_24h"]]
    return found


def main(source, target):
    """Count, and write what was counted."""
    events = [json.loads(line) for line in Path(source).read_text().splitlines()]
    for event in events:
        event["hour"] = event["event_time"] // 3_600_000
    flow = build_flow(
        [SyncEmitSource(), counters("item_id"), counters("category_id"), Reduce({}, kept)]
    ).run()
    began = time.process_time()
    for event in events:
        flow.emit(event)
    flow.terminate()
    found = flow.await_termination()
    seconds = time.process_time() - began
    Path(target).write_text(json.dumps({"cpu_seconds": seconds, "counters": found}))


if __name__ == "__main__":
    main(*sys.argv[1:])
