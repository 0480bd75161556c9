"""What a stream has to know of its topic while it runs.

* Whether it is the planned one, at every look: its id, how many partitions it has (one that grows
  sends users to partitions that this job does not read), and that it has the broker's times.
* About once a minute, how far a partition is folded for sure. On a transactional topic the offset
  after the last event may be a commit; when retention has eaten it, there is no telling any more
  that it was no event. So the next position is noted while it can be read.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from uic.jobs.stream.fold.plan import JobPlan
from uic.jobs.stream.fold.source import guard_of
from uic.jobs.stream.topics.brokers import brokers_of
from uic.jobs.stream.topics.kafka_positions import events_ahead
from uic.jobs.stream.topics.kafka_topic import end_offsets
from uic.jobs.stream.topics.topic_guard import TopicChangedError
from uic.models.errors import UicError
from uic.models.published import write_json_atomically
from uic.pipelines.log.epochs import Epoch

NOTE_SECONDS: Final = 60.0
_NAME: Final = "reached.json"


class TopicWatch:
    """Looks after the topic of one attempt.

    Args:
        plan: of the attempt.
        folder: of the generation, where positions are noted.
    """

    def __init__(self, plan: JobPlan, folder: Path) -> None:
        self._plan, self._folder = plan, folder
        self._noted = time.monotonic()
        self._guard = guard_of(plan)

    def look(self, markers: Mapping[int, int], *, now: bool = False) -> str:
        """Why the attempt must end, empty if it is well.

        Args:
            markers: the store's, of the attempt's epoch.
            now: note how far they are without waiting for the minute.
        """
        plan = self._plan
        if self._guard is None:
            return ""
        try:
            self._guard.confirm()
            if plan.stream.offset_gaps and (now or time.monotonic() - self._noted > NOTE_SECONDS):
                self._noted = time.monotonic()
                note_reached(self._folder, plan.epoch, markers, _ahead(plan, markers))
        except TopicChangedError as error:
            return str(error)
        except (UicError, OSError):
            pass  # the job itself notices a broker that is away, or a full disk
        return ""


def _ahead(plan: JobPlan, markers: Mapping[int, int]) -> dict[int, int]:
    """By partition, the offset of the next event to fold."""
    brokers, topic = brokers_of(plan.stream), plan.stream.topic
    after = {
        partition: markers.get(partition, start - 1) + 1 for partition, start in plan.starts.items()
    }
    ends = end_offsets(brokers, topic, len(plan.starts))
    return events_ahead(brokers, topic, after, ends, gaps=plan.stream.offset_gaps)


def note_reached(
    folder: Path, epoch: int, markers: Mapping[int, int], ahead: Mapping[int, int]
) -> None:
    """Note that nothing lies between each marker and the next event."""
    places = {
        str(partition): [markers[partition], ahead[partition]]
        for partition in sorted(ahead)
        if partition in markers
    }
    write_json_atomically(folder / _NAME, {"epoch": epoch, "partitions": places})


def reached(folder: Path, epoch: Epoch, markers: Mapping[int, int]) -> dict[int, int]:
    """By partition, the position noted for the marker that the store has now."""
    path = folder / _NAME
    if not path.is_file():
        return {}
    noted: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if noted["epoch"] != epoch.number:
        return {}
    return {
        int(partition): position
        for partition, (marker, position) in noted["partitions"].items()
        if markers.get(int(partition)) == marker
    }
