"""The one configuration file, `uic.yaml`, and the workspace it belongs to.

`load_config` reads a file over the defaults; environment variables `UIC_SECTION__FIELD` win over
both. `uic config show` prints the result with each field's description.
"""

from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field

from uic.feature_repo.store.settings import StoreSettings
from uic.feature_repo.store.settings_file import (
    EnvironmentOverFile,
    read_settings_file,
    validated,
)
from uic.jobs.config.serve import ServeSettings
from uic.jobs.config.stream import StreamSettings
from uic.models.training.settings import TrainSettings
from uic.pipelines.audit.settings import AuditSettings
from uic.pipelines.images.settings import ImagesSettings
from uic.pipelines.settings import (
    LogSettings,
    MemoriesSettings,
    QualitySettings,
    SaleSettings,
    SamplesSettings,
)


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        msg = f"{name!r} is not a time zone; use a name like UTC or Asia/Shanghai"
        raise ValueError(msg) from error
    return name


class Config(EnvironmentOverFile):
    """Everything that can be set, one section a component."""

    time_zone: Annotated[str, AfterValidator(_known_zone)] = Field(
        "UTC", description="the zone whose calendar days are `dt`; IANA name"
    )
    file_access: Literal["owner", "group"] = Field(
        "owner",
        description="who may read what `uic` writes: owner alone (0600), or the group, too (0640); "
        "histories and memories are personal data",
    )
    log: LogSettings = Field(default_factory=LogSettings)
    sale: SaleSettings = Field(default_factory=SaleSettings)
    samples: SamplesSettings = Field(default_factory=SamplesSettings)
    train: TrainSettings = Field(default_factory=TrainSettings)
    memories: MemoriesSettings = Field(default_factory=MemoriesSettings)
    store: StoreSettings = Field(default_factory=StoreSettings)
    stream: StreamSettings = Field(default_factory=StreamSettings)
    serve: ServeSettings = Field(default_factory=ServeSettings)
    audit: AuditSettings = Field(default_factory=AuditSettings)
    quality: QualitySettings = Field(default_factory=QualitySettings)
    images: ImagesSettings = Field(default_factory=ImagesSettings)


def load_config(path: Path | None) -> Config:
    """Read `path` (YAML) over the defaults; None means defaults and environment only.

    Raises:
        BadInputError: names the file, the field, what was found and what was expected.
    """
    document = {} if path is None else read_settings_file(path)
    return validated(Config, document, "environment (UIC_*)" if path is None else str(path))
