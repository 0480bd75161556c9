"""What each request was scored with, written down, so that it can be held against the log later.

`serving/features/dt=YYYY-MM-DD/<time>-<worker>-<number>.parquet` in the workspace; a file appears
whole, by a rename. A thread of its own writes; if it cannot keep up, rows are dropped and counted,
since a log must not slow an answer.
"""

import json
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from uic.jobs.serving.http.answers import plain, probabilities
from uic.jobs.serving.rank.engine import RankedCandidates
from uic.jobs.serving.score.asks import FeatureValues
from uic.models.features.rows import valid_from_of
from uic.models.hashing import stable_hash
from uic.models.published import replacement

SERVED: Final = pa.schema(
    [
        pa.field("served_at", pa.timestamp("ms", tz="UTC"), nullable=False),
        pa.field("user_id", pa.int64(), nullable=False),
        pa.field("item_ids", pa.list_(pa.int64()), nullable=False),
        pa.field("probabilities", pa.list_(pa.float32()), nullable=False),
        pa.field("bundle", pa.string(), nullable=False),
        pa.field("generation", pa.int64()),
        pa.field("memory", pa.binary()),  # the record that was used; null for none
        pa.field("reasons", pa.list_(pa.string()), nullable=False),
        pa.field("context", pa.string()),  # JSON
        pa.field("features", pa.string()),  # JSON, raw values by key; null for a bundle without
        # From when the user's row of features holds; null for none.
        pa.field("user_valid_from", pa.timestamp("ms", tz="UTC")),
        # When the candidates were shown: what a record's parts said is of then.
        pa.field("moment", pa.timestamp("ms", tz="UTC")),
    ]
)
_WAITING_ROWS: Final = 20_000
_FILE_ROWS: Final = 5_000
_FILE_SECONDS: Final = 5.0
_HASH_SEED: Final = 7
LOG = logging.getLogger("uic.serve")


class FeatureLog:
    """Writes rows in the background.

    Args:
        folder: `<workspace>/serving/features`.
        share: of the users that are written, 0 to 1.
        dropped: counts rows that are not written.
    """

    def __init__(self, folder: Path, share: float, dropped: Callable[[int], None]) -> None:
        self._folder = folder
        self._below = int(share * 2**32)
        self._rows: queue.Queue[dict[str, Any] | None] = queue.Queue(_WAITING_ROWS)
        self._number = 0
        self._dropped = dropped
        self._thread = threading.Thread(target=self._run, name="feature-log", daemon=True)
        self._thread.start()

    def add(self, user_id: int, ranked: RankedCandidates, context: dict[str, Any] | None) -> None:
        """Take one answer, if its user is in the share."""
        if int(stable_hash([user_id], seed=_HASH_SEED)[0]) % 2**32 >= self._below:
            return
        row = {
            "served_at": int(time.time() * 1000),
            "user_id": user_id,
            "item_ids": ranked.item_ids,
            "probabilities": probabilities(ranked.scored.logits),
            "bundle": ranked.scored.bundle,
            "generation": None if ranked.facts is None else ranked.facts.generation,
            "memory": ranked.record,
            "reasons": [reason.value for reason in ranked.reasons],
            "context": None if context is None else json.dumps(context),
            "features": ranked.scored.features,
        }
        try:
            self._rows.put_nowait(row)
        except queue.Full:
            self._dropped(1)

    def close(self) -> None:
        """Write what is left."""
        self._rows.put(None)
        self._thread.join(timeout=30)

    def _run(self) -> None:
        rows: list[dict[str, Any]] = []
        due = time.monotonic() + _FILE_SECONDS
        open_ = True
        while open_:
            try:
                row = self._rows.get(timeout=max(0.0, due - time.monotonic()))
                open_ = row is not None
                if row is not None:
                    rows.append(row)
            except queue.Empty:
                pass
            if rows and (len(rows) >= _FILE_ROWS or time.monotonic() >= due or not open_):
                self._write(rows)
                rows = []
            if time.monotonic() >= due:
                due = time.monotonic() + _FILE_SECONDS

    def _write(self, rows: list[dict[str, Any]]) -> None:
        self._number += 1
        try:
            day = datetime.fromtimestamp(rows[0]["served_at"] / 1000, UTC).date()
            name = f"{rows[0]['served_at']}-{os.getpid()}-{self._number:06d}.parquet"
            target = self._folder / f"dt={day}" / name
            rows = [{**row, **_plain(row["features"])} for row in rows]
            with replacement(target) as draft:
                pq.write_table(pa.Table.from_pylist(rows, schema=SERVED), draft, compression="zstd")
        except Exception:  # the thread must outlive whatever one file meets
            self._dropped(len(rows))
            LOG.exception("%s: %d served rows could not be written", self._folder, len(rows))


def _plain(features: FeatureValues | None) -> dict[str, Any]:
    """Raw values by key: of a user one, of items one a candidate, of the context either."""
    if features is None:
        return {"features": None, "user_valid_from": None, "moment": None}
    values = {**features.user, **features.context, **features.items()}
    row = features.user_row
    return {
        "features": json.dumps({key: plain(raw) for key, raw in values.items()}),
        "user_valid_from": None if row is None else valid_from_of(row),
        "moment": features.moment_ms,
    }
