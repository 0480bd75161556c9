"""From scored candidates to the JSON that a client gets."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from uic.jobs.serving.rank.engine import RankedCandidates
from uic.jobs.serving.read.metrics import ServiceMetrics
from uic.jobs.serving.read.reasons import DegradedReason
from uic.jobs.serving.score.asks import FeatureValues, Scored
from uic.models.features.definition import CLICK
from uic.models.features.raw import RawValues

encode = msgspec.json.Encoder().encode
# Bounds of what `explain` shows, so that an answer stays readable: the first items of an answer,
# and the first values of a list or an embedding.
EXPLAINED_ITEMS: Final = 100
EXPLAINED_VALUES: Final = 16


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of a click: the logistic function of logits, in float64."""
    chances: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))
    return chances


def task_probabilities(scored: Scored) -> list[dict[str, float]]:
    """Of each candidate, that it is clicked and that each label comes true; none without tasks."""
    if not scored.tasks:
        return []
    names = [CLICK, *scored.tasks]
    columns = [probabilities(own).tolist() for own in (scored.logits, *scored.tasks.values())]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def ordered_by(ranked: RankedCandidates, task: str, metrics: ServiceMetrics) -> RankedCandidates:
    """The candidates as they are, with a reason where the bundle has no head for the order."""
    if ranked.scored.logits_of(task) is not None:
        return ranked
    metrics.degraded.labels(DegradedReason.UNKNOWN_TASK.value).inc()
    return replace(ranked, reasons=(*ranked.reasons, DegradedReason.UNKNOWN_TASK))


def deciding_logits(scored: Scored, task: str) -> NDArray[np.float32]:
    """What the order is by: the task's, or the click's where there is no such task."""
    own = scored.logits_of(task)
    return scored.logits if own is None else own


def answer_of(
    user_id: int, ranked: RankedCandidates, k: int | None, duplicates: int, order_by: str = CLICK
) -> dict[str, Any]:
    """The body of /v1/rank (`api.RankAnswer`)."""
    scored, facts = ranked.scored, ranked.facts
    order = np.argsort(-deciding_logits(scored, order_by), kind="stable")[:k]
    values = probabilities(scored.logits).tolist()
    known = scored.known.tolist()
    items: list[dict[str, Any]] = [
        {"item_id": ranked.item_ids[at], "probability": values[at], "known": known[at]}
        for at in order.tolist()
    ]
    if by_label := task_probabilities(scored):
        for item, at in zip(items, order.tolist(), strict=True):
            item["probabilities"] = by_label[at]
    age = ranked.age_seconds
    return {
        "user_id": user_id,
        "items": items,
        **explained(scored, items, order.tolist()),
        "generation": None if facts is None else facts.generation,
        "bundle": scored.bundle,
        "memory_bundle": None if facts is None else facts.bundle,
        "memory_age_seconds": None if age is None else round(age, 3),
        "memory_events": None if facts is None else facts.events,
        "records_behind_seconds": (
            None if ranked.behind_seconds is None else round(ranked.behind_seconds, 1)
        ),
        "degraded": bool(ranked.reasons),
        "reasons": [reason.value for reason in ranked.reasons],
        "duplicates": duplicates,
    }


def plain(raw: RawValues) -> list[Any]:
    """Values as JSON has them: a missing number is NaN, which is no JSON, so null."""
    shown = raw.astype(object)
    if raw.dtype.kind == "f":
        shown[np.isnan(raw)] = None
    values: list[Any] = shown.tolist()
    return values


def explained(
    scored: Scored, items: Sequence[dict[str, Any]], order: Sequence[int]
) -> dict[str, Any]:
    """Put an `explanation` into each item, where it was asked for; what the answer says itself.

    Args:
        scored: candidates.
        items: of the answer, best first.
        order: the candidate of each.
    """
    if scored.without_memory is None:
        return {}
    for item, at in zip(items, order, strict=True):
        item["explanation"] = _explanation(scored, at)
    if scored.features is None:
        return {}
    of_all, of_each = _told(scored, scored.features, list(order[:EXPLAINED_ITEMS]))
    for item, told in zip(items, of_each, strict=False):
        item["explanation"]["features"] = told
    return {"features": of_all}


def _told(
    scored: Scored, features: FeatureValues, candidates: list[int]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Raw values by key: those that are the same for all candidates, and those of each."""
    of_all: dict[str, Any] = {}
    of_each: list[dict[str, Any]] = [{} for _ in candidates]
    for values, shared in (
        (features.user, True), (features.context, False), (features.items(), False)
    ):  # fmt: skip
        for key, raw in values.items():
            short = raw if raw.ndim == 1 else raw[:, :EXPLAINED_VALUES]
            if shared or key in features.of_user or len(raw) < len(scored.logits):
                of_all[key] = plain(short[:1])[0]
                continue
            for told, value in zip(of_each, plain(short[candidates]), strict=True):
                told[key] = value
    return of_all, of_each


def _explanation(scored: Scored, at: int) -> dict[str, Any]:
    assert scored.without_memory is not None  # noqa: S101 - the caller asked
    without = scored.without_memory[at : at + 1]
    weights = scored.slot_weights
    return {
        "logit": float(scored.logits[at]),
        "probability_without_memory": float(probabilities(without)[0]),
        "slot_weights": None if weights is None else weights[at].tolist(),
    }
