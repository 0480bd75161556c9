"""The item vectors of a workspace's store: item versions, bulk reads and writes, what changed.

An item version is a generation of the view `item_image`, so it is loaded, switched to and dropped
like one of memories. A bundle's vectors are found by its hash, not by the pointer: a ranker that
is about to be swapped in reads its own version before the switch, and never another one.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import redis
from numpy.typing import ArrayLike, NDArray

from uic.feature_repo.store.claim import StoreClaim
from uic.feature_repo.store.connection import Address, checked_client
from uic.feature_repo.store.errors import EmptyStoreError, GenerationStateError, typed_errors
from uic.feature_repo.store.generation import Generation, State
from uic.feature_repo.store.generations import Generations
from uic.feature_repo.store.item_vectors import ITEM_VECTOR, ITEM_VIEW, Values
from uic.feature_repo.store.layout import ViewKeys, big_endian
from uic.feature_repo.store.packed import PackedStore
from uic.feature_repo.store.settings import StoreSettings

# States in which a version can be read, the preferred first.
READABLE_STATES: Final = (State.LIVE, State.READY, State.RETIRED)
# Changes that are kept for readers: a reader that is behind by more renews everything.
CHANGES_KEPT: Final = 10_000
_NOTHING_YET: Final = "0-0"


@dataclass(frozen=True)
class Changes:
    """What was added to a version since a reader last asked.

    Args:
        last: name of the last change, to ask from next time.
        item_ids: (n,), int64; None if the reader missed some and must renew everything.
    """

    last: str
    item_ids: NDArray[np.int64] | None


@dataclass(frozen=True)
class ItemStore:
    """Item versions on one connection.

    Args:
        address: of Redis.
        client: one connection pool for all.
        vectors: bulk reads and writes of packed item vectors.
        versions: states of the item versions.
    """

    address: Address
    client: Any
    vectors: PackedStore
    versions: Generations

    @classmethod
    def on(cls, client: redis.Redis, address: Address, settings: StoreSettings) -> "ItemStore":
        """The item versions of the settings' project, on a client in use."""
        keys = ViewKeys(settings.project, ITEM_VIEW)
        return cls(
            address=address,
            client=client,
            vectors=PackedStore(
                client,
                keys,
                address=str(address),
                layout=ITEM_VECTOR,
                keys_per_script=settings.keys_per_script,
                keys_per_read=settings.keys_per_read,
            ),
            versions=Generations(client, keys, str(address)),
        )

    def live(self) -> int | None:
        """The item version that readers read; None if none was ever switched to."""
        try:
            return self.versions.live()
        except EmptyStoreError:
            return None

    def version(self, number: int) -> Generation:
        """One item version.

        Raises:
            GenerationStateError: the store has none of that number.
        """
        versions = self.versions.all()
        for version in versions:
            if version.number == number:
                return version
        known = ", ".join(str(version.number) for version in versions) or "none"
        msg = (
            f"{self.address}: no item version {number} (the store has {known}); load one with "
            "`uic images load`"
        )
        raise GenerationStateError(msg)

    def version_of(self, bundle: bytes) -> Generation | None:
        """The version with a bundle's vectors: the live one, else the newest ready one."""
        versions = [version for version in self.versions.all() if version.bundle == bundle]
        readable = [version for version in versions if version.state in READABLE_STATES]
        return min(
            readable,
            key=lambda version: (READABLE_STATES.index(version.state), -version.number),
            default=None,
        )

    def add(self, version: int, item_ids: ArrayLike, values: Values) -> NDArray[np.bool_]:
        """Write vectors of some items and announce them to readers that cache; (n,): landed.

        Raises:
            GenerationStateError: no such version, of another bundle, or it is being dropped.
            StoreError: Redis does not take the write.
        """
        ids = np.asarray(item_ids, dtype=np.int64)
        landed = self.vectors.write(version, ids, values)
        with typed_errors(str(self.address)):
            self.client.xadd(
                self._changes_key(version),
                {"items": big_endian(ids)},
                maxlen=CHANGES_KEPT,
                approximate=True,
            )
        return landed

    def changes(self, version: int, since: str | None) -> Changes:
        """Items added after `since`; None starts with whatever is added from now on."""
        key = self._changes_key(version)
        with typed_errors(str(self.address)):
            if since is None:
                newest: Sequence[Any] = self.client.xrevrange(key, count=1)
                last = newest[0][0].decode() if newest else _NOTHING_YET
                return Changes(last, np.zeros(0, np.int64))
            first: Sequence[Any] = self.client.xrange(key, count=1)
            later: Sequence[Any] = self.client.xrange(key, min=f"({since}")
        if not later:
            return Changes(since, np.zeros(0, np.int64))
        last = later[-1][0].decode()
        if since == _NOTHING_YET:
            missed = len(later) >= CHANGES_KEPT
        else:  # the change that the reader has seen last was thrown away
            missed = _order(first[0][0].decode()) > _order(since)
        if missed:
            return Changes(last, None)
        packed = b"".join(fields[b"items"] for _, fields in later)
        return Changes(last, np.unique(np.frombuffer(packed, dtype=">i8").astype(np.int64)))

    def drop(self, version: int, keys_per_second: int) -> Iterator[int]:
        """As `Generations.drop`, and what was announced of it."""
        yield from self.versions.drop(version, keys_per_second)
        with typed_errors(str(self.address)):
            self.client.delete(self._changes_key(version))

    def _changes_key(self, version: int) -> str:
        return f"{self.versions.keys.generation(version)}:changes"


def _order(name: str) -> tuple[int, int]:
    """Names of changes in the order they were made: `milliseconds-number`."""
    milliseconds, _, number = name.partition("-")
    return int(milliseconds), int(number)


@contextmanager
def open_item_store(settings: StoreSettings, workspace: Path) -> Iterator[ItemStore]:
    """The item vectors of a workspace's store, closed at the end.

    Raises:
        StoreError: as `checked_client`.
    """
    with checked_client(settings, workspace) as (client, address):
        yield ItemStore.on(client, address, settings)


@contextmanager
def open_items_for_writing(settings: StoreSettings, workspace: Path) -> Iterator[ItemStore]:
    """As `open_item_store`, for what writes: the workspace has the claim on the store.

    Raises:
        StoreClaimError: the store is another workspace's.
        StoreError: as `checked_client`.
    """
    with checked_client(settings, workspace) as (client, address):
        StoreClaim(client, settings, workspace, str(address)).hold()
        yield ItemStore.on(client, address, settings)
