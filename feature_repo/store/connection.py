"""One way to connect to Redis, for `uic`, the stream job and Feast alike."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from uic.feature_repo.store.errors import StoreSettingError, typed_errors
from uic.feature_repo.store.server import recorded_address
from uic.feature_repo.store.settings import StoreSettings

STORE_FOLDER = "store"


@dataclass(frozen=True)
class Address:
    """Where Redis is and how to get in; the password is kept out of `str` and `repr`.

    Args:
        host: name or number.
        port: TCP port.
        password: None for none.
        tls: whether the connection is encrypted.
        db: number of the database.
        timeout_seconds: to connect, and per reply.
    """

    host: str
    port: int
    password: str | None = None
    tls: bool = False
    db: int = 0
    timeout_seconds: float = 10.0

    def __str__(self) -> str:
        """`host:port`."""
        return f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        """Without the password."""
        return f"Address({self})"

    def client_arguments(self) -> dict[str, Any]:
        """Keyword arguments of `redis.Redis` and `redis.asyncio.Redis`."""
        return {
            "host": self.host,
            "port": self.port,
            "password": self.password,
            "ssl": self.tls,
            "db": self.db,
            "socket_timeout": self.timeout_seconds,
            "socket_connect_timeout": self.timeout_seconds,
            "socket_keepalive": True,
        }


def resolve_address(settings: StoreSettings, workspace: Path) -> Address:
    """The address in the settings, else that of the workspace's embedded server.

    Raises:
        StoreUnavailableError: none is set and none was ever started here.
    """
    text = settings.address or recorded_address(workspace / STORE_FOLDER)
    host, _, port = text.rpartition(":")
    return Address(
        host=host,
        port=int(port),
        password=settings.password.get_secret_value() if settings.password else None,
        tls=settings.tls,
        db=settings.db,
        timeout_seconds=settings.timeout_seconds,
    )


def connect(address: Address) -> redis.Redis:
    """A client whose connections are made on first use; replies are bytes."""
    return redis.Redis(**address.client_arguments())


@contextmanager
def checked_client(settings: StoreSettings, workspace: Path) -> Iterator[tuple[Any, Address]]:
    """A client of a workspace's store and where it is, closed at the end.

    Raises:
        StoreUnavailableError: no address, or Redis does not answer.
        StoreAccessError: it refuses the password.
        StoreSettingError: it would lose memories when it is full.
    """
    address = resolve_address(settings, workspace)
    client = connect(address)
    try:
        refuse_eviction(client, str(address))
        yield client, address
    finally:
        client.close()


def refuse_eviction(client: redis.Redis, address: str) -> None:
    """Refuse a Redis that would throw memories away when it is full.

    Raises:
        StoreSettingError: `maxmemory` is set together with an evicting policy.
        StoreError: Redis does not answer.
    """
    with typed_errors(address):
        memory: Any = client.info("memory")
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        msg = (
            f"{address}: maxmemory-policy is {policy}: a full Redis would lose memories silently; "
            "set maxmemory-policy noeviction"
        )
        raise StoreSettingError(msg)
