"""What workers publish about themselves in Redis, and what is made of it for people."""

import contextlib
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import redis

from uic.feature_repo.store.errors import typed_errors

PUBLISH_SECONDS: Final = 1.0
# A worker that has not published for this long is gone: its counts belong to the past.
GONE_SECONDS: Final = 30.0
_KEPT_SECONDS: Final = 24 * 3600


def status_key(project: str, generation: int) -> str:
    """Hash of worker -> JSON."""
    return f"uic:{project}:stream:{generation}"


def publish_worker(client: Any, project: str, generation: int, worker: str, text: str) -> None:
    """Put a worker's counts where `workers` finds them."""
    pipe = client.pipeline(transaction=False)
    pipe.hset(status_key(project, generation), worker, text)
    pipe.expire(status_key(project, generation), _KEPT_SECONDS)
    pipe.execute()


class StatusPublisher:
    """Publishes a worker's counts for `uic stream status`, about once a second.

    What comes within the second is published at its end by a timer, so that the last batches before
    a quiet hour are seen, too.

    Args:
        client: of Redis.
        project: of Feast.
        generation: that is folded.
        worker: name of this one.
    """

    def __init__(self, client: Any, project: str, generation: int, worker: str) -> None:
        self._client, self._project, self._generation = client, project, generation
        self._worker = worker
        self._lock = threading.Lock()
        self._text = ""
        self._published = 0.0
        self._timer: threading.Timer | None = None

    def report(self, totals: Mapping[str, int], positions: Mapping[int, int]) -> None:
        """Publish these counts, now or at the end of the second."""
        now = time.time()
        document = {"at": now, "totals": dict(totals), "positions": dict(positions)}
        with self._lock:
            self._text = json.dumps(document)
            wait = PUBLISH_SECONDS - (now - self._published)
            if wait > 0:
                if self._timer is None:
                    self._timer = threading.Timer(wait, self._late)
                    self._timer.daemon = True
                    self._timer.start()
                return
            self._publish()

    def close(self) -> None:
        """Publish what waits."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._publish()

    def _late(self) -> None:
        with self._lock:
            self._publish()

    def _publish(self) -> None:
        self._published, self._timer = time.time(), None
        # A status that is a second old is no reason to stop: the next batch meets the same Redis
        # with all its retries.
        with contextlib.suppress(redis.RedisError):
            publish_worker(self._client, self._project, self._generation, self._worker, self._text)


def clear_workers(client: Any, project: str, generation: int, address: str) -> None:
    """Forget the workers of earlier attempts.

    Raises:
        StoreError: Redis at `address` does not answer, or takes no writes.
    """
    with typed_errors(address):
        client.delete(status_key(project, generation))


@dataclass(frozen=True)
class StreamStatus:
    """The counts of a generation's workers, summed."""

    workers: int
    at: float
    totals: dict[str, int] = field(default_factory=dict)
    positions: dict[int, int] = field(default_factory=dict)

    def rejects(self) -> dict[str, int]:
        """Rejected events by reason."""
        return {
            name.removeprefix("rejected_"): count
            for name, count in sorted(self.totals.items())
            if name.startswith("rejected_") and count
        }

    def stage_shares(self) -> dict[str, float]:
        """Share of the workers' time by stage."""
        stages = {
            name.removesuffix("_microseconds"): count
            for name, count in self.totals.items()
            if name.endswith("_microseconds")
        }
        total = sum(stages.values())
        return {name: count / total for name, count in stages.items()} if total else {}


def read_status(client: Any, project: str, generation: int, address: str = "redis") -> StreamStatus:
    """Sum what the workers of the present attempt have published.

    Raises:
        StoreError: Redis at `address` does not answer.
    """
    totals: dict[str, int] = {}
    positions: dict[int, int] = {}
    with typed_errors(address):
        texts = client.hvals(status_key(project, generation))
    published = [json.loads(text) for text in texts]
    for document in published:
        for name, count in document["totals"].items():
            totals[name] = totals.get(name, 0) + count
        for partition, offset in document["positions"].items():
            positions[int(partition)] = max(offset, positions.get(int(partition), -1))
    newest = max((document["at"] for document in published), default=0.0)
    alive = sum(document["at"] > newest - GONE_SECONDS for document in published)
    return StreamStatus(alive, newest, totals, positions)
