"""Each path of the service on a log with text ids; what ranks is a stand-in that notes numbers."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import httpx
import numpy as np

from uic.jobs.config.serve import ServeSettings
from uic.jobs.serving.http.app import create_app
from uic.jobs.serving.http.service import Service
from uic.jobs.serving.rank.engine import RankedCandidates
from uic.jobs.serving.read.metrics import metrics_of_process
from uic.jobs.serving.read.reasons import DegradedReason
from uic.jobs.serving.score.asks import Scored
from uic.pipelines.log.text_ids import TextIds, number_of

USER = "Müller / <b> ?#%2F " + "x" * 200
ITEM = "Hängelampe / weiß"
TEXTS = TextIds(files={"user": Path("user.parquet"), "item": Path("item.parquet")})


class Noting:
    """Ranks later candidates higher, and notes the numbers that it is asked for."""

    keep = 40
    scorers = SimpleNamespace(
        current=SimpleNamespace(bundle=SimpleNamespace(model=SimpleNamespace(tasks=())))
    )

    def __init__(self) -> None:
        self.reader, self.asked = self, []

    async def fetch(self, users):
        self.asked.append(users[0])
        return SimpleNamespace(values=[None], reasons=[DegradedReason.UNKNOWN_USER])

    async def rank(self, user, items, **_):
        self.asked.append((user, items))
        logits = np.arange(len(items), dtype=np.float32)
        scored = Scored(logits, np.ones(len(items), np.bool_), "mimn/0001")
        return RankedCandidates(items, scored, None, None, (), None, None)

    async def prerank(self, user, items, _):
        self.asked.append((user, items))
        logits = np.arange(len(items), dtype=np.float32)
        return SimpleNamespace(
            item_ids=np.array(items), logits=logits, known=logits >= 0, best=np.argsort(-logits),
            bundle="prerank/0001", reasons=(),
        )  # fmt: skip


def answers(*requests):
    """Status and body of each request, (path,) or (path, body); and the numbers inside."""
    noting = Noting()
    service = Service(
        ServeSettings(), noting, None, metrics_of_process(), None, None, noting, ids=TEXTS
    )

    async def ask():
        transport = httpx.ASGITransport(create_app(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            sent = [
                await (client.post(path, json=body[0]) if body else client.get(path))
                for path, *body in requests
            ]
        return [(one.status_code, one.json()) for one in sent]

    return asyncio.run(ask()), noting.asked


def test_every_path_takes_and_gives_texts():
    body = {"user_id": USER, "item_ids": [ITEM, "007", ITEM]}
    (rank, batch, prerank, funnel), asked = answers(
        ("/v1/rank", body),
        ("/v1/rank:batch", {"requests": [body]}),
        ("/v1/prerank", body),
        ("/v1/funnel", {**body, "bids": [1.0, 2.0, 1.0]}),
    )
    for status, answer in (rank, (batch[0], batch[1]["answers"][0]), prerank, funnel):
        assert status == 200
        assert (answer["user_id"], answer["duplicates"]) == (USER, 1)
        assert [one["item_id"] for one in answer["items"]] == ["007", ITEM]
    assert [one["bid"] for one in funnel[1]["items"]] == [2.0, 1.0]
    numbers = [number_of(ITEM), number_of("007")]
    assert asked == [(number_of(USER), numbers)] * 4 + [(number_of(USER), numbers[::-1])]


def test_a_text_in_a_path_may_have_a_slash():
    paths = [f"/v1/users/{quote(user, safe='')}/interests" for user in (USER, "a/interests/b")]
    (first, second), asked = answers(*[(path,) for path in paths])
    assert asked == [number_of(USER), number_of("a/interests/b")]
    assert (first[0], second[0]) == (404, 404)
    assert second[1]["detail"] == "user_id: no memory of a/interests/b: unknown_user"
    assert USER in first[1]["detail"]


def test_numbers_are_refused_and_a_bid_is_named_by_its_item():
    body = {"user_id": USER, "item_ids": [ITEM, "007", ITEM]}
    said, asked = answers(
        ("/v1/rank", {**body, "user_id": 5}),
        ("/v1/funnel", {**body, "bids": [1.0, 2.0, 3.0]}),
    )
    assert [(status, problem["detail"]) for status, problem in said] == [
        (422, "user_id: Input should be a valid string (found 5)"),
        (422, f"bids: Value error, item {ITEM} is there twice, with bids 1 and 3"),
    ]
    assert asked == []
