"""The JSON documents of the log: read, and refused if they are of another version."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from uic.models.errors import BadInputError, ManifestError

LOG_SCHEMA_VERSION: Final = 1


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object of a file.

    Raises:
        BadInputError: it is none.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        msg = f"{path}: cannot be read as JSON ({error}); restore it from a backup"
        raise BadInputError(msg) from error
    if not isinstance(document, dict):
        msg = f"{path}: found {type(document).__name__}, expected a JSON object"
        raise ManifestError(msg)
    return document


def check_version(document: Mapping[str, Any], path: Path) -> None:
    """Refuse a document of another version.

    Raises:
        ManifestError: names both.
    """
    if document.get("schema_version") != LOG_SCHEMA_VERSION:
        msg = (
            f"{path}: schema_version is {document.get('schema_version')!r}, "
            f"this code reads {LOG_SCHEMA_VERSION}; make the log again with this version"
        )
        raise ManifestError(msg)
