"""`uic config`: the effective settings, which is also their manual."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
import yaml
from pydantic import BaseModel, SecretStr

from uic.jobs.commands.options import takes_workspace
from uic.jobs.config.console import ERR, OUT
from uic.jobs.workspace.workspace import Workspace
from uic.models.settings import is_advanced

app = typer.Typer(no_args_is_help=True, help="Show the settings in force.")


@app.command()
@takes_workspace
def show(
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="Also advanced settings that are at their defaults.")
    ] = False,
    workspace: Workspace,
) -> None:
    """Print every setting with its value, unit and range, as YAML that can be edited."""
    source = workspace.context.config_path or "defaults (no uic.yaml found)"
    OUT.print(f"# from {source}; environment UIC_SECTION__FIELD wins", markup=False)
    for line in yaml_lines(workspace.config, 0, everything=everything):
        OUT.print(line, markup=False)
    if not everything:
        ERR.print("left out: advanced settings at their defaults; --all prints them", markup=False)


def yaml_lines(section: BaseModel, depth: int, *, everything: bool) -> Iterator[str]:
    """The fields of a section as commented YAML.

    Args:
        section: of the settings, or all of them.
        depth: of indentation.
        everything: also advanced fields that have their default value.
    """
    indent = "  " * depth
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield ""
            yield f"{indent}{name}:  # {(type(value).__doc__ or '').splitlines()[0]}"
            yield from yaml_lines(value, depth + 1, everything=everything)
            continue
        if is_advanced(field) and not everything and value == field.get_default():
            continue
        yield f"{indent}# {field.description}"
        if isinstance(value, SecretStr):  # as a line that can be read back, and says nothing
            yield f"{indent}# {name}: (set, not shown)"
            continue
        yield f"{indent}{name}: {_scalar(value)}"


def _scalar(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_scalar(entry) for entry in value) + "]"
    text = str(value)
    return json.dumps(text) if isinstance(value, (str, Path)) and not _is_plain(text) else text


def _is_plain(text: str) -> bool:
    """Whether YAML reads the text as itself without quotes, also within a list."""
    try:
        return bool(yaml.safe_load(f"[{text}]") == [text])
    except yaml.YAMLError:
        return False
