"""The section `store` of `uic.yaml`: where Redis is, and how it is used.

The same environment variables (`UIC_STORE__ADDRESS`, `UIC_STORE__PASSWORD`, `UIC_STORE__TLS`) are
read by `feature_store.yaml`, so that Feast and `uic` always mean the same Redis.
"""

from typing import Annotated, Self

from pydantic import Field, SecretStr, model_validator

from uic.models.settings import ADVANCED, Section

PROJECT_PATTERN = r"^[A-Za-z0-9_]+$"


class StoreSettings(Section):
    """The online store (Redis), and the project whose memories it holds."""

    address: Annotated[str, Field(pattern=r"^[^\s:]+:\d{1,5}$")] | None = Field(
        None, description="host:port of Redis; none means the embedded one of `uic store start`"
    )
    password: SecretStr | None = Field(
        None, description="password; better given as UIC_STORE__PASSWORD than in a file"
    )
    tls: bool = Field(default=False, description="whether the connection is encrypted: true|false")
    db: Annotated[int, Field(ge=0, le=15)] = Field(
        0, description="number of the Redis database; 0 to 15", json_schema_extra=ADVANCED
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
    def _readers_hear_of_a_switch_in_time(self) -> Self:
        if self.switch_delay_seconds <= self.pointer_refresh_seconds:
            msg = (
                f"switch_delay_seconds is {self.switch_delay_seconds:g}, expected more than "
                f"pointer_refresh_seconds ({self.pointer_refresh_seconds:g}), or readers would "
                "turn one after the other"
            )
            raise ValueError(msg)
        return self
