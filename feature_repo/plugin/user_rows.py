"""Users' features into the store: all rows that hold now, or one user's.

1. Publish what rows are made of, so that a reader knows it before it meets one.
2. Write the rows that differ from what is stored. A stored row that holds from later than the
   table's (it was pushed) stays.
3. Delete the rows of users whom the last load had, and the table has no more.
4. Publish what was loaded, the source of the view: `feast materialize` writes it again.

Each step can be repeated; a load that was killed is run again.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast.errors import PushSourceNotFoundException
from numpy.typing import NDArray

from uic.feature_repo.plugin.packed_view import with_vector_headers
from uic.feature_repo.plugin.repository import apply_definitions, open_feature_store
from uic.feature_repo.store.errors import typed_errors
from uic.feature_repo.store.layout import (
    NO_GENERATION,
    VECTOR,
    VECTOR_HEADER,
    VECTOR_MAGIC,
    ViewKeys,
)
from uic.feature_repo.store.opened import open_for_writing
from uic.feature_repo.store.packed import PackedStore
from uic.feature_repo.store.settings import StoreSettings
from uic.feature_repo.store.tombstones import Tombstones
from uic.feature_repo.user_features import USER_ROWS_PUSH, publish_layout, rows_file
from uic.models.errors import BadInputError
from uic.models.features.dated import ALWAYS, DatedTable
from uic.models.features.definition import FeatureSet, Owner
from uic.models.features.raw import RawValues, raw_column, raw_values
from uic.models.features.rows import RowLayout
from uic.models.published import replacement

ROWS: Final = pa.schema(
    [
        pa.field("user_id", pa.int64(), nullable=False),
        pa.field("event_timestamp", pa.timestamp("ms", tz="UTC"), nullable=False),
        pa.field("features", pa.binary(), nullable=False),
    ]
)
_CHUNK_USERS: Final = 20_000


@dataclass
class LoadedUsers:
    """What a load did.

    Attributes:
        users: with a row that holds now.
        written: whose row differed, or was not there.
        unchanged: whose row was stored already.
        newer: whose stored row holds from later: it stays.
        forgotten: who must not come back.
        deleted: who were in the last load, and are not in the table.
        damaged: under whose key something else lay; the table's row took its place.
    """

    users: int = 0
    written: int = 0
    unchanged: int = 0
    newer: int = 0
    forgotten: int = 0
    deleted: int = 0
    damaged: int = 0


def load_user_rows(
    settings: StoreSettings,
    workspace: Path,
    features: FeatureSet,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> LoadedUsers:
    """Write the rows of `sources.user` that hold now into the workspace's store.

    Args:
        settings: of the store.
        workspace: whose store, and where the rows are published.
        features: of `features.yaml`.
        progress: told users done, and how many there are.

    Raises:
        BadInputError: no feature of users, or the table is not what it has to be.
        StoreError: the store does not take it.
    """
    source, named = features.sources.user, features.of(Owner.USER)
    if source is None or not named:
        msg = f"{features.folder / 'features.yaml'}: has no features of users; nothing to load"
        raise BadInputError(msg)
    path = features.folder / source.file
    now_ms = time.time_ns() // 1_000_000
    written_ms = path.stat().st_mtime_ns // 1_000_000 if path.exists() else 0
    table = DatedTable.read(path, source, named)
    ids = np.unique(table.ids)
    at = table.as_of(ids, np.full(ids.size, now_ms + 1))
    ids, at = ids[at >= 0], at[at >= 0]
    values = {one.key: table.take(one, at) for one in named}
    # Of a table without times, what it says holds since it was written.
    since = np.where(table.valid_from_ms[at] == ALWAYS, written_ms, table.valid_from_ms[at])
    layout = RowLayout(named)
    rows = layout.pack(values, since)
    publish_layout(workspace, layout)  # step 1
    loaded = LoadedUsers(users=len(ids))
    kept = np.ones(len(ids), np.bool_)
    with open_for_writing(settings, workspace) as opened:
        # A store that was lost does not know who was forgotten.
        Tombstones(workspace).tell(opened.generations)
        store = _rows_of(opened.client, settings, str(opened.address))
        load = _Load(store, layout, now_ms, loaded)
        for start in range(0, len(ids), _CHUNK_USERS):  # step 2
            part = slice(start, start + _CHUNK_USERS)
            kept[part] = load.write(ids[part], rows[part])
            progress(min(start + _CHUNK_USERS, len(ids)), len(ids))
        gone = np.setdiff1d(_last_ids(workspace), ids)
        loaded.deleted = _delete(store, gone)  # step 3
    _publish(workspace, ids[kept], rows[kept], now_ms)  # step 4
    return loaded


def push_user_row(
    settings: StoreSettings,
    workspace: Path,
    features: FeatureSet,
    user_id: int,
    values: Mapping[str, Any],
) -> bool:
    """Write one user's features, as of now; what `values` does not name keeps its stored value.

    The row goes through Feast's own `push`.

    Args:
        settings: of the store.
        workspace: whose store.
        features: of `features.yaml`.
        user_id: whose.
        values: by name, as a request or a table would have them.

    Returns:
        Whether it landed: not for a forgotten user, or after a later write.

    Raises:
        BadInputError: a name is no feature of users, or a value is of another type.
        StoreError: the store does not take it.
    """
    named = features.of(Owner.USER)
    unknown = sorted(set(values) - {one.name for one in named})
    if unknown or not named:
        known = ", ".join(one.name for one in named) or "none"
        msg = f"user.{unknown[0] if unknown else '*'}: features.yaml has no such feature ({known})"
        raise BadInputError(msg)
    layout = RowLayout(named)
    publish_layout(workspace, layout)
    with open_for_writing(settings, workspace) as opened:
        Tombstones(workspace).tell(opened.generations)
        store = _rows_of(opened.client, settings, str(opened.address))
        (stored,), damaged = _stored(store, np.array([user_id]))
        if damaged[0]:
            _delete(store, np.array([user_id]))
        there = layout.read([stored]) if stored is not None and layout.is_row(stored) else None
        raw: dict[str, RawValues] = {}
        for one in named:
            if one.name in values or there is None:
                given = values.get(one.name)
                raw[one.key] = raw_values(one.feature, [given], f"user.{one.name}")
            else:
                raw[one.key] = there[one.key]
        now_ms = time.time_ns() // 1_000_000
        row = layout.pack(raw, np.array([now_ms]))
        _push(settings, workspace, _frame(np.array([user_id]), row, [now_ms]))
        (landed,), _ = _stored(store, np.array([user_id]))
        return landed == row.tobytes()


def user_rows_frame(workspace: Path, features: FeatureSet, given: pd.DataFrame) -> pd.DataFrame:
    """Rows of users as `FeatureStore.push` takes them: `store.push(USER_ROWS_PUSH, frame)`.

    Args:
        workspace: where readers learn what the rows are made of.
        features: of `features.yaml`.
        given: `user_id`, `event_timestamp` (with a zone, or UTC), and a column for each feature of
            users by its name; a feature without a column takes its default.

    Returns:
        `user_id`, `event_timestamp`, `features`.

    Raises:
        BadInputError: a column is no feature of users, or a value is of another type.
    """
    named = features.of(Owner.USER)
    unknown = sorted(
        set(given.columns) - {"user_id", "event_timestamp"} - {one.name for one in named}
    )
    if unknown or not named:
        known = ", ".join(one.name for one in named) or "none"
        msg = f"user.{unknown[0] if unknown else '*'}: features.yaml has no such feature ({known})"
        raise BadInputError(msg)
    raw = {}
    for one in named:
        values = given[one.name] if one.name in given.columns else [None] * len(given)
        raw[one.key] = raw_column(
            one.feature, pa.array(values, from_pandas=True), f"user.{one.name}"
        )
    times = pd.to_datetime(given["event_timestamp"], utc=True).dt.tz_localize(None)
    times_ms = times.to_numpy().astype("datetime64[ms]").astype(np.int64)
    layout = RowLayout(named)
    publish_layout(workspace, layout)
    ids = given["user_id"].to_numpy().astype(np.int64)
    return _frame(ids, layout.pack(raw, times_ms), times_ms.tolist())


def _frame(
    ids: NDArray[np.int64], rows: NDArray[np.uint8], times_ms: Sequence[int]
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "user_id": ids,
            "event_timestamp": pd.to_datetime(list(times_ms), unit="ms", utc=True),
            "features": [row.tobytes() for row in rows],
        }
    )


def _push(settings: StoreSettings, workspace: Path, frame: pd.DataFrame) -> None:
    """Push by Feast; into a registry that does not know the source, after an apply."""
    feast = open_feature_store(settings, workspace)
    try:
        feast.push(USER_ROWS_PUSH, frame)
    except PushSourceNotFoundException:
        apply_definitions(feast, workspace)
        feast.push(USER_ROWS_PUSH, frame, allow_registry_cache=False)


def _rows_of(client: Any, settings: StoreSettings, address: str) -> PackedStore:
    return PackedStore(
        client,
        ViewKeys.of_user_features(settings.project),
        address=address,
        layout=VECTOR,
        keys_per_script=settings.keys_per_script,
        keys_per_read=settings.keys_per_read,
    )


def _stored(
    store: PackedStore, ids: NDArray[np.int64]
) -> tuple[list[bytes | None], NDArray[np.bool_]]:
    """The rows that are stored, None for what is none of ours; and where there is such."""
    keys = store.keys.entities(NO_GENERATION, ids)
    values: list[bytes | None] = []
    with typed_errors(store.address):
        for at in range(0, len(keys), store.keys_per_read):
            values += store.client.mget(keys[at : at + store.keys_per_read])
    rows = [
        value[VECTOR_HEADER.itemsize :] if value and value.startswith(VECTOR.start) else None
        for value in values
    ]
    # Of another version than ours a newer `uic` may know more.
    whole = len(VECTOR.start)
    damaged = [
        value is not None and (len(value) < whole or not value.startswith(VECTOR_MAGIC))
        for value in values
    ]
    return rows, np.array(damaged, np.bool_)


@dataclass(frozen=True)
class _Load:
    """One load: where rows go, what they are made of, their position, and what has been done."""

    store: PackedStore
    layout: RowLayout
    now_ms: int
    loaded: LoadedUsers

    def write(self, ids: NDArray[np.int64], rows: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Write rows that differ; (users,): whose row is now the table's."""
        layout, loaded = self.layout, self.loaded
        stored, damaged = _stored(self.store, ids)
        if damaged.any():  # a write would refuse them, and with them all others
            loaded.damaged += _delete(self.store, ids[damaged])
        new = rows.view(layout.dtype).reshape(-1)
        differs = np.ones(len(ids), np.bool_)
        newer = np.zeros(len(ids), np.bool_)
        ours = [at for at, row in enumerate(stored) if row is not None and layout.is_row(row)]
        if ours:
            old = layout.read([stored[at] or b"" for at in ours])
            mine = new[ours]
            same = np.ones(len(ours), np.bool_)
            for one in layout.features:
                # As bytes: two NaN are the same value.
                before, after = (_as_bytes(values[one.key]) for values in (old, mine))
                same &= (before == after).all(axis=1)
            differs[ours] = ~same
            newer[ours] = ~same & (old["valid_from_ms"] > mine["valid_from_ms"])
        chosen = differs & ~newer
        landed = np.ones(len(ids), np.bool_)
        if chosen.any():
            values = with_vector_headers(rows[chosen], [self.now_ms] * int(chosen.sum()))
            landed[chosen] = self.store.write(NO_GENERATION, ids[chosen], values)
        loaded.unchanged += int((~differs).sum())
        loaded.newer += int(newer.sum())
        loaded.written += int((chosen & landed).sum())
        loaded.forgotten += int((~landed).sum())
        return landed & ~newer


def _as_bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """(n, …) values as (n, bytes)."""
    return np.frombuffer(values.tobytes(), np.uint8).reshape(len(values), -1)


def _delete(store: PackedStore, ids: NDArray[np.int64]) -> int:
    keys = store.keys.entities(NO_GENERATION, ids)
    with typed_errors(store.address):
        steps = range(0, len(keys), store.keys_per_read)
        return sum(int(store.client.unlink(*keys[at : at + store.keys_per_read])) for at in steps)


def _last_ids(workspace: Path) -> NDArray[np.int64]:
    path = rows_file(workspace)
    if not path.exists():
        return np.zeros(0, np.int64)
    return np.asarray(pq.read_table(path, columns=["user_id"])["user_id"].to_numpy())


def _publish(workspace: Path, ids: NDArray[np.int64], rows: NDArray[np.uint8], now_ms: int) -> None:
    path = rows_file(workspace)
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = [
        pa.array(ids),
        pa.array(np.full(len(ids), now_ms)).cast(pa.timestamp("ms", tz="UTC")),
        pa.array([row.tobytes() for row in rows], pa.binary()),
    ]
    with replacement(path) as draft:
        pq.write_table(pa.Table.from_arrays(columns, schema=ROWS), draft, compression="zstd")
