"""One way to connect to Redis, for `uic`, the stream job and Feast alike."""

import logging
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import redis

from uic.feature_repo.store.encryption import plain_redis_wants_tls, tls_redis_wants_otherwise
from uic.feature_repo.store.errors import (
    StoreAccessError,
    StorePermissionError,
    StoreSettingError,
    StoreUnavailableError,
    typed_errors,
)
from uic.feature_repo.store.server import recorded_address
from uic.feature_repo.store.settings import UNIX_SCHEME, StoreSettings

LOG = logging.getLogger(__name__)
STORE_FOLDER = "store"


@dataclass(frozen=True)
class Address:
    """Where Redis is and how to get in; the password is kept out of `str` and `repr`.

    Args:
        host: name or number; of a unix socket, its path.
        port: TCP port; 0 for a unix socket.
        username: ACL user; None for Redis' default user.
        password: None for none.
        tls: whether the connection is encrypted.
        tls_ca_file: PEM; None for the authorities of the machine.
        tls_cert_file: PEM of our certificate, if Redis wants one.
        tls_key_file: PEM of its key.
        tls_check_hostname: whether Redis' certificate must be of `host`.
        db: number of the database.
        timeout_seconds: to connect, and per reply.
    """

    host: str
    port: int
    username: str | None = None
    password: str | None = None
    tls: bool = False
    tls_ca_file: Path | None = None
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    tls_check_hostname: bool = True
    db: int = 0
    timeout_seconds: float = 10.0

    @classmethod
    def at(cls, text: str) -> "Address":
        """The address `text`, as the setting `store.address` has it, and nothing else set."""
        if text.startswith(UNIX_SCHEME):
            return cls(text.removeprefix(UNIX_SCHEME), 0)
        host, _, port = text.rpartition(":")
        return cls(host.strip("[]"), int(port))

    def __str__(self) -> str:
        """As the setting `store.address` has it."""
        if not self.port:
            return f"{UNIX_SCHEME}{self.host}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        """Without the password."""
        return f"Address({self})"

    def client_arguments(self) -> dict[str, Any]:
        """Keyword arguments of `redis.Redis` and `redis.asyncio.Redis`."""
        where: dict[str, Any] = {"host": self.host, "port": self.port, "socket_keepalive": True}
        if not self.port:
            where = {"unix_socket_path": self.host}
        if self.tls:
            files = {
                "ssl_ca_certs": self.tls_ca_file,
                "ssl_certfile": self.tls_cert_file,
                "ssl_keyfile": self.tls_key_file,
            }
            # redis-py's own default takes any host's certificate that a known authority signed.
            where |= {"ssl": True, "ssl_check_hostname": self.tls_check_hostname}
            where |= {name: str(path) for name, path in files.items() if path}
        return where | {
            "username": self.username,
            "password": self.password,
            "db": self.db,
            "socket_timeout": self.timeout_seconds,
            "socket_connect_timeout": self.timeout_seconds,
        }


def resolve_address(settings: StoreSettings, workspace: Path) -> Address:
    """The address in the settings, else that of the workspace's embedded server.

    Raises:
        StoreUnavailableError: none is set and none was ever started here.
        StoreSettingError: a file of the encryption is not there.
    """
    return address_of(settings, settings.address or recorded_address(workspace / STORE_FOLDER))


def address_of(settings: StoreSettings, text: str) -> Address:
    """The address `text` with the user and the encryption of the settings.

    Raises:
        StoreSettingError: a file of the encryption is not there, or is none.
    """
    for name in ("tls_ca_file", "tls_cert_file", "tls_key_file"):
        path = getattr(settings, name)
        if path is not None and not path.is_file():
            fault = "is a folder" if path.is_dir() else "no such file"
            msg = f"store.{name}: {path}: {fault}; name a PEM file that this process can read"
            raise StoreSettingError(msg)
    if settings.tls_ca_file is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(settings.tls_ca_file)
        except OSError as error:  # ssl.SSLError, too
            msg = f"store.tls_ca_file: {settings.tls_ca_file}: no certificates in PEM ({error})"
            raise StoreSettingError(msg) from error
    return replace(
        Address.at(text),
        username=settings.username,
        password=settings.password.get_secret_value() if settings.password else None,
        tls=settings.tls,
        tls_ca_file=settings.tls_ca_file,
        tls_cert_file=settings.tls_cert_file,
        tls_key_file=settings.tls_key_file,
        tls_check_hostname=settings.tls_check_hostname,
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
        StoreAccessError: it refuses the password, or only one of us encrypts.
        StoreSettingError: it would lose memories when it is full.
    """
    address = resolve_address(settings, workspace)
    client = connect(address)
    try:
        refuse_eviction(client, address)
        yield client, address
    finally:
        client.close()


def server_facts(client: redis.Redis, address: str) -> dict[str, Any] | None:
    """Redis' answer to INFO; None where the user may not ask, as with many a managed Redis.

    Raises:
        StoreError: Redis does not answer.
    """
    try:
        with typed_errors(address):
            facts: Any = client.info()
    except StorePermissionError:
        return None
    return dict(facts)


def refuse_eviction(client: redis.Redis, address: Address) -> None:
    """Refuse a Redis that would throw memories away when it is full.

    Every user of a store asks this first, so it is also where a Redis that does not answer is held
    against what the settings say of encryption.

    Raises:
        StoreSettingError: `maxmemory` is set together with an evicting policy.
        StoreAccessError: Redis refuses the password, or only one of us encrypts.
        StoreError: Redis does not answer.
    """
    try:
        memory = server_facts(client, str(address))
    except StoreUnavailableError as error:
        otherwise = _other_encryption(address)
        if otherwise is None:
            raise
        msg = f"{address}: {otherwise}"
        raise StoreAccessError(msg) from error
    if memory is None:
        LOG.warning(
            "%s: this user may not run INFO, so it was not checked whether a full Redis would "
            "throw memories away; make sure that maxmemory-policy is noeviction",
            address,
        )
        return
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        msg = (
            f"{address}: maxmemory-policy is {policy}: a full Redis would lose memories silently; "
            "set maxmemory-policy noeviction"
        )
        raise StoreSettingError(msg)


def _other_encryption(address: Address) -> str | None:
    """What to do if Redis is there and encrypts otherwise than the settings say; else None."""
    if not address.port:
        return None
    if not address.tls:
        return plain_redis_wants_tls(address.host, address.port)
    return tls_redis_wants_otherwise(
        address.host, address.port, address.tls_cert_file, address.tls_key_file
    )
