"""Asks the running ranking service, over a few connections that stay open."""

import http.client
import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from uic.jobs.replay.day import DayImpressions
from uic.jobs.replay.hold_back import ReplayError
from uic.pipelines.log.text_ids import TextIds

_BATCH_USERS: Final = 64
_TIMEOUT_SECONDS: Final = 30.0
CONNECTIONS: Final = 2


@dataclass(frozen=True)
class Ranked:
    """Answers, one row an impression.

    Attributes:
        scores: (n,), probability of a click with the memory of that moment.
        without_memory: (n,), the same without any memory; NaN where it was not asked for.
        seconds: (n,), from request to answer, as the client sees it; NaN in a batch.
        reasons: of degraded answers, with their numbers.
    """

    scores: NDArray[np.float64]
    without_memory: NDArray[np.float64]
    seconds: NDArray[np.float64]
    reasons: dict[str, int]


class RankingClient:
    """A client of one service.

    Args:
        url: `http://host:port`.
        token: bearer token; None for none.
        ids: as the service takes them; numbers by default.
    """

    def __init__(self, url: str, token: str | None = None, ids: TextIds | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or not parts.port:
            msg = f"--url {url}: expected http://host:port"
            raise ReplayError(msg)
        self.url = url
        self._ids = ids or TextIds()
        self._host, self._port = parts.hostname, parts.port
        self._headers = {"Content-Type": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._local = threading.local()
        self._opened: list[http.client.HTTPConnection] = []
        self._pool = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="replay")

    def close(self) -> None:
        """End the connections and their threads."""
        self._pool.shutdown()
        for connection in self._opened:
            connection.close()

    def status(self) -> dict[str, Any]:
        """What `/readyz` says."""
        return self._send("GET", "/readyz", None)

    def rank_each(self, shown: DayImpressions) -> Ranked:
        """One request an impression, as a page would send it; answers in the same order."""
        return _gathered(list(self._pool.map(self._rank_one, self._requests(shown))))

    def rank_all(self, shown: DayImpressions) -> Ranked:
        """The same in batches, for those who do not care how long it takes; no seconds."""
        rows = self._requests(shown)
        batches = [rows[at : at + _BATCH_USERS] for at in range(0, len(rows), _BATCH_USERS)]
        answers = [one for batch in self._pool.map(self._rank_batch, batches) for one in batch]
        return _gathered([(answer, float("nan")) for answer in answers])

    def _requests(self, shown: DayImpressions) -> list[dict[str, Any]]:
        """The body of each impression's request, as of its moment and in its context."""
        users = self._ids.said("user", shown.user_ids.tolist())
        items = self._ids.said("item", shown.item_ids.tolist())
        bodies: list[dict[str, Any]] = [
            {"user_id": user, "item_ids": [item], "moment_ms": moment_ms}
            for user, item, moment_ms in zip(users, items, shown.times_ms.tolist(), strict=True)
        ]
        if shown.context is not None:
            for body, row in zip(bodies, shown.context.to_pylist(), strict=True):
                body["context"] = {name: said for name, said in row.items() if said is not None}
        return bodies

    def _rank_one(self, body: dict[str, Any]) -> tuple[dict[str, Any], float]:
        started = time.perf_counter()
        answer = self._send("POST", "/v1/rank", body)
        return answer, time.perf_counter() - started

    def _rank_batch(self, bodies: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        requests = [{**body, "explain": True} for body in bodies]
        answers: list[dict[str, Any]] = self._send(
            "POST", "/v1/rank:batch", {"requests": requests}
        )["answers"]
        return answers

    def _send(self, method: str, path: str, body: Any) -> dict[str, Any]:
        payload = None if body is None else json.dumps(body).encode()
        try:
            connection = self._connection()
            connection.request(method, path, payload, self._headers)
            response = connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._local.connection = None
            msg = f"{self.url}: the ranking service does not answer ({error}); run `uic serve`"
            raise ReplayError(msg) from error
        if response.status != http.HTTPStatus.OK:
            msg = f"{self.url}{path}: status {response.status}: {text[:200]!r}"
            raise ReplayError(msg)
        document: dict[str, Any] = json.loads(text)
        return document

    def _connection(self) -> http.client.HTTPConnection:
        known = getattr(self._local, "connection", None)
        if known is None:
            known = http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT_SECONDS)
            self._local.connection = known
            self._opened.append(known)
        connection: http.client.HTTPConnection = known
        return connection


def _gathered(answers: Sequence[tuple[dict[str, Any], float]]) -> Ranked:
    reasons: dict[str, int] = {}
    scores, without, seconds = [], [], []
    for answer, took in answers:
        item = answer["items"][0]
        explanation = item.get("explanation") or {}
        scores.append(item["probability"])
        without.append(explanation.get("probability_without_memory", float("nan")))
        seconds.append(took)
        for reason in answer["reasons"]:
            reasons[reason] = reasons.get(reason, 0) + 1
    return Ranked(
        np.array(scores, np.float64),
        np.array(without, np.float64),
        np.array(seconds, np.float64),
        reasons,
    )
