"""Generations: one line of descent of all memories, from `loading` to the drop.

    loading ──▶ ready ──▶ live ──▶ retired ──▶ (dropping)
                  ▲         ▲         │
                  └─────────┴─────────┘ switching back

The state is in Redis, beside the memories that it speaks of, so that a wiped store cannot be taken
for one in which every user is new. The live pointer names the generation that readers read; a
switch is announced `switch_at`, a moment ahead by Redis' clock, so that all readers turn together.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import redis
from numpy.typing import NDArray

from uic.feature_repo.store.errors import (
    EmptyStoreError,
    GenerationsBusyError,
    GenerationStateError,
    typed_errors,
)
from uic.feature_repo.store.generation import (
    Generation,
    Positions,
    State,
    epoch_fields,
    from_fields,
    marker_fields,
    to_fields,
)
from uic.feature_repo.store.layout import NO_GENERATION, ViewKeys, big_endian
from uic.feature_repo.store.live import EMPTY, LivePointer, milliseconds, resolved
from uic.feature_repo.store.markers import markers_of

__all__ = ["Generation", "Generations", "Positions", "State"]

_SCAN_KEYS: Final = 1000
_EXISTS_KEYS: Final = 2000


class Generations:
    """The generations of one view.

    Args:
        client: Redis; replies must be bytes.
        keys: of the view.
        address: for messages.
    """

    def __init__(self, client: redis.Redis, keys: ViewKeys, address: str = "redis") -> None:
        self._client: Any = client  # redis-py types its sync and async replies as one
        self.keys = keys
        self.address = address

    def register(self, generation: Generation) -> Generation:
        """Make a generation known as `loading`, with markers at its snapshot's positions.

        Registering it again while it loads replaces what it expects; later it changes nothing.

        Raises:
            GenerationStateError: the number is taken by memories of another bundle, or is being
                dropped.
        """
        number = generation.number
        with self._watched(self.keys.generation(number)) as pipe:
            known = pipe.hgetall(self.keys.generation(number))
            if known:
                registered = from_fields(number, known)
                if registered.bundle != generation.bundle or registered.state is State.DROPPING:
                    msg = (
                        f"generation {number} in the store is {registered.state} with bundle "
                        f"{registered.bundle_name} ({registered.bundle.hex()}), the snapshot is of "
                        f"{generation.bundle_name} ({generation.bundle.hex()}); drop it, or "
                        "build under another number"
                    )
                    raise GenerationStateError(msg)
                if registered.state is not State.LOADING:
                    pipe.unwatch()
                    return registered
            pipe.multi()
            pipe.sadd(self.keys.generations, number)
            pipe.hset(self.keys.generation(number), mapping=to_fields(generation))
            pipe.hsetnx(self.keys.generation(number), "rows", 0)
            pipe.delete(self.keys.markers(number))
            marks = marker_fields(generation)
            if marks:
                pipe.hset(self.keys.markers(number), mapping=marks)
            pipe.execute()
        return self.get(number)

    def describe(self, generation: Generation) -> Generation:
        """Note which snapshot a generation holds now: its name, users, positions and rules."""
        fields = to_fields(generation)
        fields.pop("state")
        with typed_errors(self.address):
            self._client.hset(self.keys.generation(generation.number), mapping=fields)
        return self.get(generation.number)

    def note_epochs(self, number: int, names: Mapping[int, str]) -> None:
        """Note what the epochs of a generation's markers are called in the log."""
        with typed_errors(self.address):
            self._client.hset(self.keys.generation(number), mapping=dict(epoch_fields(names)))

    def get(self, number: int) -> Generation:
        """One generation.

        Raises:
            EmptyStoreError: the store has none at all.
            GenerationStateError: it has others, but not this one.
        """
        with typed_errors(self.address):
            known = self._client.hgetall(self.keys.generation(number))
        if known:
            return from_fields(number, known)
        others = ", ".join(str(other.number) for other in self.all())
        if not others:
            raise EmptyStoreError(EMPTY.format(address=self.address))
        msg = f"{self.address}: no generation {number}; the store has {others}"
        raise GenerationStateError(msg)

    def all(self) -> list[Generation]:
        """Every generation, by number."""
        with typed_errors(self.address):
            numbers = sorted(int(text) for text in self._client.smembers(self.keys.generations))
            known = [self._client.hgetall(self.keys.generation(number)) for number in numbers]
        return [from_fields(number, fields) for number, fields in zip(numbers, known, strict=True)]

    def markers(self, number: int) -> dict[int, dict[int, int]]:
        """Offset of the last folded event: epoch -> partition -> offset."""
        with typed_errors(self.address):
            fields = self._client.hgetall(self.keys.markers(number))
        return {
            epoch: {partition: marker.offset for partition, marker in of_epoch.items()}
            for epoch, of_epoch in markers_of(fields).items()
        }

    def complete(
        self, number: int, user_ids: NDArray[np.int64], snapshot: str | None = None
    ) -> Generation:
        """Declare a loading generation ready, once every user of its snapshot is in the store.

        Args:
            number: of the generation.
            user_ids: (rows,), int64: users of the snapshot; forgotten ones may be missing.
            snapshot: that they are of; None takes the registered one's word.

        Raises:
            GenerationStateError: users are missing, it is being dropped, or it became another
                load's, whose markers would speak of memories that are not there.
        """
        generation = self.get(number)
        if generation.state is not State.LOADING:
            return generation
        registered = generation.snapshot
        if snapshot not in (None, registered):
            msg = (
                f"generation {number}: another load has begun meanwhile, of {registered}; this one "
                f"was of {snapshot}; load one of them again"
            )
            raise GenerationStateError(msg)
        if len(user_ids) != generation.rows_expected:
            msg = (
                f"generation {number} expects {generation.rows_expected} users, the snapshot has "
                f"{len(user_ids)}; load the snapshot {generation.snapshot} again"
            )
            raise GenerationStateError(msg)
        there = self._count_present(number, user_ids)
        forgotten = int(np.isin(user_ids, self.forgotten()).sum())
        if there + forgotten != len(user_ids):
            msg = (
                f"generation {number} holds {there} of the {len(user_ids)} users of its snapshot; "
                f"load it again: uic memories load --generation {number}"
            )
            raise GenerationStateError(msg)
        with self._watched(self.keys.generation(number)) as pipe:
            now = pipe.hmget(self.keys.generation(number), "state", "snapshot")
            pipe.multi()
            if now == [State.LOADING.encode(), registered.encode()]:
                pipe.hset(self.keys.generation(number), "state", State.READY)
            pipe.execute()
        return self.get(number)

    def forgotten(self) -> NDArray[np.int64]:
        """Ids of the users that were deleted on request, in no order."""
        with typed_errors(self.address):
            packed = b"".join(self._client.smembers(self.keys.forgotten))
        return np.frombuffer(packed, dtype=">i8").astype(np.int64)

    def holding(self, user_id: int) -> list[int]:
        """Numbers of the generations that hold a user, ascending."""
        name = big_endian([user_id])
        with typed_errors(self.address):
            numbers = sorted(int(text) for text in self._client.smembers(self.keys.generations))
            return [one for one in numbers if self._client.exists(self.keys.prefix(one) + name)]

    def forget(self, user_id: int) -> list[int]:
        """Delete a user in every generation, their sequence and their features.

        Returns the generations that held them.

        A store that is full takes deletions, but neither a tombstone nor a transaction: so what is
        there goes first, one by one. Then the tombstone is set, and what was written in between
        goes with it. It outlives every drop.

        Raises:
            StoreFullError: the user is deleted, but could come back: there is no room for the
                tombstone.
        """
        name = big_endian([user_id])
        project = self.keys.project
        beside = [
            keys.prefix(NO_GENERATION) + name
            for keys in (ViewKeys.of_sequences(project), ViewKeys.of_user_features(project))
        ]
        held = self.holding(user_id)
        with typed_errors(self.address):
            for key in (*beside, *(self.keys.prefix(number) + name for number in held)):
                self._client.delete(key)
        with self._watched(self.keys.generations) as pipe:
            numbers = sorted(int(text) for text in pipe.smembers(self.keys.generations))
            pipe.multi()
            for number in numbers:
                pipe.delete(self.keys.prefix(number) + name)
            pipe.delete(*beside)
            pipe.sadd(self.keys.forgotten, name)
            deleted = pipe.execute()[: len(numbers)]
        held += [number for number, count in zip(numbers, deleted, strict=True) if count]
        held = sorted(set(held))
        with typed_errors(self.address):
            for number in held:
                self._client.hincrby(self.keys.generation(number), "rows", -1)
        return held

    def switch(self, number: int, delay_seconds: float) -> float:
        """Make a ready (or retired) generation the live one; seconds until readers turn.

        Raises:
            GenerationStateError: it is not ready.
            EmptyStoreError: the store is empty.
        """
        self.get(number)
        keys = self.keys
        with self._watched(keys.live, keys.generation(number)) as pipe:
            generation = from_fields(number, pipe.hgetall(keys.generation(number)))
            now_ms = milliseconds(pipe.time())
            fields = pipe.hgetall(keys.live)
            current = resolved(fields, now_ms) if fields else None
            if fields and int(fields[b"number"]) == number:
                pipe.unwatch()
                return max(0.0, (int(fields[b"switch_at_ms"]) - now_ms) / 1000)
            if generation.state not in (State.READY, State.RETIRED):
                msg = (
                    f"generation {number} is {generation.state}, a switch needs ready or retired; "
                    f"it holds {generation.rows} of {generation.rows_expected} users"
                )
                raise GenerationStateError(msg)
            delay_ms = 0 if current is None else round(delay_seconds * 1000)
            pipe.multi()
            pipe.hset(
                keys.live,
                mapping={
                    "number": number,
                    "previous": number if current is None else current,
                    "switch_at_ms": now_ms + delay_ms,
                },
            )
            for other in {current, int(fields[b"number"]) if fields else None} - {None, number}:
                pipe.hset(keys.generation(int(str(other))), "state", State.RETIRED)
            pipe.hset(keys.generation(number), "state", State.LIVE)
            pipe.execute()
        return delay_ms / 1000

    def live(self) -> int:
        """The generation that readers read now, asked of Redis.

        Raises:
            EmptyStoreError: none was ever switched to.
        """
        return LivePointer(self._client, self.keys, self.address, refresh_seconds=0).resolve()

    def drop(self, number: int, keys_per_second: int) -> Iterator[int]:
        """Delete a generation that is not live, throttled; yields keys deleted so far.

        May be stopped at any time; dropping it again goes on. Tombstones stay.

        Raises:
            GenerationStateError: readers read it, or may until a switch under way is over.
        """
        keys = self.keys
        generation = self.get(number)
        with self._watched(keys.live, keys.generation(number)) as pipe:
            fields = pipe.hgetall(keys.live)
            now_ms = milliseconds(pipe.time())
            if fields and number in (int(fields[b"number"]), resolved(fields, now_ms)):
                msg = f"generation {number} is {generation.state} and read; switch to another first"
                raise GenerationStateError(msg)
            pipe.multi()
            pipe.hset(keys.generation(number), "state", State.DROPPING)
            pipe.execute()
        yield from self._delete_entities(number, keys_per_second)
        with typed_errors(self.address):
            pipe = self._client.pipeline(transaction=True)
            pipe.delete(keys.markers(number), keys.generation(number))
            pipe.srem(keys.generations, number)
            pipe.execute()

    def _delete_entities(self, number: int, keys_per_second: int) -> Iterator[int]:
        cursor, deleted, started = 0, 0, time.monotonic()
        pattern = self.keys.prefix(number) + b"*"
        while True:
            with typed_errors(self.address):
                cursor, keys = self._client.scan(cursor, match=pattern, count=_SCAN_KEYS)
                if keys:
                    deleted += self._client.unlink(*keys)
            yield deleted
            if cursor == 0:
                return
            ahead = deleted / keys_per_second - (time.monotonic() - started)
            if ahead > 0:
                time.sleep(ahead)

    def _count_present(self, number: int, user_ids: NDArray[np.int64]) -> int:
        keys = self.keys.entities(number, user_ids)
        with typed_errors(self.address):
            return sum(
                self._client.exists(*keys[at : at + _EXISTS_KEYS])
                for at in range(0, len(keys), _EXISTS_KEYS)
            )

    @contextmanager
    def _watched(self, *names: str) -> Iterator[Any]:
        """A pipeline that watches `names`; another writer in between is an error, not a mix."""
        with typed_errors(self.address), self._client.pipeline(transaction=True) as pipe:
            pipe.watch(*names)
            try:
                yield pipe
            except redis.WatchError as error:
                msg = (
                    f"{self.address}: another command changed the generations meanwhile; try again"
                )
                raise GenerationsBusyError(msg) from error
