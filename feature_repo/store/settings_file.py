"""One reader of settings, for `uic` and for Feast: defaults, then `uic.yaml`, then `UIC_*`.

`uic` reads every section by it (`uic.jobs.config.config`); Feast's side, which must not know the
others, the section `store`. What is wrong is told without the value of a secret.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml
from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from uic.feature_repo.store.settings import StoreSettings
from uic.models.errors import BadInputError
from uic.models.yaml_text import load_yaml

CONFIG_NAME: Final = "uic.yaml"
_SECRETS: Final = ("password", "token", "address")


class EnvironmentOverFile(BaseSettings):
    """Settings whose fields are sections: `UIC_SECTION__FIELD` wins over what a file says."""

    model_config = SettingsConfigDict(
        env_prefix="UIC_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        # An error of a section would print the section, secrets included.
        hide_input_in_errors=True,
    )

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


Sections = TypeVar("Sections", bound=EnvironmentOverFile)


class _StoreSection(EnvironmentOverFile):
    """The section that Feast's side reads; what else is in the file is `uic`'s."""

    model_config = SettingsConfigDict(extra="ignore")

    store: StoreSettings = Field(default_factory=StoreSettings)


def find_settings_file(workspace: Path, config: Path | None, start: Path) -> Path | None:
    """The `uic.yaml` in force: the one named, else the workspace's, else that of `start`.

    Raises:
        BadInputError: the one named is not there.
    """
    if config is not None and not config.is_file():
        msg = f"{config}: no such file; leave out --config to use the defaults"
        raise BadInputError(msg)
    candidates = [config] if config else [workspace / CONFIG_NAME, start / CONFIG_NAME]
    return next((path for path in candidates if path.is_file()), None)


def read_settings_file(path: Path) -> dict[str, Any]:
    """The sections of a file.

    Raises:
        BadInputError: it cannot be read, or holds something else.
    """
    try:
        document = load_yaml(path.read_text(encoding="utf-8")) or {}
    except yaml.MarkedYAMLError as error:
        # Not the text of the error: it quotes the line, and the line may be a password's.
        mark = error.problem_mark
        where = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
        # It names aliases and tags, and `*word` or `!word` may be a password without quotes.
        problem = re.sub(r"'[^']*'", "'…'", str(error.problem))
        msg = f"{path}: cannot be read as YAML: {problem}{where}"
        raise BadInputError(msg) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        msg = f"{path}: cannot be read as YAML: {' '.join(str(error).split())}"
        raise BadInputError(msg) from error
    if not isinstance(document, dict):
        msg = f"{path}: found {type(document).__name__}, expected sections like `samples:`"
        raise BadInputError(msg)
    return document


def validated(sections: type[Sections], document: Mapping[str, Any], where: str) -> Sections:
    """The settings of a file's sections and the environment.

    Raises:
        BadInputError: names the place, the field, what was found and what was expected.
    """
    try:
        return sections(**document)
    except ValidationError as error:
        # Not `from error`, which a traceback would print with its input.
        msg = f"{where}: {_first_problem(error)}"
        raise BadInputError(msg) from None
    except SettingsError as error:  # a variable of a section is no JSON; its value may be a secret
        named = re.search(r'field "(\w+)"', str(error))
        section = named[1].upper() if named else "SECTION"
        msg = f"UIC_{section}: not a section in JSON; set its fields: UIC_{section}__FIELD"
        raise BadInputError(msg) from None


def store_settings(
    workspace: Path, config: Path | None, start: Path, over: Mapping[str, Any]
) -> StoreSettings:
    """The section `store` as `uic` has it in this workspace.

    Args:
        workspace: its folder.
        config: a `uic.yaml` named explicitly (`UIC_CONFIG`).
        start: where the process started, for a `uic.yaml` there.
        over: fields that another file, Feast's, names; the environment wins over them too.

    Raises:
        BadInputError: names the place, the field, what was found and what was expected.
    """
    path = find_settings_file(workspace, config, start)
    document = {} if path is None else read_settings_file(path)
    section = document.get("store") or {}
    if over and isinstance(section, dict):
        section = {**section, **over}
    places = [*([str(path)] if path else []), *(["feature_store.yaml"] if over else [])]
    where = ", ".join(places) or "environment (UIC_*)"
    return validated(_StoreSection, {"store": section}, where).store


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{field}: no such setting; `uic config show` lists them"
    # A section as a whole holds its secrets, too.
    hidden = isinstance(first["input"], dict) or str(first["loc"][-1]) in _SECRETS
    if hidden and first["type"] == "string_type":
        return f"{field}: {first['msg']}; put it in quotes"
    return f"{field}: {first['msg']}" + ("" if hidden else f" (found {first['input']!r})")
