"""The section `stream` of `uic.yaml`: the log that is read, batches, retries and checkpoints."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from uic.jobs.config.security import StreamSecurity
from uic.models.settings import ADVANCED, Section


class StreamSettings(Section):
    """The stream job: one behaviour event after the other into its user's memory."""

    source: Literal["kafka", "files"] = Field(
        "kafka", description="where behaviour events come from: kafka|files"
    )
    brokers: Annotated[str, Field(pattern=r"^[^'\s]+$")] = Field(
        "127.0.0.1:9092", description="Kafka's bootstrap servers; host:port, comma-separated"
    )
    security: StreamSecurity = Field(
        default_factory=StreamSecurity, description="encryption and login of the brokers"
    )
    topic: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")] = Field(
        "behaviours", description="topic of behaviour events, keyed by user id"
    )
    offset_gaps: bool = Field(
        default=False,
        description="whether offsets may have gaps (transactional producers); finding lost events "
        "is weaker then: true|false",
    )
    partitioner: Literal["any", "murmur2"] = Field(
        "any",
        description="how the topic's producers place a user: any binds a user to the partition of "
        "the first event, murmur2 (Kafka's default, of the id in decimal digits) refuses an event "
        "that lies elsewhere, also the first; any|murmur2",
    )
    files: Path | None = Field(
        None,
        description="folder of gzip JSON lines for source: files; none means `events` in the "
        "workspace",
    )
    jars_folder: Path | None = Field(
        None,
        description="folder with `kafka` and `flink`, the jars of Kafka and of Flink's connector; "
        "none means `jars` in the workspace, then `infra/jars` in the current folder",
    )
    parallelism: Annotated[int, Field(ge=1, le=1024)] = Field(
        1, description="subtasks, each with one Python worker; count, at most one a partition"
    )
    batch_rows: Annotated[int, Field(ge=1, le=100_000)] = Field(
        16_000,
        description="events folded at once, at most: a backlog's batches, while others close after "
        "batch_milliseconds; 1 to 100000",
        json_schema_extra=ADVANCED,
    )
    batch_milliseconds: Annotated[int, Field(ge=1, le=60_000)] = Field(
        50,
        description="how long a batch waits to be filled; milliseconds, 1 to 60000",
        json_schema_extra=ADVANCED,
    )
    cache_users: Annotated[int, Field(ge=0, le=10_000_000)] = Field(
        100_000,
        description="memories that a worker keeps, 1.3 KB each, so that it need not read them "
        "again; count, 0 to 10000000",
    )
    sequences: bool = Field(
        default=False,
        description="keep the last 1,000 folded events of each user as well (view user_sequence, "
        "17 KB a user), for rankers that read a history: true|false",
    )
    checkpoint_seconds: Annotated[float, Field(ge=0.1, le=3600)] = Field(
        10.0, description="between Flink's checkpoints; seconds, 0.1 to 3600"
    )
    checkpoint_folder: Path | None = Field(
        None, description="where checkpoints go; none means `stream/checkpoints` in the workspace"
    )
    retry_seconds: Annotated[float, Field(ge=0, le=86_400)] = Field(
        60.0, description="how long a worker waits for Redis before it fails; seconds, 0 to 86400"
    )
    task_restarts: Annotated[int, Field(ge=0, le=1000)] = Field(
        3,
        description="restarts by Flink, from its checkpoint, within one attempt; 0 to 1000",
        json_schema_extra=ADVANCED,
    )
    attempts: Annotated[int, Field(ge=1, le=100_000)] = Field(
        10,
        description="attempts in a row, without progress, before `uic stream run` gives up; 1 to "
        "100000",
        json_schema_extra=ADVANCED,
    )
    backoff_seconds: Annotated[float, Field(ge=0, le=3600)] = Field(
        1.0,
        description="wait before the second attempt, doubled each time up to a minute; seconds",
        json_schema_extra=ADVANCED,
    )
    stalled_checkpoints: Annotated[int, Field(ge=1, le=1000)] = Field(
        6,
        description="checkpoint intervals (at least 60 s in all) without a completed one that end "
        "an attempt; 1 to 1000",
        json_schema_extra=ADVANCED,
    )
    dead_letter_topic: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")] | None = Field(
        None,
        description="topic for rejected events; none means files in `stream/dead-letters` of the "
        "workspace",
    )
    archive: bool = Field(
        default=True,
        description="keep every payload with its position in `stream/archive`, for `uic log "
        "compact`: true|false",
    )
    archive_roll_seconds: Annotated[float, Field(ge=0.1, le=86_400)] = Field(
        60.0,
        description="age at which a file of the archive is closed; seconds, 0.1 to 86400",
        json_schema_extra=ADVANCED,
    )
    archive_days: Annotated[float, Field(ge=0, le=3650)] | None = Field(
        7.0,
        description="how long a file of the archive stays after `uic log compact` has published "
        "it; days, 0 to 3650, none keeps it for ever",
    )
    dead_letter_days: Annotated[float, Field(ge=0, le=3650)] | None = Field(
        30.0, description="how long dead letters in files stay; days, 0 to 3650, none for ever"
    )
    jvm_memory_mib: Annotated[int, Field(ge=256, le=1_000_000)] = Field(
        1024, description="heap of the mini-cluster's Java process; MiB, 256 to 1000000"
    )
    prometheus_port: Annotated[int, Field(ge=0, le=65_535)] = Field(
        0, description="port where Prometheus finds Flink's metrics and the lag; 0 = off"
    )
    prometheus_host: str = Field(
        "127.0.0.1",
        description="address that it listens on; 0.0.0.0 for a Prometheus on another machine, "
        "which is asked for no password",
    )
