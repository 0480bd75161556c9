"""The one configuration file, `uic.yaml`, and the workspace it belongs to.

`load_config` reads a file over the defaults; environment variables `UIC_SECTION__FIELD` win over
both. `uic config show` prints the result with each field's description.
"""

from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import yaml
from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from uic.feature_repo.store.settings import StoreSettings
from uic.jobs.config.serve import ServeSettings
from uic.jobs.config.stream import StreamSettings
from uic.models.errors import BadInputError
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


class Config(BaseSettings):
    """Everything that can be set, one section a component."""

    model_config = SettingsConfigDict(
        env_prefix="UIC_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    time_zone: Annotated[str, AfterValidator(_known_zone)] = Field(
        "UTC", description="the zone whose calendar days are `dt`; IANA name"
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

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment over file (which arrives as init values) over defaults."""
        return env_settings, init_settings


def load_config(path: Path | None) -> Config:
    """Read `path` (YAML) over the defaults; None means defaults and environment only.

    Raises:
        BadInputError: names the file, the field, what was found and what was expected.
    """
    document: Any = {}
    if path is not None:
        try:
            document = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            msg = f"{path}: cannot be read as YAML: {' '.join(str(error).split())}"
            raise BadInputError(msg) from error
        if not isinstance(document, dict):
            msg = f"{path}: found {type(document).__name__}, expected sections like `samples:`"
            raise BadInputError(msg)
    try:
        return Config(**document)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        where = path if path is not None else "environment (UIC_*)"
        found = "" if first["type"] == "extra_forbidden" else f" (found {first['input']!r})"
        reason = (
            "no such setting; `uic config show` lists them"
            if first["type"] == "extra_forbidden"
            else first["msg"]
        )
        msg = f"{where}: {field}: {reason}{found}"
        raise BadInputError(msg) from error
