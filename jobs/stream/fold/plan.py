"""The plan of one attempt: everything that the Flink job and its workers need, as one JSON file.

`uic stream run` writes it, `uic.jobs.stream.run.attempt` runs it, and so does
`flink run -py jobs/stream/run/attempt.py plan.json` against a cluster. No password is in it:
workers take them from `UIC_STORE__PASSWORD` and `UIC_STREAM__SECURITY__PASSWORD`.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from uic.feature_repo.store.settings import StoreSettings
from uic.jobs.config.stream import StreamSettings
from uic.models.settings import Section
from uic.pipelines.log.epochs import NotedColumn
from uic.pipelines.settings import LogSettings, SaleSettings


class JobPlan(Section):
    """One attempt of one generation's stream job."""

    generation: int = Field(description="whose memories change")
    bundle: Path = Field(description="directory of the bundle that folds")
    project: str = Field(description="Feast project")
    address: str = Field(description="of Redis, also where it is the workspace's embedded one")
    store: StoreSettings = Field(description="how to reach Redis; without the password")
    keys_per_script: int = Field(description="memories that one script writes")
    keys_per_read: int = Field(description="memories that one MGET reads")
    epoch: int = Field(description="number of the epoch in epochs.json")
    starts: dict[int, int] = Field(description="by partition, the first offset to read")
    start_markers: dict[int, int] = Field(description="by partition, the store's marker then")
    columns: tuple[NotedColumn, ...] = Field(
        (), description="of events that the bundle reads, as the epoch has them"
    )
    topic_id: str | None = Field(None, description="Kafka's id of the topic; None for files")
    ends: dict[int, int] = Field(description="by partition, one past the last offset when planned")
    until_end: bool = Field(description="whether the job ends at `ends`")
    source: Literal["kafka", "files"] = Field(description="where events come from")
    staged_files: Path = Field(description="folder of one gzip file a partition, for files")
    archive_folder: Path = Field(description="raw payloads with positions")
    dead_letter_folder: Path = Field(description="rejected payloads with reasons")
    letter_bytes: int | None = Field(
        None, description="longest payload that the dead-letter topic takes; None: files, any"
    )
    checkpoint_folder: Path = Field(description="Flink's checkpoints")
    run_folder: Path = Field(description="logs and state of this attempt")
    rest_port: int = Field(description="of the mini-cluster")
    metrics_port: int = Field(
        0, description="of Flink's own Prometheus reporter, on loopback; 0 = off"
    )
    restore_from: Path | None = Field(None, description="checkpoint or savepoint to resume from")
    exclude: dict[str, Any] = Field(description="the generation's rules for what is left out")
    time_zone: str = Field(description="whose calendar days are `dt`")
    log: LogSettings = Field(description="limits of the parser")
    sale: SaleSettings = Field(description="sale days")
    stream: StreamSettings = Field(description="batches, retries, checkpoints")
    position_check: bool = Field(
        default=True, description="off only in the crash drill's negative control"
    )

    @property
    def uses_kafka(self) -> bool:
        """Whether events come from Kafka, or letters go there."""
        return self.source == "kafka" or self.stream.dead_letter_topic is not None
