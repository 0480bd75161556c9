"""What to ask for: users and candidates as they occur in the log's impressions."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from uic.models.errors import BadInputError
from uic.pipelines.log.event_log import EventLog

_ROWS = 2_000_000


def bodies_from_log(log: Path, requests: int, candidates: int, seed: int = 0) -> list[bytes]:
    """Bodies of /v1/rank: a user of some impression, and distinct items of other impressions.

    So active users are asked for more often, and popular items are candidates more often.

    Args:
        log: folder of the event log.
        requests: distinct bodies; count.
        candidates: items a request.
        seed: of the draw.

    Raises:
        BadInputError: the log has no impressions, or fewer items than candidates.
    """
    columns: list[pa.Table] = []
    rows = 0
    for file in reversed(EventLog(log).impression_files()):
        columns.append(pq.ParquetFile(file.path).read(columns=["user_id", "item_id"]))
        rows += file.rows
        if rows >= _ROWS:  # the newest are enough
            break
    if not rows:
        msg = f"{log}: has no impressions to draw users and candidates from; import some"
        raise BadInputError(msg)
    table = pa.concat_tables(columns)
    random = np.random.default_rng(seed)
    users = random.choice(table["user_id"].to_numpy(), requests)
    return bodies_of(users, table["item_id"].to_numpy(), candidates, random)


def bodies_of(
    users: Sequence[int] | NDArray[np.int64],
    shown: NDArray[np.int64],
    candidates: int,
    random: np.random.Generator,
) -> list[bytes]:
    """One body a user, with distinct candidates drawn from the items that were shown.

    Args:
        users: (requests,).
        shown: (impressions,), int64; an item that is shown more often is drawn more often.
        candidates: items a request.
        random: decides the draw.

    Raises:
        BadInputError: fewer distinct items than candidates.
    """
    distinct = np.unique(shown)
    if len(distinct) < candidates:
        msg = f"candidates: {candidates}, but the log's impressions show {len(distinct)} items only"
        raise BadInputError(msg)
    bodies = []
    for user in np.asarray(users).tolist():
        drawn = list(dict.fromkeys(random.choice(shown, 2 * candidates).tolist()))[:candidates]
        if len(drawn) < candidates:  # a few very popular items: fill up with others
            rest = np.setdiff1d(distinct, drawn)
            drawn += random.choice(rest, candidates - len(drawn), replace=False).tolist()
        bodies.append(json.dumps({"user_id": user, "item_ids": drawn}).encode())
    return bodies
