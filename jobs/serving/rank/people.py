"""A user's memory for people: named numbers in place of a packed record."""

import time
from typing import Any, Final

import numpy as np

from uic.jobs.serving.rank.engine import RankingEngine
from uic.jobs.serving.read.reasons import Reason
from uic.jobs.serving.score.readouts import Readout

_STATUS: Final = {Reason.UNKNOWN_USER: 404, Reason.STORE_EMPTY: 404, Reason.FOREIGN_VALUE: 404}


async def interests_of(engine: RankingEngine, user_id: int) -> tuple[int, dict[str, Any]]:
    """Status and body of /v1/users/{id}/interests."""
    fetched = await engine.reader.fetch([user_id])
    record, reason = fetched.values[0], fetched.reasons[0]
    if record is None:
        word = reason.value if reason is not None else "nothing"
        problem = {"field": "user_id", "detail": f"user_id: no memory of {user_id}: {word}"}
        return (_STATUS.get(reason, 503) if reason else 404), problem
    facts = engine.readouts.facts(record)
    return 200, {
        "user_id": user_id,
        "events": facts.events,
        "last_event_time_ms": facts.last_event_time_ms,
        "age_seconds": round(time.time() - facts.last_event_time_ms / 1000, 3),
        "generation": facts.generation,
        "bundle": facts.bundle,
        "epoch": facts.epoch,
        "partition": facts.partition,
        "offset": facts.offset,
        "state": _state_of(engine.readouts.choose(record), record),
    }


def _state_of(readout: Any, record: bytes) -> dict[str, Any] | None:
    if not isinstance(readout, Readout):
        return None
    state = readout.state_of(np.frombuffer(record, dtype=np.uint8).reshape(1, -1).copy())
    names = ("M", "S", "h", "r", "g", "pool")
    parts = {name: getattr(state, name) for name in names}
    return {name: part[0].tolist() for name, part in parts.items() if part is not None}
