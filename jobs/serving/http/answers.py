"""From scored candidates to the JSON that a client gets."""

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from uic.jobs.serving.rank.engine import RankedCandidates
from uic.jobs.serving.score.asks import Scored

encode = msgspec.json.Encoder().encode


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of a click: the logistic function of logits, in float64."""
    chances: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))
    return chances


def answer_of(
    user_id: int, ranked: RankedCandidates, k: int | None, duplicates: int
) -> dict[str, Any]:
    """The body of /v1/rank (`api.RankAnswer`)."""
    scored, facts = ranked.scored, ranked.facts
    order = np.argsort(-scored.logits, kind="stable")[:k]
    values = probabilities(scored.logits).tolist()
    known = scored.known.tolist()
    items: list[dict[str, Any]] = [
        {"item_id": ranked.item_ids[at], "probability": values[at], "known": known[at]}
        for at in order.tolist()
    ]
    if scored.without_memory is not None:
        for item, at in zip(items, order.tolist(), strict=True):
            item["explanation"] = _explanation(scored, at)
    age = ranked.age_seconds
    return {
        "user_id": user_id,
        "items": items,
        "generation": None if facts is None else facts.generation,
        "bundle": scored.bundle,
        "memory_bundle": None if facts is None else facts.bundle,
        "memory_age_seconds": None if age is None else round(age, 3),
        "memory_events": None if facts is None else facts.events,
        "degraded": bool(ranked.reasons),
        "reasons": [reason.value for reason in ranked.reasons],
        "duplicates": duplicates,
    }


def _explanation(scored: Scored, at: int) -> dict[str, Any]:
    assert scored.without_memory is not None  # noqa: S101 - the caller asked
    without = scored.without_memory[at : at + 1]
    weights = scored.slot_weights
    return {
        "logit": float(scored.logits[at]),
        "probability_without_memory": float(probabilities(without)[0]),
        "slot_weights": None if weights is None else weights[at].tolist(),
    }
