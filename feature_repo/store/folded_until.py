"""Until when everything that the log received is folded into a generation.

A marker has the log time of the last event of its partition; where no more events come, that says
too little. So the stream notes, of each partition of its epoch, when it last had nothing left to
fold, and the later of both counts. The partition that is furthest behind decides.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

import redis

from uic.feature_repo.store.errors import typed_errors
from uic.feature_repo.store.layout import ViewKeys
from uic.feature_repo.store.markers import NO_TIME, Marker, markers_of

_FIELD: Final = "caught_up"


class FoldedUntil:
    """Notes and reads it, in the hash of a generation.

    Args:
        client: Redis; replies must be bytes.
        keys: of the view.
        address: for messages.
    """

    def __init__(self, client: redis.Redis, keys: ViewKeys, address: str) -> None:
        self._client: Any = client  # redis-py types its sync and async replies as one
        self._keys = keys
        self._address = address

    def note(self, generation: int, epoch: int, caught_up_ms: Mapping[int, int]) -> None:
        """Note when each partition of an epoch last had nothing left; 0 for never.

        Raises:
            StoreError: Redis does not take it.
        """
        noted = {f"{epoch}:{partition}": time for partition, time in caught_up_ms.items()}
        with typed_errors(self._address):
            self._client.hset(self._keys.generation(generation), _FIELD, json.dumps(noted))

    def read(self, generation: int) -> int | None:
        """Milliseconds since 1970 UTC; None if markers have no times.

        Without a note of a stream it is the newest event of any partition, since of the others
        nothing is known.

        Raises:
            StoreError: Redis does not answer.
        """
        with typed_errors(self._address):
            pipe = self._client.pipeline(transaction=False)
            pipe.hgetall(self._keys.markers(generation))
            pipe.hget(self._keys.generation(generation), _FIELD)
            fields, text = pipe.execute()
        marks = markers_of(fields)
        noted: dict[str, int] = json.loads(text or "{}")
        if not noted:
            times = [mark.log_time_ms for own in marks.values() for mark in own.values()]
            newest = max(times, default=NO_TIME)
            return None if newest == NO_TIME else newest
        until = []
        for name, caught_up_ms in noted.items():
            epoch, partition = (int(part) for part in name.split(":"))
            mark = marks.get(epoch, {}).get(partition, Marker(0))
            until.append(max(mark.log_time_ms, caught_up_ms))
        return min(until)
