"""The replay itself: rank a stretch of the day, then let its events happen, then the next one.

`begin` (before the stream runs):

1. Rank the whole day's impressions with the memories of midnight, and without any.
2. Send the first stretch's events to the source of the stream.

`run` (beside the stream and the service), for each further stretch:

1. Wait until the stream has folded all events before it.
2. Rank its impressions, one request each, with the memories of that moment.
3. Append its events to the log's source.

At the end it waits until the archive has the whole day, for `uic log compact`.

So no impression is ranked with a memory that knows more than its moment did, and none with one
that is older than a stretch.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from uic.feature_repo.store.opened import OpenedStore, open_memories
from uic.jobs.config.context import Context
from uic.jobs.replay.client import RankingClient
from uic.jobs.replay.day import HeldDay, open_day
from uic.jobs.replay.destination import Destination
from uic.jobs.replay.hold_back import ReplayError
from uic.jobs.stream.letters.archive import committed_files, file_range
from uic.models.features.feature_file import load_features
from uic.models.published import write_json_atomically
from uic.models.training.metrics import measure
from uic.pipelines.log.event_log import EventLog

FOLDER: Final = "replay"
MIDNIGHT_NAME: Final = "midnight.parquet"
LIVE_NAME: Final = "live.parquet"
RESULT_NAME: Final = "replay.json"
_POLL_SECONDS: Final = 0.02
_ARCHIVE_POLL_SECONDS: Final = 0.5
FOLD_SECONDS: Final = 120.0
_PERCENTILES: Final = (50, 90, 99)


@dataclass(frozen=True)
class Waited:
    """How long a stretch's events took from the source into the store."""

    events: int
    seconds: float


def begin(context: Context, client: RankingClient, stretches: int, destination: Destination) -> int:
    """Rank the day with the memories of midnight, and send the first events.

    Returns:
        Events written.

    Raises:
        ReplayError: no held-back day, events are there already, or the service does not answer.
    """
    folder = context.workspace / FOLDER
    day = _day_of(context)
    if any(destination.ends().values()):
        msg = f"{destination}: holds events already; a replay begins once in a workspace"
        raise ReplayError(msg)
    # Step 1
    shown = day.impressions
    ranked = client.rank_all(shown)
    table = {"midnight": ranked.scores, "none": ranked.without_memory}
    pq.write_table(pa.table(table), folder / MIDNIGHT_NAME)
    # Step 2
    first = day.stretches(stretches, context.config.log.partitions)[0]
    return destination.send(day.events(*first))


