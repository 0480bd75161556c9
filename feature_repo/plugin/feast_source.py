"""A feature view of Feast as a source of `features.yaml`: its offline rows as a dated table.

    sources:
      user: {feast: user_stats, repo: ../feature_repo}

What the view's batch source has is read by Feast's offline store, whatever that is, and written as
a table beside `features.yaml`, which is joined as any other: a row holds from its event timestamp
on, and an impression sees the last one from before its time. The view's `ttl` does not count.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from feast import FeatureStore

from uic.feature_repo.plugin.repository import open_feature_store
from uic.feature_repo.store.settings import StoreSettings
from uic.feature_repo.store.tombstones import Tombstones
from uic.models.errors import BadInputError
from uic.models.features.definition import (
    FEAST_ID,
    FEAST_VALID_FROM,
    FeatureSet,
    FeatureSource,
    Owner,
)
from uic.models.features.tables import write_table

_SINCE: Final = datetime(1970, 1, 1, tzinfo=UTC)


class FeastSourceError(BadInputError):
    """A feature view that `features.yaml` names cannot be read."""


def pull_feast_sources(
    features: FeatureSet, settings: StoreSettings, workspace: Path
) -> dict[str, int]:
    """Write the tables of all sources that are feature views of Feast.

    Args:
        features: of a `features.yaml`.
        settings: of the workspace's store, whose registry counts where `repo` names none.
        workspace: of that registry; rows of users who were forgotten in it are left out.

    Returns:
        Rows by feature view.

    Raises:
        FeastSourceError: no such repository, view or feature, or what is behind them is away.
        BadInputError: the folder cannot be written.
    """
    pulled = {}
    for owner, source in ((Owner.USER, features.sources.user), (Owner.ITEM, features.sources.item)):
        columns = list(dict.fromkeys(named.column for named in features.of(owner)))
        if source is None or source.feast is None or not columns:
            continue
        table = _read(source, features.folder, columns, settings, workspace)
        if owner is Owner.USER:
            gone = pa.array(Tombstones(workspace).ids(), table.schema.field(FEAST_ID).type)
            table = table.filter(pa.compute.invert(pa.compute.is_in(table[FEAST_ID], gone)))
        path = features.folder / source.file
        path.parent.mkdir(parents=True, exist_ok=True)
        write_table(path, table)
        pulled[source.feast] = table.num_rows
    return pulled


def _read(
    source: FeatureSource,
    folder: Path,
    columns: Sequence[str],
    settings: StoreSettings,
    workspace: Path,
) -> pa.Table:
    where = f"feature view {source.feast}"
    try:
        if source.repo is None:
            store = open_feature_store(settings, workspace)
        else:
            store = FeatureStore(repo_path=str(folder / source.repo))
        return _pulled(store, source.feast or "", columns)
    except BadInputError:
        raise
    except Exception as error:  # Feast's providers and registries raise errors of any kind
        said = " ".join(str(error).split()) or type(error).__name__
        msg = f"{where}: Feast cannot read it ({said:.300}); see sources in features.yaml"
        raise FeastSourceError(msg) from error


def _pulled(store: Any, name: str, columns: Sequence[str]) -> pa.Table:
    view = store.get_feature_view(name)
    keys = [field.name for field in view.entity_columns]
    if len(keys) != 1:
        found = ", ".join(keys) or "none"
        msg = f"feature view {name}: has join keys {found}, expected one: the user or the item"
        raise FeastSourceError(msg)
    known = [field.name for field in view.features]
    lacking = [column for column in columns if column not in known]
    if lacking:
        msg = f"feature view {name}: has no feature {lacking[0]}; it has {', '.join(known)}"
        raise FeastSourceError(msg)
    source = view.batch_source
    named_there = {ours: theirs for theirs, ours in source.field_mapping.items()}
    read = [named_there.get(column, column) for column in (*keys, *columns)]
    job = store._get_provider().offline_store.pull_all_from_table_or_query(  # noqa: SLF001 - no public way
        config=store.config,
        data_source=source,
        join_key_columns=read[:1],
        feature_name_columns=read[1:],
        timestamp_field=source.timestamp_field,
        created_timestamp_column=source.created_timestamp_column or None,
        start_date=_SINCE,
        end_date=datetime.now(UTC) + timedelta(days=36_500),
    )
    table = job.to_arrow()
    times = table[source.timestamp_field].cast(pa.timestamp("us", "UTC"))
    rows = _last_of_each(table, read[0], times, source.created_timestamp_column)
    named = zip([FEAST_ID, *columns], read, strict=True)
    arrays = {ours: table[theirs].take(rows) for ours, theirs in named}
    return pa.table({**arrays, FEAST_VALID_FROM: times.take(rows)})


def _last_of_each(table: pa.Table, key: str, times: pa.ChunkedArray, created: str) -> pa.Array:
    """Of rows with one id and one time the one that was created last: Feast's own rule."""
    ids = table[key].to_numpy()
    moments = times.cast(pa.int64()).to_numpy()
    made = np.arange(len(ids))
    if created and created in table.column_names:
        made = table[created].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy()
    order = np.lexsort((made, moments, ids))
    ids, moments = ids[order], moments[order]
    last = np.append((ids[1:] != ids[:-1]) | (moments[1:] != moments[:-1]), [True] * bool(len(ids)))
    return pa.array(order[last.astype(np.bool_)])
