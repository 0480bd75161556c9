"""What goes in and out of the service: requests with their limits, answers, errors, examples.

The limits are settings, so the request models are made for them, and OpenAPI shows the real ones.
"""

from collections.abc import Collection
from typing import Annotated, Any, Final

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.config import JsonDict

from uic.jobs.config.serve import ServeSettings
from uic.jobs.serving.http.answers import EXPLAINED_ITEMS, EXPLAINED_VALUES
from uic.jobs.serving.http.ids import SaidId, example_of, id_type
from uic.models.features.definition import CLICK, NAME_PATTERN
from uic.pipelines.log.events import MAX_ID
from uic.pipelines.log.text_ids import TextIds

_MAX_CONTEXT: Final = 64

ContextValue = (
    Annotated[bool, Field(strict=True)]
    | Annotated[int, Field(strict=True, ge=-(2**63), le=MAX_ID)]
    | Annotated[float, Field(strict=True, allow_inf_nan=False)]
    | Annotated[str, Field(max_length=1000)]
)
_MAX_LIST: Final = 1024  # the widest feature


def _context_values(most: int) -> Any:
    """A value, a list of values, or one of these a candidate; null is no value."""
    one: Any = ContextValue | None
    values: Any = Annotated[list[one], Field(max_length=max(most, _MAX_LIST))]
    inner: Any = Annotated[list[one], Field(max_length=_MAX_LIST)]
    lists: Any = Annotated[list[one | inner], Field(max_length=most)]
    return one | values | lists


def context_field(most: int) -> tuple[Any, Any]:
    """`context` of a request with up to `most` candidates, for `create_model`."""
    value: Any = _context_values(most)
    values: Any = Annotated[dict[str, value], Field(max_length=_MAX_CONTEXT)]
    text = (
        "features of the context by name, as features.yaml has them: a value for all candidates, "
        "or a list parallel to item_ids; logged with the features"
    )
    return values | None, Field(default=None, description=text)


RANK_EXAMPLE: Final[JsonDict] = {
    "user_id": 17,
    "item_ids": [1001, 1002, 1003],
    "k": 2,
    "context": {"page": "home", "hour": 21},
    "explain": False,
}
ANSWER_EXAMPLE: Final[JsonDict] = {
    "user_id": 17,
    "items": [
        {"item_id": 1003, "probability": 0.0823, "known": True},
        {"item_id": 1001, "probability": 0.0317, "known": True},
    ],
    "generation": 3,
    "bundle": "mimn/0002",
    "memory_bundle": "8c2f0a6be1d94477",
    "memory_age_seconds": 12.4,
    "memory_events": 1043,
    "records_behind_seconds": None,
    "degraded": False,
    "reasons": [],
    "duplicates": 0,
}
INTERESTS_EXAMPLE: Final[JsonDict] = {
    "user_id": 17,
    "events": 1043,
    "last_event_time_ms": 1_741_000_000_000,
    "age_seconds": 12.4,
    "generation": 3,
    "bundle": "8c2f0a6be1d94477",
    "epoch": 2,
    "partition": 1,
    "offset": 883_112,
    "state": {"M": [[0.12, -0.4]], "S": [[0.0, 0.7]], "pool": [0.01, 0.02]},
}


EXPLAIN: Final = "say why: see `explanation` and `features`"
EXPLAINED: Final[Any] = Field(
    None,
    description="with `explain`: raw values by key that are the same for all candidates: of the "
    "user, of their record's exact parts (`state.part.feature`), of the context; of a list the "
    f"first {EXPLAINED_VALUES} values; null is a missing one",
)


class Item(BaseModel):
    """One candidate with its score."""

    item_id: SaidId = Field(description="as in the request")
    probability: float = Field(description="of a click; 0 to 1")
    known: bool = Field(description="whether the item table has it")
    probabilities: dict[str, float] | None = Field(
        None, description="of the click and of each label that the bundle has a head for, by name"
    )
    explanation: dict[str, Any] | None = Field(
        None,
        description="with `explain`: logit, probability without memory, weights of the slots; of "
        f"the first {EXPLAINED_ITEMS} items `features`: raw values of the candidate by key",
    )


class RankAnswer(BaseModel):
    """Candidates by the probability of `order_by`, largest first; ties as in the request."""

    model_config = ConfigDict(json_schema_extra={"example": ANSWER_EXAMPLE})

    user_id: SaidId
    items: list[Item]
    features: dict[str, Any] | None = EXPLAINED
    generation: int | None = Field(description="of the memory that was found; null for none")
    bundle: str = Field(description="model/version that scored")
    memory_bundle: str | None = Field(description="hash of the bundle that folded the memory")
    memory_age_seconds: float | None = Field(description="since the memory's last event")
    memory_events: int | None = Field(description="events folded into the memory")
    records_behind_seconds: float | None = Field(
        None, description="how far the stream is behind; null without `freshness` in state.yaml"
    )
    degraded: bool = Field(description="whether `reasons` has any")
    reasons: list[str] = Field(description="see uic.jobs.serving.read.reasons")
    duplicates: int = Field(description="candidates that were named again; each is answered once")


