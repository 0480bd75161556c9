"""The store of a workspace, opened: memories and generations on one checked connection."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from uic.feature_repo.store.claim import StoreClaim
from uic.feature_repo.store.connection import Address, checked_client
from uic.feature_repo.store.generations import Generations
from uic.feature_repo.store.layout import ViewKeys
from uic.feature_repo.store.live import LivePointer
from uic.feature_repo.store.packed import PackedStore
from uic.feature_repo.store.settings import StoreSettings


@dataclass(frozen=True)
class OpenedStore:
    """What a command, a stream job or a service needs of the store.

    Args:
        address: where it is.
        client: one connection pool for all.
        memories: bulk reads and writes.
        generations: their state.
        live: the live pointer, cached as the settings say.
        claim: of the workspace; `hold` it before the first write.
    """

    address: Address
    client: redis.Redis
    memories: PackedStore
    generations: Generations
    live: LivePointer
    claim: StoreClaim


@contextmanager
def open_memories(settings: StoreSettings, workspace: Path) -> Iterator[OpenedStore]:
    """The memories of a workspace's store, closed at the end.

    Raises:
        StoreError: as `checked_client`.
    """
    with checked_client(settings, workspace) as (client, address):
        keys = ViewKeys.of_memories(settings.project)
        yield OpenedStore(
            address=address,
            client=client,
            memories=PackedStore(
                client,
                keys,
                address=str(address),
                keys_per_script=settings.keys_per_script,
                keys_per_read=settings.keys_per_read,
            ),
            generations=Generations(client, keys, str(address)),
            live=LivePointer(client, keys, str(address), settings.pointer_refresh_seconds),
            claim=StoreClaim(client, settings, workspace, str(address)),
        )


@contextmanager
def open_for_writing(settings: StoreSettings, workspace: Path) -> Iterator[OpenedStore]:
    """As `open_memories`, for what writes: the workspace has the claim on the store.

    Raises:
        StoreClaimError: the store is another workspace's.
        StoreError: as `checked_client`.
    """
    with open_memories(settings, workspace) as store:
        store.claim.hold()
        yield store
