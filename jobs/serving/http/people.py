"""`GET /v1/users/{user_id}/interests`: one user's memory, for people."""

from typing import Annotated, Any

from fastapi import FastAPI, Path, Response

from uic.jobs.serving.http.answers import encode
from uic.jobs.serving.http.api import Interests
from uic.jobs.serving.http.ids import SaidId
from uic.jobs.serving.http.service import Service
from uic.jobs.serving.rank.people import interests_of
from uic.pipelines.log.events import MAX_ID

_SUMMARY = "A user's memory as numbers, for people; 404 for a user without one."


def add_people(app: FastAPI, service: Service, refusals: dict[int | str, dict[str, Any]]) -> None:
    """Add the path to the application; a text id in it is URL-encoded, also its slashes."""
    ids = service.ids

    async def interests(said: SaidId) -> Response:
        status, body = await interests_of(service.engine, ids.number("user", said), said)
        return Response(encode(body), status, media_type="application/json")

    async def of_number(user_id: Annotated[int, Path(ge=0, le=MAX_ID)]) -> Response:
        return await interests(user_id)

    async def of_text(user_id: Annotated[str, Path(min_length=1)]) -> Response:
        return await interests(user_id)

    texts = ids.are_texts("user")
    app.get(
        # A server decodes %2F before a route is looked for, so a slash has to be part of the id.
        "/v1/users/{user_id:path}/interests" if texts else "/v1/users/{user_id}/interests",
        response_model=Interests,
        responses=refusals,
        tags=["people"],
        name="interests",
        description=_SUMMARY,
    )(of_text if texts else of_number)
