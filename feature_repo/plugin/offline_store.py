"""Feast's file store, in which memories are read as of the time of each row.

The source that Feast knows, `memories/current`, is one cut. Feast's own store would drop every row
before it without a word. Here `get_historical_features` reads all cuts of the live generation that
are kept, and a row of a user who had no memory by then stays, with a null.

A cut is a day's; a service answers with memories a second old. Rows get the last cut before their
time, which is up to a day older than what was served. Exact parts are told as they were by
`uic.pipelines.state.feast_store`, the class that `feature_store.yaml` names.
"""

import copy
import logging
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from dask.delayed import delayed
from feast import FeatureView, FileSource, RepoConfig
from feast.infra.offline_stores.dask import DaskOfflineStore, DaskOfflineStoreConfig
from feast.infra.offline_stores.offline_store import RetrievalJob

from uic.feature_repo.plugin.config import PackedStoreConfig
from uic.feature_repo.plugin.packed_view import is_packed
from uic.feature_repo.snapshots.snapshots import Snapshot
from uic.feature_repo.store.errors import StoreError
from uic.feature_repo.store.layout import MEMORY_KEY_NAME
from uic.feature_repo.store.opened import open_memories
from uic.models.published import MANIFEST_NAME

LOG = logging.getLogger(__name__)
_ROW = "uic_row"
_TIME = "event_timestamp"


class UicOfflineStoreConfig(DaskOfflineStoreConfig):  # type: ignore[misc] # Feast has no types
    """Feast finds it by the store's name plus `Config`; for a file that names this class."""

    type: Literal["uic.feature_repo.plugin.offline_store.UicOfflineStore"] = (
        "uic.feature_repo.plugin.offline_store.UicOfflineStore"
    )


class UicOfflineStore(DaskOfflineStore):  # type: ignore[misc] # Feast has no types
    """Feast's file store; see the module."""

    @staticmethod
    def get_historical_features(  # noqa: PLR0917 - Feast's signature
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: Any,
        registry: Any,
        project: str,
        full_feature_names: bool = False,  # noqa: FBT001, FBT002 - Feast's signature
        **options: Any,
    ) -> RetrievalJob:
        """As Feast's, with every cut of memories, and with every row that was asked for."""
        live = _live_generation(config)
        sources = [_source_of_all_cuts(view, live) for view in feature_views]
        views = [
            view if source is None else _with_source(view, source)
            for view, source in zip(feature_views, sources, strict=True)
        ]
        rest = (registry, project, full_feature_names)
        ask = DaskOfflineStore.get_historical_features
        if entity_df is None or not any(sources):
            return ask(config, views, feature_refs, entity_df, *rest, **options)
        rows = entity_df.compute() if hasattr(entity_df, "compute") else entity_df
        numbered = rows.assign(**{_ROW: range(len(rows))})
        job = ask(config, views, feature_refs, numbered, *rest, **options)
        job.metadata.keys.remove(_ROW)
        evaluate = job.evaluation_function
        job.evaluation_function = lambda: delayed(_every_row(rows, evaluate().compute()))
        return job


def time_column(rows: pd.DataFrame) -> str:
    """The column that Feast takes for the time of a row."""
    if _TIME in rows.columns:
        return _TIME
    return str(rows.select_dtypes(include=["datetime", "datetimetz"]).columns[0])


def _every_row(rows: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """The rows asked for, in their order, with the features that were found for them."""
    found = found.set_index(_ROW)
    features = found[[name for name in found.columns if name not in rows.columns]]
    missing = len(rows) - len(features)
    if missing:
        LOG.warning(
            "%d of %d rows are of users without a memory in a snapshot before their time: null; "
            "memories.snapshots_kept says how far back snapshots go",
            missing,
            len(rows),
        )
    whole = rows.reset_index(drop=True)
    time = time_column(whole)
    whole[time] = pd.to_datetime(whole[time], utc=True)
    whole = whole.join(features)
    for name in features.select_dtypes(include=["object"]).columns:
        # A hole that pandas makes is a NaN, and decoders know None.
        whole[name] = whole[name].astype(object).where(whole[name].notna(), None)
    return whole


def _live_generation(config: RepoConfig) -> int | None:
    """The generation that readers read; None where the store does not answer or has none."""
    online = config.online_store
    if not isinstance(online, PackedStoreConfig):
        return None
    try:
        with open_memories(online.settings, online.workspace) as store:
            return store.generations.live()
    except StoreError:
        return None


def _source_of_all_cuts(view: FeatureView, live: int | None) -> FileSource | None:
    """All snapshots of the live generation, or of the one that was built last.

    What was built last may be a trial that is never loaded; what is live is what was served.
    """
    if not is_packed(view) or view.tags.get("key_name") != MEMORY_KEY_NAME:
        return None
    folder = Path(view.batch_source.path).parent.resolve()
    if not (folder / MANIFEST_NAME).exists():
        return None
    generation = Snapshot.open(folder).path.parent
    served = None if live is None else generation.parent / f"generation={live:03d}"
    if served is not None and any(served.glob(f"dt=*/{MANIFEST_NAME}")):
        generation = served
    elif served is not None:
        LOG.warning("generation %d is live and has no snapshot here; reading %s", live, generation)
    return FileSource(
        name=view.batch_source.name,
        path=str(generation / "dt=*" / "*.parquet"),
        timestamp_field=view.batch_source.timestamp_field,
    )


def _with_source(view: FeatureView, source: FileSource) -> FeatureView:
    changed = copy.copy(view)
    changed.batch_source = source
    return changed
