"""The HTTP side of the service: paths, documents, and what becomes of a bad request."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException

from uic.jobs.serving.http.answers import answer_of, encode, ordered_by
from uic.jobs.serving.http.api import (
    BatchAnswer,
    Problem,
    RankAnswer,
    problem_of,
    request_models,
)
from uic.jobs.serving.http.docs_page import add_docs
from uic.jobs.serving.http.funnel import add_funnel
from uic.jobs.serving.http.ids import RequestIds
from uic.jobs.serving.http.limits import RETRY_AFTER_SECONDS, Limits
from uic.jobs.serving.http.people import add_people
from uic.jobs.serving.http.service import Service
from uic.jobs.serving.rank.engine import OverloadedError
from uic.jobs.serving.read.freshness import RecordsBehindError
from uic.jobs.serving.read.metrics import exposition
from uic.jobs.serving.score.context import RequestContext
from uic.pipelines.log.events import MAX_ID

_JSON: Final = "application/json"
_REFUSALS: Final[dict[int | str, dict[str, Any]]] = {
    400: {"model": Problem, "description": "not JSON"},
    401: {"model": Problem, "description": "no token, or a wrong one"},
    413: {"model": Problem, "description": "the body is too large"},
    422: {"model": Problem, "description": "a field is not what it has to be"},
    429: {"model": Problem, "description": "too many requests; see Retry-After"},
    503: {"model": Problem, "description": "records are behind, and state.yaml says to refuse"},
}


def create_app(service: Service) -> FastAPI:
    """The application around one worker's service."""
    settings = service.settings
    rank_model, batch_model = request_models(settings, service.ids)
    app = FastAPI(
        title="User interest center: ranking",
        version="1",
        lifespan=_lifespan(service),
        docs_url=None,  # `add_docs` answers there: FastAPI's loads from a CDN
        redoc_url=None,
        description="Ranks candidates with the memory of a user, at a cost that does not grow with "
        "the user's history.",
    )

    async def rank_one(body: Any) -> dict[str, Any]:
        order_by = service.order_of(body.order_by)
        ids = RequestIds.of(service.ids, body.user_id, body.item_ids)
        context = RequestContext.of(body.context, ids.items, ids.distinct)
        ranked = await service.engine.rank(
            ids.user,
            ids.distinct,
            explain=body.explain,
            context=context,
            moment_ms=body.moment_ms,
        )
        if service.feature_log is not None:
            service.feature_log.add(ids.user, ranked, body.context)
        ranked = ordered_by(ranked, order_by, service.metrics)
        return ids.told(answer_of(ids.user, ranked, body.k, ids.duplicates, order_by))

    @app.post("/v1/rank", response_model=RankAnswer, responses=_REFUSALS, tags=["ranking"])
    async def rank(body: rank_model) -> Response:  # type: ignore[valid-type]
        """Candidates of one user, by the probability of a click or of another label."""
        with service.metrics.total.time():
            answer = await rank_one(body)
            return Response(encode(answer), media_type=_JSON)

    @app.post("/v1/rank:batch", response_model=BatchAnswer, responses=_REFUSALS, tags=["ranking"])
    async def rank_batch(body: batch_model) -> Response:  # type: ignore[valid-type]
        """Candidates of many users, answered in the order of the requests."""
        with service.metrics.total.time():
            requests: Any = body
            answers = await asyncio.gather(*(rank_one(one) for one in requests.requests))
            return Response(encode({"answers": answers}), media_type=_JSON)

    if service.prerank is not None:
        add_funnel(app, service, service.prerank)

    add_people(app, service, {**_REFUSALS, 404: {"model": Problem}, 503: {"model": Problem}})

    @app.get("/healthz", tags=["operation"])
    async def healthz() -> dict[str, bool]:
        """Whether the process answers."""
        return {"alive": True}

    @app.get("/readyz", responses={503: {"description": "draining"}}, tags=["operation"])
    async def readyz() -> Response:
        """Whether to send requests here: also while the store is away, for it answers then, too."""
        status = service.status()
        return Response(encode(status), 200 if status["ready"] else 503, media_type=_JSON)

    @app.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}, 401: {"model": Problem}},
        tags=["operation"],
    )
    async def metrics() -> Response:
        """Prometheus' text, of all workers."""
        service.metrics.circuit_open.set(int(service.status()["store"] == "circuit open"))
        text, content_type = await asyncio.to_thread(exposition)
        return Response(text, media_type=content_type)

    add_docs(app)
    _handle_problems(app)
    _describe(app, token=settings.token is not None)
    token = settings.token
    app.add_middleware(
        Limits,
        metrics=service.metrics,
        max_body_bytes=settings.max_body_bytes,
        max_in_flight=settings.max_in_flight,
        token=None if token is None else token.get_secret_value(),
        is_draining=lambda: service.draining,
    )
    return app


def _lifespan(service: Service) -> Callable[[FastAPI], Any]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        _drain_on_term(service)
        yield
        await service.stop()

    return lifespan


def _drain_on_term(service: Service) -> None:
    """SIGTERM first makes the worker not ready, and closes the port `drain_seconds` later.

    A load balancer has that long to look elsewhere; meanwhile every answer closes its connection.
    """
    loop = asyncio.get_running_loop()
    close = signal.getsignal(signal.SIGTERM)
    if not callable(close):
        return  # a server inside a test, which ends it

    def drain(number: int, frame: Any) -> None:
        service.draining = True
        loop.call_soon_threadsafe(
            lambda: loop.call_later(service.settings.drain_seconds, close, number, frame)
        )

    signal.signal(signal.SIGTERM, drain)


def _handle_problems(app: FastAPI) -> None:
    """Every refusal is a `Problem`; ASCII, so that whatever a client sent can be shown."""

    def answer(status: int, problem: Problem, headers: dict[str, str] | None = None) -> Response:
        text = json.dumps(problem.model_dump())
        return Response(text, status, media_type=_JSON, headers=headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        errors = list(error.errors())
        return answer(400 if errors[0]["type"] == "json_invalid" else 422, problem_of(errors))

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> Response:
        return answer(
            error.status_code, Problem(detail=str(error.detail)), dict(error.headers or {})
        )

    @app.exception_handler(OverloadedError)
    async def overloaded(_: Request, __: OverloadedError) -> Response:
        problem = Problem(detail="its turn did not come in time; come again")
        return answer(429, problem, {"Retry-After": RETRY_AFTER_SECONDS.decode()})

    @app.exception_handler(RecordsBehindError)
    async def behind(_: Request, error: RecordsBehindError) -> Response:
        problem = Problem(detail=str(error))
        return answer(503, problem, {"Retry-After": RETRY_AFTER_SECONDS.decode()})


def _describe(app: FastAPI, *, token: bool) -> None:
    """OpenAPI with the token, whose check is in `Limits`, and with whole bounds of ids."""

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes
            )
            if token:
                schema["components"]["securitySchemes"] = {
                    "token": {"type": "http", "scheme": "bearer"}
                }
                schema["security"] = [{"token": []}]
            app.openapi_schema = _with_whole_bounds(schema)
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign] # FastAPI's documented way


def _with_whole_bounds(schema: Any) -> Any:
    """FastAPI makes a float of every bound, and 2^63 of 2^63 - 1: an id that is refused."""
    if isinstance(schema, list):
        return [_with_whole_bounds(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    whole = {name: _with_whole_bounds(part) for name, part in schema.items()}
    if whole.get("maximum") == float(MAX_ID):
        whole["maximum"] = MAX_ID
    return whole
