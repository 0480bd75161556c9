"""What can go wrong with the store, one type a broken promise, and the way there from redis-py."""

from collections.abc import Iterator
from contextlib import contextmanager

import redis

from uic.models.errors import UicError


class StoreError(UicError):
    """Something about the online store."""


class StoreUnavailableError(StoreError):
    """Redis does not answer: it is down, starting, or not reachable."""


class StoreAccessError(StoreError):
    """Redis refuses the user or the password."""


class StorePermissionError(StoreAccessError):
    """Redis knows the user, who may not run this command."""


class StoreReadOnlyError(StoreError):
    """Redis takes no writes: it is a replica, or cannot write its append-only file."""


class StoreFullError(StoreError):
    """Redis has reached `maxmemory`."""


class StoreSettingError(StoreError):
    """Redis, or the Feast repository, is set up so that memories would be lost silently."""


class DeletionRefusedError(StoreError):
    """A definition is gone whose values would be deleted, and no setting allows it."""


class ForeignValueError(StoreError):
    """A value under one of our keys is not a value of ours, or of a newer version."""


class EmptyStoreError(StoreError):
    """The store has no such generation: it was never loaded, or it was wiped."""


class GenerationStateError(StoreError):
    """A generation is not in a state that allows what was asked."""


class StoreFellBehindError(StoreError):
    """The store's marker is behind what was already folded: it was restored, or failed over."""


class PartitionMovedError(StoreError):
    """Two partitions of one epoch hold events of the same user."""


@contextmanager
def typed_errors(address: str) -> Iterator[None]:
    """Raise a `StoreError` that names `address` in place of redis-py's exceptions."""
    try:
        yield
    except redis.RedisError as error:
        raise translated(error, address) from error


def translated(error: redis.RedisError, address: str) -> StoreError:
    """The `StoreError` for an exception of redis-py."""
    # Of a pipeline, redis-py gives the whole command first: a script and its megabyte of values.
    text = " ".join(str(error).rpartition(" of pipeline caused error: ")[2].split())
    refused = _refused_entry(error, text, address)
    if refused is not None:
        return refused
    if isinstance(error, redis.ConnectionError | redis.TimeoutError):
        return StoreUnavailableError(
            f"{address}: Redis does not answer ({text}); start it, `uic store start` for the "
            "embedded one, or set UIC_STORE__ADDRESS"
        )
    if "READONLY" in text or "MISCONF" in text:
        return StoreReadOnlyError(
            f"{address}: Redis takes no writes ({text}); point UIC_STORE__ADDRESS at the primary, "
            "or free its disk"
        )
    if "OOM" in text:
        return StoreFullError(
            f"{address}: Redis is full ({text}); raise maxmemory, or drop a retired generation "
            "with `uic memories drop`"
        )
    if "WRONGTYPE" in text:
        return ForeignValueError(
            f"{address}: another program's value is under one of our keys ({text}); "
            "give this project a Redis database of its own"
        )
    return StoreError(f"{address}: Redis refused a command: {text}")


def _refused_entry(error: redis.RedisError, text: str, address: str) -> StoreAccessError | None:
    """The error if Redis does not let this user, password, certificate or command in."""
    if isinstance(error, redis.exceptions.NoPermissionError) or "unknown command" in text:
        return StorePermissionError(
            f"{address}: Redis lets this user not run a command ({text}); give the ACL user of "
            "UIC_STORE__USERNAME +@read +@write +@scripting +@transaction +@connection +time"
        )
    if isinstance(error, redis.AuthenticationError) or any(
        word in text for word in ("NOAUTH", "WRONGPASS")
    ):
        return StoreAccessError(
            f"{address}: Redis refused the user or the password ({text}); set "
            "UIC_STORE__PASSWORD, and UIC_STORE__USERNAME for a user that is not the default one"
        )
    if isinstance(error, redis.ConnectionError) and "CERTIFICATE" in text.upper():
        return StoreAccessError(
            f"{address}: the encryption was refused ({text}); set store.tls_ca_file to the "
            "authority of Redis' certificate, and tls_cert_file and tls_key_file if it wants ours"
        )
    return None
