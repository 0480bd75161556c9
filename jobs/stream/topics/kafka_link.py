"""Clients of Kafka, and why one does not get in.

librdkafka tries again for ever, and answers a question only with "Broker transport failure"; the
reason is told beside, to a callback. Of a certificate it tells no more than that it was refused. So
a failed question looks at what was heard, and then at the brokers' TLS, with Python's own.
"""

import contextlib
import re
import socket
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

# Its __all__ misses a name, as in kafka_topic.
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from uic.jobs.config.security import PASSWORD_VARIABLE
from uic.jobs.stream.topics.brokers import Brokers, Setting
from uic.models.errors import UicError

NO_SETTINGS: Final[Mapping[str, Setting]] = {}
_PROBE_SECONDS: Final = 2.0
_PROBED_SERVERS: Final = 3
_SERVER: Final = re.compile(r"://(\S+:\d+)/")
_KEPT: Final = 32
_NOT_ALLOWED: Final = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
)
# A broker that goes away while it is asked for the login has not refused it.
_BROKEN_OFF: Final = ("transport failure", "timed out", "disconnect")


Client = TypeVar("Client")


class NoBrokerError(UicError):
    """No Kafka broker answers."""

    passing = True


class BrokerAccessError(UicError):
    """A broker answers, and does not let us in; or its certificate is not to be trusted."""


class Link:
    """Makes clients of the same brokers, and says why one of them got no answer.

    Args:
        brokers: where they are and how to get in.
    """

    def __init__(self, brokers: Brokers) -> None:
        self._brokers = brokers
        self._heard: deque[KafkaError] = deque(maxlen=_KEPT)
        self._client: Any = None

    def admin(self) -> AdminClient:
        """A client that asks about topics."""
        return self._made(AdminClient, NO_SETTINGS)

    def consumer(self, settings: Mapping[str, Setting]) -> Consumer:
        """A client that reads."""
        return self._made(Consumer, settings)

    def producer(self, settings: Mapping[str, Setting]) -> Producer:
        """A client that sends."""
        return self._made(Producer, settings)

    def forget(self) -> None:
        """Leave what was heard so far behind, before the next question."""
        self._listen()
        self._heard.clear()

    def error(self, reason: str, code: int | None = None) -> UicError:
        """The error of a question that failed.

        Args:
            reason: what librdkafka says of it, or that time is up.
            code: of librdkafka's error.
        """
        self._listen()
        brokers = self._brokers
        if code in _NOT_ALLOWED:
            return BrokerAccessError(
                f"{brokers}: the user may not do this ({reason}); grant {_who(brokers)} READ, "
                "DESCRIBE and DESCRIBE_CONFIGS on the topic, WRITE to send, and READ on groups "
                "uic-*"
            )
        servers = self._servers()
        refused = (
            self._refused_login() or self._refused_certificate() or _closed_door(brokers, servers)
        )
        if refused is not None:
            return BrokerAccessError(f"{brokers}: {refused}")
        hint = _hint(brokers, servers)
        return NoBrokerError(
            f"{brokers}: no Kafka broker answers ({reason}); start one (`uic events broker`) or "
            f"set stream.brokers{hint}"
        )

    def failed(self, error: KafkaException) -> UicError:
        """The error of an exception of librdkafka's."""
        found = error.args[0]
        return self.error(found.str(), found.code())

    def _made(
        self, kind: Callable[[dict[str, Any]], Client], settings: Mapping[str, Setting]
    ) -> Client:
        try:
            client = kind(
                {
                    **self._brokers.client_settings(),
                    # librdkafka's own log would go to standard error.
                    "log_level": 0,
                    "error_cb": self._heard.append,
                    **settings,
                }
            )
        except KafkaException as error:  # a file that it cannot use
            msg = f"{self._brokers}: stream.security: {error.args[0].str()}; look at its files"
            raise BrokerAccessError(msg) from error
        self._client = client
        return client

    def _listen(self) -> None:
        """Let librdkafka call back; what nothing takes would pile up there."""
        if self._client is not None:
            self._client.poll(0)

    def _servers(self) -> list[str]:
        """Brokers whose TLS failed, by the names that they gave themselves, then the known ones."""
        failed = [
            found[1]
            for error in self._heard
            if error.code() == KafkaError._SSL  # noqa: SLF001 - librdkafka's name
            and (found := _SERVER.search(error.str()))
        ]
        return list(dict.fromkeys([*failed, *self._brokers.servers.split(",")]))[:_PROBED_SERVERS]

    def _refused_login(self) -> str | None:
        for error in self._heard:
            text = error.str()
            told = error.code() == KafkaError._AUTHENTICATION  # noqa: SLF001 - librdkafka's name
            if told and not any(words in text.lower() for words in _BROKEN_OFF):
                return (
                    f"Kafka refused the login ({_reason(text)}); set stream.security.username and "
                    f"{PASSWORD_VARIABLE}, and mechanism as the broker has it"
                )
        return None

    def _refused_certificate(self) -> str | None:
        """The broker wants a certificate of ours, or another one."""
        for error in self._heard:
            text = error.str()
            if "alert" in text and ("certificate" in text or "unknown ca" in text):
                return (
                    f"Kafka wants a certificate of ours, or refused it ({_reason(text)}); set "
                    "stream.security.cert_file and key_file to one that its authority signed"
                )
        return None


