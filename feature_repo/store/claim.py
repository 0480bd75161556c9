"""Whose store it is: the claim of one workspace on the memories of one project.

A marker is an epoch's number and an offset, and only the workspace whose log has counted the epochs
knows what they mean. A second workspace on the same store counts from one again, and its stream
would skip what it takes for folded. So the store carries the id of the workspace that writes into
it (`uic:{project}:workspace`), each command that writes compares it first, and a running stream
looks at it every two seconds. Reading needs no claim.

A store without a claim is claimed by its first writer. The embedded store lies in the workspace's
own folder, and is always that workspace's. Any other one changes hands by `uic store adopt` alone.
"""

import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from uic.feature_repo.store.errors import StoreClaimError, StoreFullError, typed_errors
from uic.feature_repo.store.identity import Identity, identity_of, known_identity
from uic.feature_repo.store.layout import ViewKeys, claim_key
from uic.feature_repo.store.settings import StoreSettings

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Claim:
    """The workspace that writes into a store: its id, and for people its machine and folder."""

    id: str
    place: str

    def __str__(self) -> str:
        """As messages name it."""
        return f"workspace {self.id[:8]} at {self.place}"


class StoreClaim:
    """The claim of a workspace on a store.

    Args:
        client: Redis; replies must be bytes.
        settings: of the store: the project, and whether it is the embedded one.
        workspace: that wants to write.
        address: for messages.
    """

    def __init__(
        self, client: redis.Redis, settings: StoreSettings, workspace: Path, address: str
    ) -> None:
        self._client: Any = client  # redis-py types its sync and async replies as one
        self._keys = ViewKeys.of_memories(settings.project)
        self._key = claim_key(settings.project)
        self._embedded = settings.address is None
        self._workspace = workspace
        self._address = address

    def read(self) -> Claim | None:
        """The claim in the store; None for a store without one.

        Raises:
            StoreError: the store does not answer.
        """
        with typed_errors(self._address):
            fields = self._client.hgetall(self._key)
        if b"id" not in fields:
            return None
        return Claim(fields[b"id"].decode(), fields.get(b"place", b"a place unknown").decode())

    def other(self) -> Claim | None:
        """The claim of another workspace, if that is what the store has; writes nothing.

        Raises:
            StoreError: the store does not answer.
        """
        found = None if self._embedded else self.read()
        if found is None:
            return None
        mine = known_identity(self._workspace)
        return None if mine is not None and mine.id == found.id else found

    def refuse_other(self) -> None:
        """Refuse a store that another workspace has claimed; writes nothing.

        Raises:
            StoreClaimError: it has; says which one, and what to do.
            StoreError: the store does not answer.
        """
        other = self.other()
        if other is not None:
            msg = (
                f"{self._address}: the store's project {self._keys.project} is of {other}, this is "
                f"another workspace ({self._workspace.resolve()}): what it writes would not fit "
                "that log; give it a store or a store.project of its own, or take this one over: "
                "`uic store adopt`"
            )
            raise StoreClaimError(msg)

    def hold(self) -> None:
        """Have the claim, before anything is written; the first writer gets it.

        Raises:
            StoreClaimError: the store is another workspace's.
            LockError: the workspace cannot be written.
            StoreError: the store does not answer.
        """
        self.refuse_other()
        mine = identity_of(self._workspace)
        found = self.read()
        if found == Claim(mine.id, mine.place):
            return
        # Where a full store takes no claim, it takes no memories either, but users are deleted.
        with suppress(StoreFullError), typed_errors(self._address):
            if found is None:
                self._first(mine)
            else:  # a moved workspace, or the embedded store of a copy
                self._client.hset(self._key, mapping={"id": mine.id, "place": mine.place})
        self.refuse_other()  # another first writer may have been faster

    def take(self) -> None:
        """Have the claim, also where another workspace has it.

        Raises:
            StoreError: the store does not answer, or does not take the write.
        """
        mine = identity_of(self._workspace)
        with typed_errors(self._address):
            self._client.hset(self._key, mapping={"id": mine.id, "place": mine.place})

    def _first(self, mine: Identity) -> None:
        if not self._client.hsetnx(self._key, "id", mine.id):
            return
        self._client.hset(self._key, "place", mine.place)
        if self._client.exists(self._keys.generations):
            LOG.warning(
                "%s: the store said of no workspace that it is its own; it is of this one now (%s)",
                self._address,
                mine.place,
            )
