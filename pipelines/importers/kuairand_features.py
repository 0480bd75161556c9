"""Features of KuaiRand: what its tables say of users and videos, and the context of impressions.

What is known only after a video was shown (play time, likes, long views) is none of them. Left out
are also columns of one value and those that say what another says (ranges of counts).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pyarrow as pa

from uic.models.errors import BadInputError
from uic.models.features.definition import Feature, Kind, Owner, Scale
from uic.pipelines.importers.parquet import is_any, open_parquet
from uic.pipelines.importers.source import OwnerRows, readable

_CATEGORY: Final = Feature(type=Kind.CATEGORICAL)
_COUNT: Final = Feature(type=Kind.NUMBER, scale=Scale.LOG)
_BUCKETS: Final = Feature(type=Kind.NUMBER, scale=Scale.BUCKETS)
# Feature by name: its column and what it is.
_USER: Final[Mapping[str, tuple[str, Feature]]] = {
    "active_degree": ("user_active_degree", _CATEGORY),
    "live_streamer": ("is_live_streamer", _CATEGORY),
    "video_author": ("is_video_author", _CATEGORY),
    "follows": ("follow_user_num", _COUNT),
    "fans": ("fans_user_num", _COUNT),
    "friends": ("friend_user_num", _COUNT),
    "register_days": ("register_days", _BUCKETS),
    **{f"onehot_feat{number}": (f"onehot_feat{number}", _CATEGORY) for number in range(18)},
}
_ITEM: Final[Mapping[str, tuple[str, Feature]]] = {
    "author": ("author_id", _CATEGORY),
    "video_type": ("video_type", _CATEGORY),
    "upload_type": ("upload_type", _CATEGORY),
    "music": ("music_id", _CATEGORY),
    "music_type": ("music_type", _CATEGORY),
    "duration": ("video_duration", _BUCKETS),
}
CONTEXT: Final[Mapping[str, Feature]] = {"tab": _CATEGORY, "is_rand": _CATEGORY}


def static_features(users: Path, videos: Path) -> tuple[OwnerRows, ...]:
    """Features of the tables, of those columns that they have.

    Args:
        users: `user_features.parquet`; may be missing.
        videos: `videos.parquet`.

    Raises:
        BadInputError: a table cannot be read, or has no ids.
    """
    found = [_of(Owner.ITEM, videos, "video_id", _ITEM)]
    if users.is_file():
        found.append(_of(Owner.USER, users, "user_id", _USER))
    return tuple(rows for rows in found if rows.definitions)


def context_features(impressions: pa.Table) -> tuple[OwnerRows, ...]:
    """Features of the context, of those columns that the impressions have."""
    names = [name for name in CONTEXT if name in impressions.column_names]
    if not names:
        return ()
    return (OwnerRows(Owner.CONTEXT, impressions.select(names), CONTEXT),)


def _of(
    owner: Owner, path: Path, id_column: str, features: Mapping[str, tuple[str, Feature]]
) -> OwnerRows:
    file = open_parquet(path, {id_column: is_any})
    present = {
        name: (column, feature)
        for name, (column, feature) in features.items()
        if column in file.schema_arrow.names
    }
    with readable(path):
        table = file.read(columns=[id_column, *(column for column, _ in present.values())])
    table = table.filter(table.column(id_column).is_valid())
    if not pa.types.is_integer(table.column(id_column).type):
        msg = f"{path}: column {id_column} is {table.column(id_column).type}, expected an integer"
        raise BadInputError(msg)
    columns = {name: table.column(column) for name, (column, _) in present.items()}
    ids = table.column(id_column).cast(pa.int64())
    definitions = {name: feature for name, (_, feature) in present.items()}
    return OwnerRows(owner, pa.table({"id": ids, **columns}), definitions)
