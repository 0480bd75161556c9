"""Users' features in the store: the view `user_features`, read with the memory in one MGET.

A value is a row (`uic.models.features.rows`) behind the header of a vector, whose position is when
it was written: of two writes the later one stays. `uic features load` writes the rows that hold
now, and publishes them in `<workspace>/user_features/`:

| file | holds |
|---|---|
| `definitions/<fingerprint>.json` | what rows of a fingerprint are made of, for readers |
| `current/rows.parquet` | the source of the view: what `feast materialize` writes |
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from uic.models.errors import BadInputError
from uic.models.features.definition import FeatureSet
from uic.models.features.rows import RowLayout
from uic.models.published import write_json_atomically

PUBLISHED: Final = "user_features"
# `FeatureStore.push(USER_ROWS_PUSH, user_rows_frame(...))`, as `uic features push` does.
USER_ROWS_PUSH: Final = "user_feature_pushes"


def definitions_folder(workspace: Path) -> Path:
    """Of what rows are made of."""
    return workspace / PUBLISHED / "definitions"


def rows_file(workspace: Path) -> Path:
    """What was loaded last."""
    return workspace / PUBLISHED / "current" / "rows.parquet"


def publish_layout(workspace: Path, layout: RowLayout) -> None:
    """Tell readers of a workspace what rows are made of, before the first one is written."""
    path = definitions_folder(workspace) / f"{layout.fingerprint.decode()}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        write_json_atomically(path, {"features": FeatureSet(layout.features).to_json()})


def layouts_of(workspace: Path) -> Mapping[bytes, RowLayout]:
    """The layouts that were published, by fingerprint.

    Raises:
        BadInputError: a file is damaged.
    """
    layouts = {}
    for path in sorted(definitions_folder(workspace).glob("*.json")):
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))["features"]
            layout = RowLayout(FeatureSet.from_json(entries).features)
        except (ValueError, KeyError, TypeError) as error:
            msg = f"{path}: not what `uic features load` writes ({error}); remove it and load again"
            raise BadInputError(msg) from error
        layouts[layout.fingerprint] = layout
    return layouts
