"""Writes tables of features, and the `features.yaml` that names them.

A table is replaced in one rename. A file that a person has written is never changed: what it lacks
comes back as text, to be put in by hand.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from uic.models.errors import BadInputError
from uic.models.features.definition import Feature, FeatureSet, Owner
from uic.models.features.feature_file import load_features
from uic.models.published import replacement, write_bytes_atomically

ID_COLUMN: Final[Mapping[Owner, str]] = {Owner.USER: "user_id", Owner.ITEM: "item_id"}
VALID_FROM: Final = "valid_from"
# Beside `features.yaml`, whose paths begin at its folder.
FOLDER: Final = "features"
FEATURES_FILE: Final = "features.yaml"
_FILE: Final[Mapping[Owner, str]] = {Owner.USER: "users.parquet", Owner.ITEM: "items.parquet"}

Definitions = Mapping[Owner, Mapping[str, Feature]]


def table_path(workspace: Path, owner: Owner) -> Path:
    """Where the table of users or items is."""
    return workspace / FOLDER / _FILE[owner]


def write_table(path: Path, table: pa.Table) -> None:
    """Replace a table of features, in one rename.

    Raises:
        BadInputError: the folder cannot be written.
    """
    try:
        with replacement(path) as draft:
            pq.write_table(table, draft, compression="zstd")
    except OSError as error:
        msg = f"{path}: cannot be written ({error.strerror or error}); make room, and run it again"
        raise BadInputError(msg) from error


def name_features(path: Path, definitions: Definitions, dated: Mapping[Owner, bool]) -> str | None:
    """Write `features.yaml` if there is none.

    Args:
        path: of the file.
        definitions: features by owner and name.
        dated: of each table that there is, whether its rows have a time from which they hold.

    Returns:
        What an existing file lacks, as text; None if it lacks nothing.

    Raises:
        FeatureFileError: the file that there is, is none.
        BadInputError: the folder cannot be written.
    """
    if not path.exists():
        try:
            write_bytes_atomically(path, file_text(definitions, dated).encode())
        except OSError as error:
            msg = f"{path}: cannot be written ({error.strerror or error})"
            raise BadInputError(msg) from error
        return None
    there = load_features(path)
    missing = {
        owner: {name: one for name, one in features.items() if not _has(there, owner, name)}
        for owner, features in definitions.items()
    }
    missing = {owner: features for owner, features in missing.items() if features}
    if not missing:
        return None
    has_source = {Owner.USER: there.sources.user, Owner.ITEM: there.sources.item}
    new = {owner: with_time for owner, with_time in dated.items() if has_source[owner] is None}
    return _body(missing, new)


def file_text(definitions: Definitions, dated: Mapping[Owner, bool]) -> str:
    """A whole `features.yaml`, a line a feature."""
    return f"version: 1\n{_body(definitions, dated)}"


def _body(definitions: Definitions, dated: Mapping[Owner, bool]) -> str:
    lines = ["sources:"] if dated else []
    for owner, with_time in dated.items():
        source = {"file": f"{FOLDER}/{_FILE[owner]}", "id": ID_COLUMN[owner]}
        source |= {"valid_from": VALID_FROM} if with_time else {}
        lines.append(f"  {owner.value}: {_flow(source)}")
    for owner, features in definitions.items():
        lines.append(f"{owner.value}:")
        for name, feature in features.items():
            written = feature.model_dump(mode="json", exclude_unset=True)
            lines.append(f"  {name}: {_flow(written)}")
    return "\n".join(lines) + "\n"


def _flow(value: dict[str, Any]) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000)
    return str(text).strip()


def _has(there: FeatureSet, owner: Owner, name: str) -> bool:
    # The log has a column of events under the feature's name, whatever field it came in.
    event = owner is Owner.EVENT
    return any(
        one.owner is owner and name in ((one.name,) if event else (one.name, one.column))
        for one in there
    )
