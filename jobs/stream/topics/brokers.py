"""Where Kafka is and how to get in, and both in the words of the two clients that are used.

librdkafka (`confluent_kafka`) asks about topics, reads and produces; the stream job's source and
its dead letters are Flink's connector, which has Kafka's Java client. Java is told the name of the
variable that has the password and the names of the key's files, not what is in them: Flink keeps a
job's properties, its metadata for a restart among them, in places that nothing protects.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from uic.jobs.config.security import PASSWORD_VARIABLE, StreamSecurity
from uic.jobs.config.stream import StreamSettings
from uic.models.errors import BadInputError

Setting = str | int | float | bool
"""A value of a client's setting."""

QUOTED_VARIABLE: Final = "UIC_STREAM_QUOTED_PASSWORD"
"""The password with JAAS' escapes, for one that has a quote or a backslash."""

# The connector's jar has the client under a name of its own.
_JAVA: Final = "org.apache.flink.kafka.shaded.org.apache.kafka.common"
_QUOTE: Final = "'"
_PKCS_8: Final = "-----BEGIN PRIVATE KEY-----"


@dataclass(frozen=True)
class Brokers:
    """Where Kafka is and how to get in.

    Args:
        servers: `host:port`, comma-separated; Kafka's bootstrap servers.
        security: encryption and login; the password is in it, and no text shows it.
    """

    servers: str
    security: StreamSecurity = field(default_factory=StreamSecurity)

    def __str__(self) -> str:
        """For messages: where they are."""
        return self.servers

    @property
    def password(self) -> str | None:
        """Of the login; None without one."""
        secret = self.security.password
        return secret.get_secret_value() if secret and self.security.logs_in else None

    def client_settings(self) -> dict[str, Setting]:
        """Settings of librdkafka."""
        security = self.security
        given = {
            "sasl.mechanism": security.mechanism,
            "sasl.username": security.username,
            "sasl.password": self.password,
            "ssl.ca.location": security.ca_file,
            "ssl.certificate.location": security.cert_file,
            "ssl.key.location": security.key_file,
            # Its default, and too much depends on it to leave it to a default.
            "ssl.endpoint.identification.algorithm": "https" if security.encrypts else None,
        }
        return {
            "bootstrap.servers": self.servers,
            "security.protocol": security.protocol,
            **{name: str(value) for name, value in given.items() if value is not None},
        }

    def java_properties(self) -> dict[str, str]:
        """Properties of Kafka's Java client in Flink's connector; no secret is in them.

        The client replaces `${env:NAME}` and `${files:FOLDER:NAME}` itself, where it runs.
        """
        security = self.security
        found = {"bootstrap.servers": self.servers}
        if security.protocol == "PLAINTEXT":
            return found
        found["security.protocol"] = security.protocol
        providers = {}
        if security.logs_in:
            providers["env"] = "EnvVarConfigProvider"
            found["sasl.mechanism"] = str(security.mechanism)
            found["sasl.jaas.config"] = self._jaas()
        if security.encrypts:
            found["ssl.endpoint.identification.algorithm"] = "https"
        if security.ca_file is not None:
            found["ssl.truststore.type"] = "PEM"
            found["ssl.truststore.location"] = str(security.ca_file)
        if security.cert_file is not None and security.key_file is not None:
            providers["files"] = "DirectoryConfigProvider"
            found["ssl.keystore.type"] = "PEM"
            found["ssl.keystore.certificate.chain"] = _content_of(security.cert_file)
            found["ssl.keystore.key"] = _content_of(security.key_file)
        if providers:
            found["config.providers"] = ",".join(providers)
        for name, kind in providers.items():
            found[f"config.providers.{name}.class"] = f"{_JAVA}.config.provider.{kind}"
        return found

    def flink_options(self) -> str:
        """The properties as options of a table in Flink's SQL, where a quote ends no text."""
        return ", ".join(
            f"'properties.{name}' = '{value.replace(_QUOTE, 2 * _QUOTE)}'"
            for name, value in self.java_properties().items()
        )

    def java_environment(self) -> dict[str, str]:
        """Variables that the Java process needs beside its own."""
        password = self.password
        if password is None:
            return {}
        quoted = _quoted(password)
        own = {PASSWORD_VARIABLE: password}
        return own if quoted == password else own | {QUOTED_VARIABLE: quoted}

    def check_environment(self) -> None:
        """Refuse a cluster whose Java would not find the password; its machines are alike.

        Raises:
            BadInputError: names the variable that is missing, or has another value.
        """
        for name, value in self.java_environment().items():
            if os.environ.get(name) != value:
                escapes = " (a backslash before each quote and backslash)"
                msg = f"{self}: set {name} in job and task managers to the password" + (
                    escapes if name == QUOTED_VARIABLE else ""
                )
                raise BadInputError(msg)

    def _jaas(self) -> str:
        """The login in the language of JAAS, in which the password is the name of a variable."""
        security, password = self.security, self.password or ""
        module = "plain.Plain" if security.mechanism == "PLAIN" else "scram.Scram"
        variable = PASSWORD_VARIABLE if _quoted(password) == password else QUOTED_VARIABLE
        return (
            f"{_JAVA}.security.{module}LoginModule required "
            f'username="{_quoted(security.username or "")}" password="${{env:{variable}}}";'
        )


def brokers_of(stream: StreamSettings) -> Brokers:
    """The brokers of the settings, with the password.

    A plan has none: a process that reads a plan has it in the environment, as the store's.

    Raises:
        BadInputError: a file is not there, or is no key that Java reads; there is no password.
    """
    security = stream.security
    for name in ("ca_file", "cert_file", "key_file"):
        _check_file(name, getattr(security, name))
    if security.logs_in and security.password is None:
        password = os.environ.get(PASSWORD_VARIABLE)
        if not password:
            msg = (
                f"stream.security.password: not set, and the protocol is {security.protocol}; "
                f"set {PASSWORD_VARIABLE}"
            )
            raise BadInputError(msg)
        security = security.model_copy(update={"password": SecretStr(password)})
    return Brokers(stream.brokers, security)


def _check_file(name: str, path: Path | None) -> None:
    """Refuse a file that one of the two clients would stumble over in words of its own.

    Raises:
        BadInputError: it cannot be read, is no PEM file, or is a key that Java does not read.
    """
    if path is None:
        return
    where = f"stream.security.{name}: {path}"
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        msg = f"{where}: cannot be read ({error.strerror}); name a PEM file of this machine"
        raise BadInputError(msg) from error
    wanted = "PRIVATE KEY-----" if name == "key_file" else "-----BEGIN CERTIFICATE-----"
    if wanted not in text:
        msg = f"{where}: has no {wanted.strip('-').removeprefix('BEGIN ').lower()} in PEM format"
        raise BadInputError(msg)
    if name == "key_file" and _PKCS_8 not in text:
        msg = (
            f"{where}: is not PKCS 8 without a passphrase, all that Kafka's Java client reads; "
            "write it anew with `openssl pkcs8 -topk8 -nocrypt -in OLD -out NEW`"
        )
        raise BadInputError(msg)


def _content_of(path: Path) -> str:
    return f"${{files:{path.parent}:{path.name}}}"


def _quoted(text: str) -> str:
    """As it stands between two quotes in JAAS."""
    return text.replace("\\", "\\\\").replace('"', '\\"')
