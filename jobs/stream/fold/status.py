"""What workers publish about themselves in Redis, and what is made of it for people."""

import json
from dataclasses import dataclass, field
from typing import Any, Final

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


def clear_workers(client: Any, project: str, generation: int) -> None:
    """Forget the workers of earlier attempts."""
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


def read_status(client: Any, project: str, generation: int) -> StreamStatus:
    """Sum what the workers of the present attempt have published."""
    totals: dict[str, int] = {}
    positions: dict[int, int] = {}
    published = [json.loads(text) for text in client.hvals(status_key(project, generation))]
    for document in published:
        for name, count in document["totals"].items():
            totals[name] = totals.get(name, 0) + count
        for partition, offset in document["positions"].items():
            positions[int(partition)] = max(offset, positions.get(int(partition), -1))
    newest = max((document["at"] for document in published), default=0.0)
    alive = sum(document["at"] > newest - GONE_SECONDS for document in published)
    return StreamStatus(alive, newest, totals, positions)