def _closed_door(brokers: Brokers, servers: list[str]) -> str | None:
    """What is wrong with the brokers' TLS, or with ours; None if that is not it."""
    security = brokers.security
    for server in servers:
        try:
            _shake_hands(brokers, server)
        except ssl.SSLCertVerificationError as error:
            return f"{_untrusted(error)} ({error.verify_message})"
        except (OSError, ValueError):  # away, or without TLS
            continue
        if not security.encrypts:
            wanted = "SASL_SSL" if security.logs_in else "SSL, or SASL_SSL with a login"
            return f"Kafka takes encrypted connections only; set stream.security.protocol: {wanted}"
    return None


def _shake_hands(brokers: Brokers, server: str) -> None:
    """Open a TLS connection as a client of these settings does; without TLS, to see if it can be.

    Raises:
        ssl.SSLCertVerificationError: the certificate is not to be trusted.
        OSError: no connection, or not of TLS.
    """
    security = brokers.security
    context = ssl.create_default_context(cafile=security.ca_file)
    if not security.encrypts:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    with _connected(server) as plain:
        context.wrap_socket(plain, server_hostname=_host_and_port(server)[0]).close()


def _connected(server: str) -> socket.socket:
    return socket.create_connection(_host_and_port(server), _PROBE_SECONDS)


def _host_and_port(server: str) -> tuple[str, int]:
    host, _, port = server.rpartition(":")
    return host.strip("[]"), int(port)


def _untrusted(error: ssl.SSLCertVerificationError) -> str:
    """What is wrong with a certificate and what to do, by OpenSSL's number of the reason."""
    expired, not_yet, other_host, other_address = 10, 9, 62, 64
    match error.verify_code:
        case code if code == expired:
            return "the broker's certificate has expired; let its owner renew it"
        case code if code == not_yet:
            return "the broker's certificate is not valid yet; look at both machines' clocks"
        case code if code in (other_host, other_address):
            return (
                "the broker's certificate is of another host; set stream.brokers to a name that "
                "the certificate has"
            )
        case _:
            return (
                "the broker's certificate is not signed by an authority that we know; set "
                "stream.security.ca_file to the authority's"
            )


def _hint(brokers: Brokers, servers: list[str]) -> str:
    """What may be the matter where a broker is there and closes connections."""
    for server in servers:
        with contextlib.suppress(OSError, ValueError), _connected(server):
            if brokers.security.encrypts or not brokers.security.logs_in:
                return (
                    "; a server closes our connections there: does it want a login, or take no "
                    "encryption (stream.security.protocol)?"
                )
    return ""


def _who(brokers: Brokers) -> str:
    return f"user {brokers.security.username}" if brokers.security.logs_in else "this user"


def _reason(text: str) -> str:
    """Librdkafka's words without its names of servers and states."""
    return text.partition(": ")[2].rpartition(" (after ")[0] or text
