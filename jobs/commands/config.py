"""`uic config`: the effective settings, which is also their manual."""

import json
from collections.abc import Iterator
from pathlib import Path

import typer
import yaml
from pydantic import BaseModel

from uic.jobs.commands.options import ConfigOption, WorkspaceOption
from uic.jobs.config.console import OUT
from uic.jobs.config.context import DEFAULT_WORKSPACE, open_context

app = typer.Typer(no_args_is_help=True, help="Show the settings in force.")


def register(root: typer.Typer) -> None:
    """Add this group to the command line."""
    root.add_typer(app, name="config")


@app.command()
def show(workspace: WorkspaceOption = DEFAULT_WORKSPACE, config: ConfigOption = None) -> None:
    """Print every setting with its value, unit and range, as YAML that can be edited."""
    context = open_context(workspace, config)
    source = context.config_path or "defaults (no uic.yaml found)"
    OUT.print(f"# from {source}; environment UIC_SECTION__FIELD wins", markup=False)
    for line in yaml_lines(context.config, 0):
        OUT.print(line, markup=False)


def yaml_lines(section: BaseModel, depth: int) -> Iterator[str]:
    """The fields of a section as commented YAML."""
    indent = "  " * depth
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield ""
            yield f"{indent}{name}:  # {(type(value).__doc__ or '').splitlines()[0]}"
            yield from yaml_lines(value, depth + 1)
            continue
        yield f"{indent}# {field.description}"
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