def run(
    context: Context,
    client: RankingClient,
    stretches: int,
    destination: Destination,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> dict[str, Any]:
    """Live through the day; the document that is written to `replay/replay.json`.

    Args:
        context: workspace and configuration.
        client: of the running service.
        stretches: the day in so many pieces; as in `begin`.
        destination: where events go; as in `begin`.
        progress: gets impressions done, of how many.

    Raises:
        ReplayError: `begin` was not called, or the stream or the service does not answer.
    """
    folder = context.workspace / FOLDER
    day = _day_of(context)
    midnight = folder / MIDNIGHT_NAME
    if not midnight.is_file():
        msg = f"{midnight}: missing; run `uic replay begin` first"
        raise ReplayError(msg)
    before = pq.read_table(midnight)
    pieces = day.stretches(stretches, context.config.log.partitions)
    # The first stretch was ranked with midnight's memories, which is what there was.
    count = len(day.impressions.between(*pieces[0]))
    scores = [before.column("midnight").to_numpy()[:count]]
    seconds: list[NDArray[np.float64]] = []
    reasons: dict[str, int] = {}
    waited: list[Waited] = []
    started = time.monotonic()
    with open_memories(context.config.store, context.workspace) as store:
        generation = store.generations.live()
        written, at = count, time.monotonic()
        fresh = sum(len(batch.payloads) for batch in day.events(*pieces[0]))
        for piece in pieces[1:]:
            # Step 1
            wait_until_folded(context, store, generation, destination)
            waited.append(Waited(fresh, time.monotonic() - at))
            # Step 2
            shown = day.impressions.between(*piece)
            ranked = client.rank_each(shown)
            scores.append(ranked.scores)
            seconds.append(ranked.seconds)
            for reason, times in ranked.reasons.items():
                reasons[reason] = reasons.get(reason, 0) + times
            # Step 3
            at = time.monotonic()
            fresh = destination.send(day.events(*piece))
            written += len(shown)
            progress(written, len(day.impressions))
        wait_until_folded(context, store, generation, destination)
        waited.append(Waited(fresh, time.monotonic() - at))
    wall = time.monotonic() - started
    if context.config.stream.archive:
        wait_until_archived(context, destination)
    live = np.concatenate(scores)
    # The wait for the first stretch includes the start of the stream: no freshness.
    document = _document(day, live, before)
    document |= _timings(np.concatenate(seconds), waited[1:])
    document["degraded"] = reasons
    document["replay"] = {
        "stretches": len(pieces),
        "wall_seconds": wall,
        "speed_up": (day.end_ms - day.start_ms) / 1000 / wall,
        "generation": generation,
    }
    _write_scores(folder, day, live, before)
    pq.write_table(pa.table({"seconds": np.concatenate(seconds)}), folder / "latencies.parquet")
    pq.write_table(
        pa.table(
            {
                "events": [piece.events for piece in waited[1:]],
                "seconds": [piece.seconds for piece in waited[1:]],
            }
        ),
        folder / "freshness.parquet",
    )
    write_json_atomically(folder / RESULT_NAME, document)
    return document


def _day_of(context: Context) -> HeldDay:
    features = load_features(context.features) if context.features.is_file() else None
    return open_day(context.log, context.workspace / FOLDER, features)


def wait_until_archived(context: Context, destination: Destination) -> None:
    """Wait until the archive's closed files reach the ends of the log that is streamed.

    Flink closes a file when it is `archive_roll_seconds` old, and shows it with a checkpoint; what
    is open when the stream is stopped comes into the archive with the next start only.

    Raises:
        ReplayError: they do not, after the time that this takes and `FOLD_SECONDS`.
    """
    ends = {partition: end - 1 for partition, end in destination.ends().items()}
    name = destination.epoch_name()
    epoch = [entry.number for entry in EventLog(context.log).epochs() if entry.name == name][-1]
    archive = context.workspace / "stream" / "archive"
    stream = context.config.stream
    until = (
        time.monotonic() + stream.archive_roll_seconds + stream.checkpoint_seconds + FOLD_SECONDS
    )
    while True:
        found = {
            partition: max(
                (file_range(path)[1] for path in committed_files(archive, epoch, partition)),
                default=-1,
            )
            for partition in ends
        }
        if all(found[partition] >= end for partition, end in ends.items()):
            return
        if time.monotonic() > until:
            msg = f"{archive}: epoch {epoch} is archived up to {found} and not {ends}"
            raise ReplayError(msg)
        time.sleep(_ARCHIVE_POLL_SECONDS)


def wait_until_folded(
    context: Context,
    store: OpenedStore,
    generation: int,
    destination: Destination,
    seconds: float = FOLD_SECONDS,
) -> None:
    """Wait until the markers are at the ends of the log that is streamed.

    Raises:
        ReplayError: they are not, after so many seconds.
    """
    ends = {partition: end - 1 for partition, end in destination.ends().items()}
    name = destination.epoch_name()
    until = time.monotonic() + seconds
    marks: dict[int, int] = {}
    while time.monotonic() < until:
        numbers = [epoch.number for epoch in EventLog(context.log).epochs() if epoch.name == name]
        marks = store.generations.markers(generation).get(numbers[-1], {}) if numbers else {}
        if all(marks.get(partition, -1) >= end for partition, end in ends.items()):
            return
        time.sleep(_POLL_SECONDS)
    msg = (
        f"generation {generation}: the stream has folded {marks} and not {ends} after "
        f"{seconds:.0f} s; is it running? `uic stream status` tells"
    )
    raise ReplayError(msg)


def _document(day: HeldDay, live: NDArray[np.float64], before: pa.Table) -> dict[str, Any]:
    shown = day.impressions
    memories = {
        "live": live,
        "midnight": before.column("midnight").to_numpy(),
        "none": before.column("none").to_numpy(),
    }
    return {
        "day": day.day.isoformat(),
        "impressions": len(shown),
        "events": day.behaviors.num_rows,
        "memory": {
            name: measure(_logits(scores), shown.clicked, shown.user_ids).to_json()
            for name, scores in memories.items()
        },
    }


def _timings(seconds: NDArray[np.float64], waited: list[Waited]) -> dict[str, Any]:
    weights = np.array([piece.events for piece in waited])
    times = np.repeat([piece.seconds for piece in waited], weights)
    return {
        "latency_ms": _percentiles(seconds * 1000),
        "latency_requests": len(seconds),
        "freshness_seconds": _percentiles(times),
        "freshness_events": len(times),
    }


def _logits(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    kept = np.clip(probabilities, 1e-12, 1 - 1e-12)
    logits: NDArray[np.float64] = np.log(kept / (1 - kept))
    return logits


def _percentiles(values: NDArray[np.float64]) -> dict[str, float]:
    return {f"p{p}": round(float(np.percentile(values, p)), 3) for p in _PERCENTILES}


def _write_scores(folder: Path, day: HeldDay, live: NDArray[np.float64], before: pa.Table) -> None:
    shown = day.impressions
    table = pa.table(
        {
            "user_id": shown.user_ids,
            "item_id": shown.item_ids,
            "event_time": pa.array(shown.times_ms, pa.timestamp("ms")),
            "clicked": shown.clicked,
            "live": live,
            "midnight": before.column("midnight"),
            "none": before.column("none"),
        }
    )
    pq.write_table(table, folder / LIVE_NAME)
