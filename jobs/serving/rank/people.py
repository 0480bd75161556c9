"""A user's memory for people: named numbers in place of a packed record."""

import time
from typing import Any, Final

from uic.jobs.serving.rank.engine import RankingEngine
from uic.jobs.serving.read.reasons import DegradedReason
from uic.models.errors import BadInputError

_STATUS: Final = {
    DegradedReason.UNKNOWN_USER: 404,
    DegradedReason.STORE_EMPTY: 404,
    DegradedReason.FOREIGN_VALUE: 404,
}


async def interests_of(
    engine: RankingEngine, user_id: int, said: int | str
) -> tuple[int, dict[str, Any]]:
    """Status and body of /v1/users/{id}/interests, of a user as the client `said` it."""
    fetched = await engine.reader.fetch([user_id])
    record, reason = fetched.values[0], fetched.reasons[0]
    if record is None:
        word = reason.value if reason is not None else "nothing"
        problem = {"field": "user_id", "detail": f"user_id: no memory of {said}: {word}"}
        return (_STATUS.get(reason, 503) if reason else 404), problem
    try:
        facts = engine.scorers.facts(record)
        state = engine.scorers.state_numbers(record)
    except BadInputError as error:
        return 404, {"field": "user_id", "detail": f"user_id: no memory of {said}: {error}"}
    age = facts.age_seconds(time.time())
    return 200, {
        "user_id": said,
        "events": facts.events,
        "last_event_time_ms": None if age is None else facts.last_event_time_ms,
        "age_seconds": None if age is None else round(age, 3),
        "generation": facts.generation,
        "bundle": facts.bundle,
        "epoch": facts.epoch,
        "partition": facts.partition,
        "offset": facts.offset,
        "state": state,
    }
