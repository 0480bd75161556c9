"""The section `stream.security` of `uic.yaml`: how the stream gets into Kafka.

Protocols and mechanisms have Kafka's own names, so that a line of a provider's page fits. Files and
the password are looked at when a broker is asked (`uic.jobs.stream.topics.brokers`): a machine that
only serves reads the same `uic.yaml`, and needs neither.
"""

from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    SecretStr,
    model_validator,
)

from uic.models.settings import Section

PASSWORD_VARIABLE: Final = "UIC_STREAM__SECURITY__PASSWORD"  # noqa: S105 - the variable's name
"""Where the password comes from on the way to workers, to Java and to a Flink cluster."""


def _upper(name: object) -> object:
    return name.upper() if isinstance(name, str) else name


def _said(value: object) -> object:
    """Refuse an empty text, which would be the current folder."""
    if value == "":
        msg = "is empty; leave it out, or name a PEM file"
        raise ValueError(msg)
    return value


def _one_line(secret: SecretStr | None) -> SecretStr | None:
    """Refuse what no login has, and a file that was mounted with its line's end."""
    if secret is not None:
        text = secret.get_secret_value()
        if not text or {"\n", "\r", "\0"} & set(text):
            msg = "is empty, or ends a line; give the password alone"
            raise ValueError(msg)
    return secret


def _usable_in_java(path: Path) -> Path:
    """The absolute path of a file that Kafka's Java client is sent to by `${folder:name}`."""
    path = path.expanduser().absolute()
    if {":", "}"} & set(str(path)):
        msg = "Kafka's Java client cannot be told a path with a colon or a brace; move the file"
        raise ValueError(msg)
    return path


_File = Annotated[Path, BeforeValidator(_said), AfterValidator(_usable_in_java)]
# A plan is a file, and the workers' argument: neither gets the password, not even as asterisks.
_Secret = Annotated[
    SecretStr | None,
    AfterValidator(_one_line),
    PlainSerializer(lambda _: None, when_used="json"),
]


class StreamSecurity(Section):
    """How to get into Kafka: encryption, the authority that is trusted, and a login."""

    protocol: Annotated[
        Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"], BeforeValidator(_upper)
    ] = Field(
        "PLAINTEXT",
        description="Kafka's security.protocol: SSL encrypts, SASL logs in; the name of the host "
        "is always held against its certificate; PLAINTEXT|SSL|SASL_PLAINTEXT|SASL_SSL",
    )
    mechanism: (
        Annotated[Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"], BeforeValidator(_upper)]
        | None
    ) = Field(None, description="of the login, for SASL; PLAIN|SCRAM-SHA-256|SCRAM-SHA-512")
    username: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="of the login, for SASL"
    )
    password: _Secret = Field(
        None, description=f"of the login; better given as {PASSWORD_VARIABLE} than in a file"
    )
    ca_file: _File | None = Field(
        None,
        description="PEM file of the authorities that may sign the brokers' certificates; none "
        "means those of the machine and, for the stream job, of its Java",
    )
    cert_file: _File | None = Field(
        None, description="PEM file of our certificate, if the brokers want one; with key_file"
    )
    key_file: _File | None = Field(
        None, description="PEM file of our certificate's key, PKCS 8 and without a passphrase"
    )

    @property
    def encrypts(self) -> bool:
        """Whether connections are encrypted."""
        return self.protocol.endswith("SSL")

    @property
    def logs_in(self) -> bool:
        """Whether a user and a password are sent."""
        return self.protocol.startswith("SASL")

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        files = [name for name in ("ca_file", "cert_file", "key_file") if getattr(self, name)]
        # Not the password: the environment of every process may have it, also of one that reads
        # another `uic.yaml`, or none.
        login = [name for name in ("mechanism", "username") if getattr(self, name)]
        if files and not self.encrypts:
            msg = (
                f"{files[0]} is set and protocol is {self.protocol}, so that nothing is "
                "encrypted; set protocol: SSL, or SASL_SSL with a login"
            )
            raise ValueError(msg)
        if login and not self.logs_in:
            msg = (
                f"{login[0]} is set and protocol is {self.protocol}, which has no login; set "
                "protocol: SASL_SSL"
            )
            raise ValueError(msg)
        if (self.cert_file is None) != (self.key_file is None):
            msg = "cert_file and key_file belong together; one of them is missing"
            raise ValueError(msg)
        for name in ("mechanism", "username") if self.logs_in else ():
            if getattr(self, name) is None:
                msg = f"protocol is {self.protocol} and {name} is not set; set it"
                raise ValueError(msg)
        return self
