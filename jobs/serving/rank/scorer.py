"""What scores candidates, and what becomes of a user for whom that fails.

An error or a score that is no number must cost one user's answer its memory, and never a
neighbour's of the same pass. So users of a failed pass are scored one by one, then as new users,
and at the very last all alike.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from uic.jobs.serving.read.reasons import DegradedReason
from uic.jobs.serving.read.unexpected import log_unexpected
from uic.jobs.serving.score.asks import Ask, Scored
from uic.jobs.serving.score.features import ServedFeatures
from uic.jobs.serving.score.items import ItemTable
from uic.models.bundles.bundle import Bundle


class CandidateScorer(Protocol):
    """Scores the candidates of some users in one forward pass.

    Attributes:
        bundle: that is loaded.
        label: `model/version` of it.
        table: of items.
        features: beside ids.
    """

    bundle: Bundle
    label: str
    table: ItemTable
    features: ServedFeatures

    @property
    def item_version(self) -> int | None:
        """Of the image vectors that are used; None without images."""

    def cache_counts(self) -> tuple[int, int]:
        """Items that its cache had, and that it lacked, since it was made."""

    async def answer(self, asks: Sequence[Ask]) -> list[Scored]:
        """Logits for each ask; the loop goes on while the store is read for them."""

    def answer_now(self, asks: Sequence[Ask]) -> list[Scored]:
        """As `answer`, holding up the caller: to warm, and to measure."""


async def score_each(scorer: CandidateScorer, asks: Sequence[Ask]) -> list[Scored]:
    """One pass over all, and those it fails for again without the others.

    Returns:
        finite logits for each ask, with the reason where they are not what was asked for.
    """
    try:
        answers = await scorer.answer(asks)
    except Exception as error:  # for one user: the others have their answer
        log_unexpected(f"a pass of {scorer.label}", error)
        answers = [await _alone(scorer, ask) for ask in asks]
    return [
        scored if scored.finite else await _as_new(scorer, ask, DegradedReason.NOT_FINITE)
        for ask, scored in zip(asks, answers, strict=True)
    ]


def unscored(label: str, candidates: int) -> Scored:
    """Equal logits, which leave the candidates in the order of the request."""
    # Nothing was looked up; "unknown item" would name a cause that is none.
    logits, known = np.zeros(candidates, np.float32), np.ones(candidates, np.bool_)
    return Scored(logits, known, label, reasons=(DegradedReason.INTERNAL_ERROR,))


async def _alone(scorer: CandidateScorer, ask: Ask) -> Scored:
    try:
        return (await scorer.answer([ask]))[0]
    except Exception as error:  # the record is the likeliest cause
        log_unexpected(f"scoring one user with {scorer.label}", error)
        return await _as_new(scorer, ask, DegradedReason.INTERNAL_ERROR)


async def _as_new(scorer: CandidateScorer, ask: Ask, reason: DegradedReason) -> Scored:
    try:
        scored = (await scorer.answer([replace(ask, record=None, beside=None)]))[0]
    except Exception as error:  # an answer of equal scores, and never a 5xx
        log_unexpected(f"scoring a new user with {scorer.label}", error)
        return unscored(scorer.label, len(ask.item_ids))
    if not scored.finite:
        scored = unscored(scorer.label, len(ask.item_ids))
    return replace(scored, reasons=(reason, *scored.reasons))
