"""The section `serve` of `uic.yaml`: limits, timeouts, what is too old, what is logged."""

from typing import Annotated

from pydantic import Field, SecretStr, field_validator

from uic.models.features.definition import CLICK, NAME_PATTERN
from uic.models.settings import ADVANCED, Section


class ServeSettings(Section):
    """The ranking service: what it accepts, how long it waits, when it answers without memory."""

    host: str = Field(
        "127.0.0.1", description="address to listen on; 0.0.0.0 for all, then set a token"
    )
    port: Annotated[int, Field(ge=0, le=65_535)] = Field(
        8080, description="TCP port; 0 takes a free one"
    )
    workers: Annotated[int, Field(ge=1, le=256)] = Field(
        1, description="processes that share the port, each with one thread for scoring; count"
    )
    token: SecretStr | None = Field(
        None,
        description="bearer token that /v1 and /metrics ask for; better given as UIC_SERVE__TOKEN "
        "than in a file; none means no token",
    )
    feature_service: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")] = Field(
        "ranker_v1",
        description="Feast feature service of bundles whose manifest names none",
        json_schema_extra=ADVANCED,
    )
    max_candidates: Annotated[int, Field(ge=1, le=100_000)] = Field(
        1000, description="items of one request; count, 1 to 100000"
    )
    order_by: Annotated[str, Field(pattern=NAME_PATTERN)] = Field(
        CLICK,
        description="what candidates are ordered by, and what a bid pays for: click, or a label "
        "that the bundle has a head for",
    )
    max_prerank_candidates: Annotated[int, Field(ge=1, le=100_000)] = Field(
        4000, description="items of a request to /v1/prerank and /v1/funnel; count, 1 to 100000"
    )
    prerank_keep: Annotated[int, Field(ge=1, le=100_000)] = Field(
        400,
        description="items that the pre-rank keeps unless a request says otherwise; count",
        json_schema_extra=ADVANCED,
    )
    max_users: Annotated[int, Field(ge=1, le=10_000)] = Field(
        64,
        description="users of one request to /v1/rank:batch; count, 1 to 10000",
        json_schema_extra=ADVANCED,
    )
    max_body_bytes: Annotated[int, Field(ge=1024, le=2**30)] = Field(
        1 << 20, description="size of a request's body; bytes, at least 1024"
    )
    max_in_flight: Annotated[int, Field(ge=1, le=100_000)] = Field(
        64, description="requests that a worker deals with at once; more are answered 429; count"
    )
    request_timeout_ms: Annotated[float, Field(gt=0, le=600_000)] = Field(
        1000.0, description="a request that waited longer for its turn is answered 429; ms"
    )
    store_timeout_ms: Annotated[float, Field(gt=0, le=60_000)] = Field(
        100.0, description="wait for the store, then answer without memory; ms, up to 60000"
    )
    breaker_failures: Annotated[int, Field(ge=1, le=1000)] = Field(
        3,
        description="failed reads in a row after which the store is left alone; count",
        json_schema_extra=ADVANCED,
    )
    breaker_open_seconds: Annotated[float, Field(ge=0.05, le=60)] = Field(
        0.5,
        description="how long the store is left alone before it is tried again; seconds",
        json_schema_extra=ADVANCED,
    )
    max_memory_age_seconds: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="a memory whose last event is older is not used (a quiet user's is old, too); "
        "seconds, none for no limit",
    )
    item_cache_items: Annotated[int, Field(ge=1, le=100_000_000)] = Field(
        200_000, description="items whose vectors a worker keeps, about 300 bytes each; count"
    )
    watch_seconds: Annotated[float, Field(ge=0.05, le=3600)] = Field(
        1.0,
        description="how often bundles, item table and generations are looked at; seconds",
        json_schema_extra=ADVANCED,
    )
    swap_delay_seconds: Annotated[float, Field(ge=0, le=600)] = Field(
        3.0,
        description="from a change of CURRENT to the swap, so that all workers have the new bundle "
        "warm and swap together; seconds",
        json_schema_extra=ADVANCED,
    )
    drain_seconds: Annotated[float, Field(ge=0, le=600)] = Field(
        1.0,
        description="after SIGTERM: how long to answer on (not ready, connections closing) before "
        "the port is closed; seconds",
        json_schema_extra=ADVANCED,
    )
    head_seconds: Annotated[float, Field(ge=0.1, le=600)] = Field(
        10.0,
        description="from a connection to the end of a request's head, then it is closed; seconds",
        json_schema_extra=ADVANCED,
    )
    body_seconds: Annotated[float, Field(ge=0.1, le=600)] = Field(
        10.0,
        description="from its head to the end of a request's body, then it is refused; seconds",
        json_schema_extra=ADVANCED,
    )
    max_head_bytes: Annotated[int, Field(ge=1024, le=1 << 20)] = Field(
        32 * 1024,
        description="of a request's head, and of what frames a body in chunks; bytes",
        json_schema_extra=ADVANCED,
    )
    max_connections: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        4000, description="of a worker; more are closed at once; count", json_schema_extra=ADVANCED
    )
    log_features: bool = Field(
        default=False,
        description="write what each request was scored with to serving/features in the workspace",
    )
    feature_days: Annotated[float, Field(ge=0, le=3650)] | None = Field(
        30.0,
        description="how long what was written of requests stays; days, 0 to 3650, none for ever",
    )
    log_features_sample: Annotated[float, Field(ge=0, le=1)] = Field(
        1.0,
        description="share of requests that are written; 0 to 1, chosen by a hash of the user",
        json_schema_extra=ADVANCED,
    )

    @field_validator("token")
    @classmethod
    def _says_something(cls, token: SecretStr | None) -> SecretStr | None:
        """Without the line break that a mounted file ends with; an empty one would let all in."""
        if token is None:
            return None
        text = token.get_secret_value().strip()
        if not text:
            msg = "an empty token would let everyone in; set one, or leave it out for none"
            raise ValueError(msg)
        return SecretStr(text)