class BatchAnswer(BaseModel):
    """Answers in the order of the requests."""

    answers: list[RankAnswer]


class Interests(BaseModel):
    """A user's memory as numbers."""

    model_config = ConfigDict(json_schema_extra={"example": INTERESTS_EXAMPLE})

    user_id: SaidId
    events: int
    last_event_time_ms: int | None = Field(description="null where things were only shown")
    age_seconds: float | None
    generation: int
    bundle: str
    epoch: int
    partition: int
    offset: int
    state: dict[str, Any] | None = Field(
        description="parts of the state by name; null if no bundle here can read it"
    )


class Problem(BaseModel):
    """Why a request was refused."""

    field: str | None = Field(None, description="of the request; null if none is to blame")
    detail: str = Field(description="what was found and what was expected, in one line")


# 1990 to 9999: seconds of our time would be in 1970.
MOMENTS_MS: Final = (631_152_000_000, 253_402_300_799_999)
# Fields of a request.
MOMENT_MS: Final[Any] = (
    Annotated[int, Field(ge=MOMENTS_MS[0], le=MOMENTS_MS[1], strict=True)] | None,
    Field(
        default=None,
        description="when the candidates are shown, milliseconds since 1970 UTC; null for now. A "
        "record's ages and decayed counts are as of then: of a log that ended long ago, they are "
        "only right for a moment near its end",
    ),
)
ORDER_BY: Final[Any] = (
    Annotated[str, Field(pattern=NAME_PATTERN)] | None,
    Field(
        default=None,
        description="click, or a label that the bundle has a head for; null for serve.order_by",
    ),
)


def chosen_order(order_by: str | None, settings: ServeSettings, tasks: Collection[str]) -> str:
    """What a request wants its candidates ordered by.

    Raises:
        RequestValidationError: it names what the bundle has no head for.
    """
    if order_by is None:
        return settings.order_by
    known = [CLICK, *tasks]
    if order_by not in known:
        error = {
            "type": "value_error",
            "loc": ("body", "order_by"),
            "msg": f"expected one of {', '.join(known)}",
            "input": order_by,
        }
        raise RequestValidationError([error])
    return order_by


def request_models(
    settings: ServeSettings, ids: TextIds
) -> tuple[type[BaseModel], type[BaseModel]]:
    """The body of /v1/rank and of /v1/rank:batch, with the limits of the settings."""
    example = example_of(RANK_EXAMPLE, ids)
    one: Any = id_type(ids, "item")
    listed: Any = Annotated[list[one], Field(min_length=1, max_length=settings.max_candidates)]
    rank = create_model(
        "RankRequest",
        __config__=ConfigDict(extra="forbid", json_schema_extra={"example": example}),
        __doc__="Candidates to be ranked for one user.",
        user_id=(id_type(ids, "user"), Field(description="whose memory to use")),
        item_ids=(listed, Field(description="candidates")),
        k=(
            Annotated[int, Field(ge=1, le=settings.max_candidates, strict=True)] | None,
            Field(default=None, description="answer with the best so many; null for all"),
        ),
        context=context_field(settings.max_candidates),
        order_by=ORDER_BY,
        explain=(
            Annotated[bool, Field(strict=True)],
            Field(default=False, description=EXPLAIN),
        ),
        moment_ms=MOMENT_MS,
    )
    batch = create_model(
        "BatchRequest",
        __config__=ConfigDict(
            extra="forbid", json_schema_extra={"example": {"requests": [example]}}
        ),
        __doc__="Many users' candidates.",
        requests=(
            Annotated[list[rank], Field(min_length=1, max_length=settings.max_users)],
            Field(description="one a user"),
        ),
    )
    return rank, batch


def problem_of(errors: list[dict[str, Any]]) -> Problem:
    """The first of pydantic's errors as one line that names the field.

    Of a value that may be of several kinds, and is of none, pydantic has an error for each.
    """
    first = errors[0]
    place = [str(part) for part in first["loc"] if part not in ("body", "path", "query")]
    if "context" in first["loc"][:-2]:  # after it come the value's name and the kind
        name = first["loc"][: first["loc"].index("context") + 2]
        kinds = [error["msg"] for error in errors if error["loc"][: len(name)] == name]
        place = place[: place.index("context") + 2]
        first = {**first, "msg": "; or ".join(dict.fromkeys(kinds))}
    found = first.get("input")
    shown = "" if found is None or isinstance(found, dict | list) else f" (found {found!r:.80})"
    if first["type"] == "json_invalid":
        return Problem(field=None, detail=f"body: not JSON: {first['ctx'].get('error', '')}")
    if first["type"] in ("too_long", "too_short"):
        shown = f" (found {first['ctx']['actual_length']})"
    field = ".".join(place) or "body"
    return Problem(field=field, detail=f"{field}: {first['msg']}{shown}")
