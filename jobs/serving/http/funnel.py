"""`POST /v1/prerank` and `POST /v1/funnel`: bodies, answers, and the two stages one after another.

1. Pre-rank all candidates by the inner product of two towers (`uic.jobs.serving.score.prerank`).
2. The ranker scores the best of them, as `/v1/rank` would.
3. Order by probability; with bids by bid x probability, what a click is worth (eCPM, DICM 6.1), or
   what `order_by` names, such as a purchase.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Final

import numpy as np
from fastapi import FastAPI, Response
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, create_model, field_validator
from pydantic.config import JsonDict

from uic.jobs.config.serve import ServeSettings
from uic.jobs.serving.http.answers import (
    deciding_logits,
    encode,
    explained,
    ordered_by,
    probabilities,
    task_probabilities,
)
from uic.jobs.serving.http.api import (
    EXPLAIN,
    EXPLAINED,
    MOMENT_MS,
    ORDER_BY,
    Problem,
    context_field,
)
from uic.jobs.serving.http.ids import RequestIds, SaidId, example_of, id_type
from uic.jobs.serving.http.service import Service
from uic.jobs.serving.rank.engine import RankedCandidates
from uic.jobs.serving.score.context import RequestContext
from uic.jobs.serving.score.prerank import Preranked
from uic.jobs.serving.score.prerank_stage import PrerankStage
from uic.models.features.definition import CLICK
from uic.pipelines.log.text_ids import TextIds

_JSON: Final = "application/json"
PRERANK_EXAMPLE: Final[JsonDict] = {"user_id": 17, "item_ids": [1001, 1002, 1003], "k": 2}
FUNNEL_EXAMPLE: Final[JsonDict] = {
    "user_id": 17,
    "item_ids": [1001, 1002, 1003],
    "bids": [0.5, 0.2, 1.0],
    "keep": 2,
    "k": 1,
}
PRERANK_ANSWER_EXAMPLE: Final[JsonDict] = {
    "user_id": 17,
    "items": [
        {"item_id": 1003, "score": -2.31, "known": True},
        {"item_id": 1001, "score": -3.4, "known": True},
    ],
    "candidates": 3,
    "bundle": "prerank/0002",
    "degraded": False,
    "reasons": [],
    "duplicates": 0,
}
FUNNEL_ANSWER_EXAMPLE: Final[JsonDict] = {
    "user_id": 17,
    "items": [
        {
            "item_id": 1003,
            "probability": 0.0823,
            "bid": 1.0,
            "value": 0.0823,
            "prerank_score": -2.31,
            "known": True,
        }
    ],
    "stages": [
        {
            "stage": "prerank",
            "bundle": "prerank/0002",
            "candidates": 3,
            "kept": 2,
            "reasons": [],
        },
        {"stage": "rank", "bundle": "mimn/0002", "candidates": 2, "kept": 1, "reasons": []},
    ],
    "degraded": False,
    "reasons": [],
    "duplicates": 0,
}


class PrerankedItem(BaseModel):
    """One candidate that was kept."""

    item_id: SaidId
    score: float = Field(description="inner product of user and item, and a bias: log odds")
    known: bool = Field(description="whether the item table has it")


class PrerankAnswer(BaseModel):
    """The best candidates, largest score first; ties in the order of the request."""

    model_config = ConfigDict(json_schema_extra={"example": PRERANK_ANSWER_EXAMPLE})

    user_id: SaidId
    items: list[PrerankedItem]
    candidates: int = Field(description="distinct candidates that were scored")
    bundle: str = Field(description="model/version that scored")
    degraded: bool = Field(description="whether `reasons` has any")
    reasons: list[str] = Field(description="see uic.jobs.serving.read.reasons")
    duplicates: int = Field(description="candidates that were named again; each is answered once")


class FunnelItem(BaseModel):
    """One candidate that came through both stages."""

    item_id: SaidId
    probability: float = Field(description="of a click, by the ranker; 0 to 1")
    bid: float | None = Field(description="as in the request; null without bids")
    value: float = Field(
        description="what the order is by: bid x probability of `order_by`, or that probability"
    )
    probabilities: dict[str, float] | None = Field(
        None, description="of the click and of each label that the bundle has a head for, by name"
    )
    prerank_score: float = Field(description="score of the pre-rank")
    known: bool = Field(description="whether the item table has it")
    explanation: dict[str, Any] | None = Field(None, description="as in /v1/rank")


class Stage(BaseModel):
    """What one stage did."""

    stage: str = Field(description="prerank or rank")
    bundle: str = Field(description="model/version that scored")
    candidates: int = Field(description="that it scored")
    kept: int = Field(description="that it passed on")
    reasons: list[str] = Field(description="why it is degraded; see uic.jobs.serving.read.reasons")


class FunnelAnswer(BaseModel):
    """What came through both stages, largest value first; ties in the order of the pre-rank."""

    model_config = ConfigDict(json_schema_extra={"example": FUNNEL_ANSWER_EXAMPLE})

    user_id: SaidId
    items: list[FunnelItem]
    features: dict[str, Any] | None = EXPLAINED
    stages: list[Stage]
    degraded: bool = Field(description="whether any stage has `reasons`")
    reasons: list[str] = Field(description="of all stages, each once")
    duplicates: int = Field(description="candidates that were named again; each is answered once")


def funnel_models(settings: ServeSettings, ids: TextIds) -> tuple[type[BaseModel], type[BaseModel]]:
    """The bodies of /v1/prerank and /v1/funnel, with the limits of the settings."""
    most = settings.max_prerank_candidates
    one: Any = id_type(ids, "item")
    listed: Any = Annotated[list[one], Field(min_length=1, max_length=most)]
    item_ids = (listed, Field(description="candidates"))
    examples = [example_of(example, ids) for example in (PRERANK_EXAMPLE, FUNNEL_EXAMPLE)]
    count = Annotated[int, Field(ge=1, le=most, strict=True)] | None
    prerank = create_model(
        "PrerankRequest",
        __config__=ConfigDict(extra="forbid", json_schema_extra={"example": examples[0]}),
        __doc__="Candidates of which the best are to be kept for one user.",
        user_id=(id_type(ids, "user"), Field(description="whose behaviours to use")),
        item_ids=item_ids,
        k=(
            count,
            Field(default=None, description="keep so many; null for serve.prerank_keep"),
        ),
        context=context_field(most),
    )
    bid = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
    funnel = create_model(
        "FunnelRequest",
        __config__=ConfigDict(extra="forbid", json_schema_extra={"example": examples[1]}),
        __doc__="Candidates to be pre-ranked and then ranked for one user.",
        __validators__={"bids_fit": field_validator("bids")(_bids_fit)},
        user_id=(id_type(ids, "user"), Field(description="whose behaviours and memory to use")),
        item_ids=item_ids,
        bids=(
            list[bid] | None,
            Field(
                default=None,
                description="price of a click (or of `order_by`) on each candidate, at least 0; "
                "null orders by probability",
            ),
        ),
        keep=(
            count,
            Field(default=None, description="pass so many to the ranker; null for the setting"),
        ),
        k=(count, Field(default=None, description="answer with the best so many; null for all")),
        context=context_field(most),
        order_by=ORDER_BY,
        explain=(Annotated[bool, Field(strict=True)], Field(default=False, description=EXPLAIN)),
        moment_ms=MOMENT_MS,
    )
    return prerank, funnel


def _bids_fit(bids: list[float] | None, info: ValidationInfo) -> list[float] | None:
    """One bid per candidate, and one only."""
    item_ids = info.data.get("item_ids")
    if bids is None or item_ids is None:
        return bids  # what is wrong with item_ids is said there
    if len(bids) != len(item_ids):
        msg = f"{len(bids)} bids for {len(item_ids)} item_ids"
        raise ValueError(msg)
    of_item: dict[SaidId, float] = {}
    for item_id, bid in zip(item_ids, bids, strict=True):
        if of_item.setdefault(item_id, bid) != bid:
            msg = f"item {item_id} is there twice, with bids {of_item[item_id]:g} and {bid:g}"
            raise ValueError(msg)
    return bids


def add_funnel(app: FastAPI, service: Service, stage: PrerankStage) -> None:
    """Add both paths to the application."""
    prerank_model, funnel_model = funnel_models(service.settings, service.ids)
    refusals: dict[int | str, dict[str, Any]] = {
        status: {"model": Problem} for status in (400, 401, 413, 422, 429, 503)
    }
    seconds = service.metrics.seconds
    prerank_total, funnel_total = seconds.labels("prerank_total"), seconds.labels("funnel_total")

    @app.post("/v1/prerank", response_model=PrerankAnswer, responses=refusals, tags=["ranking"])
    async def prerank(body: prerank_model) -> Response:  # type: ignore[valid-type]
        """The best of thousands of candidates, by the inner product of two towers."""
        asked: Any = body
        with prerank_total.time():
            ids = RequestIds.of(service.ids, asked.user_id, asked.item_ids)
            context = RequestContext.of(asked.context, ids.items, ids.distinct)
            preranked = await stage.prerank(ids.user, ids.distinct, context)
            answer = prerank_answer(ids.user, preranked, asked.k or stage.keep, ids.duplicates)
            return Response(encode(ids.told(answer)), media_type=_JSON)

    @app.post("/v1/funnel", response_model=FunnelAnswer, responses=refusals, tags=["ranking"])
    async def funnel(body: funnel_model) -> Response:  # type: ignore[valid-type]
        """Pre-rank, rank the best, and order by probability or by bid x probability."""
        asked: Any = body
        with funnel_total.time():
            order_by = service.order_of(asked.order_by)
            ids = RequestIds.of(service.ids, asked.user_id, asked.item_ids)
            of_all = RequestContext.of(asked.context, ids.items, ids.distinct)
            preranked = await stage.prerank(ids.user, ids.distinct, of_all)  # step 1
            best = preranked.best[: asked.keep or stage.keep]
            kept = preranked.item_ids[best].tolist()
            told = {"explain": asked.explain, "moment_ms": asked.moment_ms}
            told["context"] = RequestContext.of(asked.context, ids.items, kept)
            ranked = await service.engine.rank(ids.user, kept, **told)
            if service.feature_log is not None:
                service.feature_log.add(ids.user, ranked, asked.context)
            ranked = ordered_by(ranked, order_by, service.metrics)
            bids = None
            if asked.bids is not None:
                of_item = dict(zip(ids.items, asked.bids, strict=True))
                bids = [of_item[item_id] for item_id in ranked.item_ids]
            answer = {
                "user_id": ids.user,
                **funnel_answer(preranked, best, ranked, bids, asked.k, order_by=order_by),
                "duplicates": ids.duplicates,
            }
            return Response(encode(ids.told(answer)), media_type=_JSON)


def prerank_answer(user_id: int, preranked: Preranked, k: int, duplicates: int) -> dict[str, Any]:
    """The body of /v1/prerank (`PrerankAnswer`)."""
    best = preranked.best[:k]
    columns = (preranked.item_ids, preranked.logits, preranked.known)
    rows = zip(*(column[best].tolist() for column in columns), strict=True)
    return {
        "user_id": user_id,
        "items": [{"item_id": item, "score": score, "known": known} for item, score, known in rows],
        "candidates": len(preranked.item_ids),
        "bundle": preranked.bundle,
        "degraded": bool(preranked.reasons),
        "reasons": [reason.value for reason in preranked.reasons],
        "duplicates": duplicates,
    }


def funnel_answer(
    preranked: Preranked,
    best: NDArray[np.int64],
    ranked: RankedCandidates,
    bids: Sequence[float] | None,
    k: int | None,
    *,
    order_by: str = CLICK,
) -> dict[str, Any]:
    """What both stages say (`FunnelAnswer`).

    Args:
        preranked: scores of all candidates.
        best: indices of those that were ranked, in the order of `ranked`.
        ranked: the ranker's answer.
        bids: one for each of `ranked`; None for no bids.
        k: items of the answer; None for all.
        order_by: what a bid pays for, and the order is by without bids.
    """
    scored = ranked.scored
    chances, by_label = probabilities(scored.logits), task_probabilities(scored)
    values = probabilities(deciding_logits(scored, order_by))
    if bids is not None:
        values = values * np.asarray(bids, dtype=np.float64)
    order = np.argsort(-values, kind="stable")[:k].tolist()  # step 3
    scores, known = preranked.logits[best].tolist(), ranked.scored.known.tolist()
    items = [
        {
            "item_id": ranked.item_ids[at],
            "probability": float(chances[at]),
            "bid": None if bids is None else bids[at],
            "value": float(values[at]),
            "prerank_score": scores[at],
            "known": known[at],
            **({"probabilities": by_label[at]} if by_label else {}),
        }
        for at in order
    ]
    stages = [
        _stage("prerank", preranked.bundle, len(preranked.item_ids), len(best), preranked.reasons),
        _stage("rank", ranked.scored.bundle, len(best), len(items), ranked.reasons),
    ]
    reasons = list(dict.fromkeys(reason for stage in stages for reason in stage["reasons"]))
    return {
        "items": items,
        **explained(scored, items, order),
        "stages": stages,
        "degraded": bool(reasons),
        "reasons": reasons,
    }


def _stage(
    name: str, bundle: str, candidates: int, kept: int, reasons: Sequence[Any]
) -> dict[str, Any]:
    return {
        "stage": name,
        "bundle": bundle,
        "candidates": candidates,
        "kept": kept,
        "reasons": [reason.value for reason in reasons],
    }
