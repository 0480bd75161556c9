"""What can go wrong with the store, one type a broken promise, and the way there from redis-py."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import redis

from uic.feature_repo.store.encryption import NAME_OURS, REFUSED_OURS
from uic.models.errors import UicError

_AWAY: Final = (
    redis.ConnectionError,  # also BusyLoadingError
    redis.TimeoutError,
    redis.exceptions.ClusterDownError,  # also MasterDownError
    redis.exceptions.TryAgainError,
)


class StoreError(UicError):
    """Something about the online store."""


class StoreUnavailableError(StoreError):
    """Redis does not answer: it is down, starting, or not reachable."""

    passing = True


class StoreAccessError(StoreError):
    """Redis refuses the user or the password."""


class StorePermissionError(StoreAccessError):
    """Redis knows the user, who may not run this command."""


class StoreReadOnlyError(StoreError):
    """Redis takes no writes: it is a replica, or cannot write its append-only file."""

    passing = True


class StoreFullError(StoreError):
    """Redis has reached `maxmemory`."""

    passing = True


class StoreRefusalError(StoreError):
    """Redis refused a command in words that are not known here; so it may pass."""

    passing = True


class StoreSettingError(StoreError):
    """Redis, or the Feast repository, is set up so that memories would be lost silently."""


class DeletionRefusedError(StoreError):
    """A definition is gone whose values would be deleted, and no setting allows it."""


class ForeignValueError(StoreError):
    """A value under one of our keys is not a value of ours, or of a newer version."""


class StoreClaimError(StoreError):
    """The store is another workspace's."""


class EmptyStoreError(StoreError):
    """The store has no such generation: it was never loaded, or it was wiped."""


class GenerationStateError(StoreError):
    """A generation is not in a state that allows what was asked."""


class GenerationsBusyError(GenerationStateError):
    """Another command changed the generations at the same moment."""

    passing = True


class StoreFellBehindError(StoreError):
    """The store's marker is behind what was already folded: it was restored, or failed over."""

    replanned = True


class PartitionMovedError(StoreError):
    """Two partitions of one epoch hold events of the same user."""

    replanned = True


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
    # redis-py takes the first word of an answer away where it has a type for it, so a type is asked
    # first; inside a script's or a pipeline's error the word is still in the text.
    if isinstance(error, _AWAY) or _says(text, "LOADING", "CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN"):
        return StoreUnavailableError(
            f"{address}: Redis does not answer ({text}); start it, `uic store start` for the "
            "embedded one, or set UIC_STORE__ADDRESS"
        )
    if isinstance(error, redis.exceptions.ReadOnlyError) or _says(
        text, "READONLY", "MISCONF", "NOREPLICAS"
    ):
        return StoreReadOnlyError(
            f"{address}: Redis takes no writes ({text}); point UIC_STORE__ADDRESS at the primary, "
            "or free its disk"
        )
    if isinstance(error, redis.exceptions.OutOfMemoryError) or _says(text, "OOM"):
        return StoreFullError(
            f"{address}: Redis is full ({text}); raise maxmemory, or drop a retired generation "
            "with `uic memories drop`"
        )
    if _says(text, "WRONGTYPE"):
        return ForeignValueError(
            f"{address}: another program's value is under one of our keys ({text}); "
            "give this project a Redis database of its own"
        )
    return StoreRefusalError(f"{address}: Redis refused a command: {text}")


def _says(text: str, *words: str) -> bool:
    """Whether one of Redis' own first words of a refusal is in `text`."""
    return any(re.search(rf"\b{word}\b", text) for word in words)


def _refused_entry(error: redis.RedisError, text: str, address: str) -> StoreAccessError | None:
    """The error if Redis does not let this user, password, certificate or command in."""
    if (
        isinstance(error, redis.exceptions.NoPermissionError)
        or _says(text, "NOPERM")
        or "unknown command" in text
    ):
        return StorePermissionError(
            f"{address}: Redis lets this user not run a command ({text}); give the ACL user of "
            "UIC_STORE__USERNAME +@read +@write +@scripting +@transaction +@connection +time"
        )
    if isinstance(error, redis.AuthenticationError) or _says(text, "NOAUTH", "WRONGPASS"):
        return StoreAccessError(
            f"{address}: Redis refused the user or the password ({text}); set "
            "UIC_STORE__PASSWORD, and UIC_STORE__USERNAME for a user that is not the default one"
        )
    if isinstance(error, redis.ConnectionError) and "_ALERT_" in text:
        return StoreAccessError(f"{address}: {REFUSED_OURS} ({text}); {NAME_OURS}")
    if isinstance(error, redis.ConnectionError) and "CERTIFICATE" in text.upper():
        return StoreAccessError(
            f"{address}: the encryption was refused ({text}); {_certificate_advice(text)}"
        )
    return None


def _certificate_advice(text: str) -> str:
    """What to do about a certificate that OpenSSL does not trust."""
    if "mismatch" in text:
        return (
            "the certificate is of another host: set store.address to a name that it has, or "
            "store.tls_check_hostname: false"
        )
    if "expired" in text:
        return "let the owner of Redis' certificate renew it"
    return "set store.tls_ca_file to the authority of Redis' certificate"
