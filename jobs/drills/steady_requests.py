"""A client that asks the ranking service all the time and counts every answer."""

import http.client
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

# Longer than a busy machine needs: what is slow has not failed.
_TIMEOUT_SECONDS: Final = 120.0


@dataclass
class Answers:
    """What came back.

    Attributes:
        asked: requests that were sent.
        failed: no answer, or another status than 200; and why.
        degraded: answers that had a reason, by reason.
        generations: answers by the generation whose memory they used.
    """

    asked: int = 0
    failed: list[str] = field(default_factory=list)
    degraded: Counter[str] = field(default_factory=Counter)
    generations: Counter[int] = field(default_factory=Counter)


class SteadyRequests:
    """Sends one request after the other in a thread of its own, while a `with` block runs.

    Args:
        url: `http://host:port` of the service.
        users: asked for in turn; all should have a memory.
        items: candidates of every request.
        requests_per_second: at most.
    """

    def __init__(
        self,
        url: str,
        users: NDArray[np.int64],
        items: NDArray[np.int64],
        requests_per_second: float = 20.0,
    ) -> None:
        parts = urlsplit(url)
        self._address = (str(parts.hostname), int(parts.port or 80))
        candidates = items.tolist()
        self._bodies = [
            json.dumps({"user_id": user, "item_ids": candidates}) for user in users.tolist()
        ]
        self._pause = 1 / requests_per_second
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="steady-requests")
        self.answers = Answers()

    def __enter__(self) -> Self:
        """Begin to ask."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for the last answer."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        connection = http.client.HTTPConnection(*self._address, timeout=_TIMEOUT_SECONDS)
        headers = {"Content-Type": "application/json"}
        while not self._over.wait(self._pause):
            body = self._bodies[self.answers.asked % len(self._bodies)]
            self.answers.asked += 1
            try:
                connection.request("POST", "/v1/rank", body, headers)
                response = connection.getresponse()
                text = response.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()  # the next request opens it again
                self.answers.failed.append(f"{type(error).__name__}: {error}")
                continue
            if response.status != http.HTTPStatus.OK:
                self.answers.failed.append(f"status {response.status}: {text[:100]!r}")
                continue
            answer = json.loads(text)
            self.answers.degraded.update(answer["reasons"])
            self.answers.generations[int(answer["generation"] or 0)] += 1
        connection.close()


def wait_for_generation(requests: SteadyRequests, generation: int, seconds: float) -> bool:
    """Whether an answer with a memory of `generation` came in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if requests.answers.generations[generation]:
            return True
        time.sleep(0.05)
    return False
