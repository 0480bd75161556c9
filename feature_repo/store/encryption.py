"""Why a Redis that is there gives no answer: one side encrypts and the other does not.

Redis waits for the end of a line that a TLS client never sends, and closes a connection that does
not begin as TLS does; redis-py tells of a timeout and of a reset, as it does when Redis is away.
So, where a first connection has failed, the other way is tried.
"""

import contextlib
import socket
import ssl
from pathlib import Path
from typing import Final

REFUSED_OURS: Final = "Redis wants a certificate of ours, or refused it"
NAME_OURS: Final = "set store.tls_cert_file and tls_key_file to one that its authority signed"
_PROBE_SECONDS: Final = 2.0
# An answer of Redis is a status or an error, also to a client that has not logged in.
_ANSWERS: Final = (b"+", b"-")


def plain_redis_wants_tls(host: str, port: int) -> str | None:
    """What to do if a Redis that was asked without encryption takes TLS; None if it does not."""
    with (
        contextlib.suppress(OSError),
        socket.create_connection((host, port), _PROBE_SECONDS) as plain,
        _trusting().wrap_socket(plain),
    ):
        return (
            "Redis takes encrypted connections only; set store.tls: true, and store.tls_ca_file "
            "for an authority of your own"
        )
    return None


def tls_redis_wants_otherwise(
    host: str, port: int, cert_file: Path | None, key_file: Path | None
) -> str | None:
    """What to do if a Redis that was asked by TLS has none, or wants another certificate of ours.

    Args:
        host: name or number.
        port: TCP port.
        cert_file: PEM of our certificate; None without one.
        key_file: PEM of its key.
    """
    where = (host, port)
    with (
        contextlib.suppress(OSError),
        socket.create_connection(where, _PROBE_SECONDS) as plain,
    ):
        plain.sendall(b"PING\r\n")
        if plain.recv(1) in _ANSWERS:
            return "Redis does not encrypt there; name its port for TLS, or set store.tls: false"
    try:
        context = _trusting()
        if cert_file is not None:
            context.load_cert_chain(cert_file, key_file)
        with (
            socket.create_connection(where, _PROBE_SECONDS) as plain,
            context.wrap_socket(plain) as encrypted,
        ):
            # Since TLS 1.3 a server says what it thinks of our certificate after the handshake. It
            # is not read once a write has failed, and without a refusal nothing comes.
            encrypted.recv(1)
    except ssl.SSLError as error:
        if "ALERT" in str(error):
            return f"{REFUSED_OURS} ({error.reason}); {NAME_OURS}"
    except OSError:
        pass  # away
    return None


def _trusting() -> ssl.SSLContext:
    """To look whether there is TLS; no secret of ours is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
