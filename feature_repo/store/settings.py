"""The section `store` of `uic.yaml`: where Redis is, and how it is used.

Feast reads it too (`uic.feature_repo.plugin.config`), by the same reader, so that Feast and `uic`
always mean the same Redis.
"""

import re
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from uic.models.settings import ADVANCED, Section

UNIX_SCHEME: Final = "unix://"
_ADDRESS: Final = re.compile(
    r"[^\s:/@\[\]]+:\d{1,5}"  # host:port
    r"|\[[0-9A-Fa-f:.]+(?:%\w+)?\]:\d{1,5}"  # [IPv6]:port
    r"|unix:///\S+"
)
PROJECT_PATTERN = r"^[A-Za-z0-9_]+$"


def _known_address(text: str) -> str:
    if not _ADDRESS.fullmatch(text):
        msg = "not an address of Redis; expected host:port, [IPv6]:port or unix:///path/of.sock"
        raise ValueError(msg)
    return text


# The path may be used from another folder, by a worker of the stream for example.
_File = Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]


class StoreSettings(Section):
    """The online store (Redis), and the project whose memories it holds."""

    address: Annotated[str, AfterValidator(_known_address)] | None = Field(
        None,
        description="host:port, [IPv6]:port or unix:///path of Redis; none means the embedded one "
        "of `uic store start`",
    )
    username: str | None = Field(None, description="ACL user; none means Redis' default user")
    password: SecretStr | None = Field(
        None, description="password; better given as UIC_STORE__PASSWORD than in a file"
    )
    tls: bool = Field(default=False, description="whether the connection is encrypted: true|false")
    tls_ca_file: _File | None = Field(
        None,
        description="PEM file of the authority that signed Redis' certificate; none means "
        "those of the machine",
    )
    tls_cert_file: _File | None = Field(
        None, description="PEM file of our certificate, if Redis wants one; with tls_key_file"
    )
    tls_key_file: _File | None = Field(None, description="PEM file of our certificate's key")
    tls_check_hostname: bool = Field(
        default=True,
        description="whether Redis' certificate must be of the host in address; false only where "
        "it names something else, and an authority of your own signs nothing but Redis: true|false",
        json_schema_extra=ADVANCED,
    )
    db: Annotated[int, Field(ge=0)] = Field(
        0, description="number of the Redis database; 0 or more", json_schema_extra=ADVANCED
    )
    allow_deletion: bool = Field(
        default=False,
        description="whether `feast apply` and `feast teardown` may delete memories whose view is "
        "gone; better given as UIC_STORE__ALLOW_DELETION to one command than in a file",
        json_schema_extra=ADVANCED,
    )
    project: Annotated[str, Field(pattern=PROJECT_PATTERN)] = Field(
        "uic", description="Feast project, first part of every key; letters, digits, underscores"
    )
    timeout_seconds: Annotated[float, Field(gt=0, le=600)] = Field(
        10.0, description="how long to wait for Redis, to connect and per reply; seconds"
    )
    keys_per_script: Annotated[int, Field(ge=1, le=5000)] = Field(
        500,
        description="memories that one script writes; more means fewer syncs to disk, and readers "
        "that wait longer; count, 1 to 5000",
        json_schema_extra=ADVANCED,
    )
    keys_per_read: Annotated[int, Field(ge=1, le=100_000)] = Field(
        2000,
        description="memories that one MGET reads; count, 1 to 100000",
        json_schema_extra=ADVANCED,
    )
    pointer_refresh_seconds: Annotated[float, Field(ge=0, le=60)] = Field(
        1.0,
        description="how long a reader trusts the live pointer it has read; seconds, 0 to 60",
        json_schema_extra=ADVANCED,
    )
    switch_delay_seconds: Annotated[float, Field(ge=0, le=600)] = Field(
        3.0,
        description="how far ahead a switch is announced, so that all readers turn together; "
        "seconds, larger than pointer_refresh_seconds",
        json_schema_extra=ADVANCED,
    )
    drop_keys_per_second: Annotated[int, Field(ge=100)] = Field(
        50_000,
        description="how fast `uic memories drop` deletes; keys a second, at least 100",
        json_schema_extra=ADVANCED,
    )

    @model_validator(mode="after")
    def _encryption_is_whole(self) -> Self:
        files = {
            name: getattr(self, name) for name in ("tls_ca_file", "tls_cert_file", "tls_key_file")
        }
        named = [name for name, path in files.items() if path is not None]
        if named and not self.tls:
            msg = f"{named[0]} is set and tls is false, so that nothing is encrypted; set tls: true"
            raise ValueError(msg)
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            msg = "tls_cert_file and tls_key_file belong together; one of them is missing"
            raise ValueError(msg)
        if self.tls and self.address is not None and self.address.startswith(UNIX_SCHEME):
            msg = "tls is true and the address is a unix socket, which Redis does not encrypt"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _readers_hear_of_a_switch_in_time(self) -> Self:
        if self.switch_delay_seconds <= self.pointer_refresh_seconds:
            msg = (
                f"switch_delay_seconds is {self.switch_delay_seconds:g}, expected more than "
                f"pointer_refresh_seconds ({self.pointer_refresh_seconds:g}), or readers would "
                "turn one after the other"
            )
            raise ValueError(msg)
        return self
