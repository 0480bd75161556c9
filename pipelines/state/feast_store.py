"""Feast's offline store of a workspace: what records' parts said, as of the time of each row.

`user_state` and `candidate_state` are computed from a record when it is read. In the past there are
records of a day's end alone, so `get_historical_features` folds the log up to each row, as
`uic features asof` does, and gives the same numbers: the parts and what is left out are those of
the live generation, a row sees the events whose log time is earlier than its own, strictly.
`feature_store.yaml` names the class; Feast finds it, and its settings, by the name.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from dask.delayed import delayed
from feast import FeatureView, RepoConfig
from feast.infra.offline_stores.dask import DaskOfflineStoreConfig
from feast.infra.offline_stores.offline_store import RetrievalJob
from feast.on_demand_feature_view import OnDemandFeatureView

from uic.feature_repo.decode import CANDIDATE, workspace
from uic.feature_repo.plugin.config import PackedStoreConfig
from uic.feature_repo.plugin.offline_store import UicOfflineStore, time_column
from uic.feature_repo.snapshots.published_values import CURRENT, snapshot_in_force
from uic.feature_repo.snapshots.snapshots import Snapshot
from uic.models.bundles.bundle import load_bundle
from uic.models.bundles.shelf import BundleShelf
from uic.models.errors import BadInputError
from uic.models.features.event_columns import EventColumn
from uic.models.state.definition import StateDefinition
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.memories.exclude import Exclusion
from uic.pipelines.state.asof import AsOfRequest, asked_of, folded_rows
from uic.pipelines.state.rows import CATEGORY, ITEM, TIME, USER

_USER_VIEW, _CANDIDATE_VIEW = "user_state", "candidate_state"
_NAMED: Final = "event_timestamp"


class StateHistoryError(BadInputError):
    """The past of records' parts cannot be told to Feast."""


class RecordOfflineStoreConfig(DaskOfflineStoreConfig):  # type: ignore[misc] # Feast has no types
    """Feast finds it by the store's name plus `Config`."""

    type: Literal["uic.pipelines.state.feast_store.RecordOfflineStore"] = (
        "uic.pipelines.state.feast_store.RecordOfflineStore"
    )


class RecordOfflineStore(UicOfflineStore):
    """Feast's file store with records of the past; see the module."""

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
        """As `UicOfflineStore`'s, with the features of parts as of each row."""
        job = UicOfflineStore.get_historical_features(
            config, feature_views, feature_refs, entity_df, registry, project,
            full_feature_names, **options,
        )  # fmt: skip
        by_parts = {_USER_VIEW, _CANDIDATE_VIEW}
        views = [view for view in job.on_demand_feature_views if view.name in by_parts]
        if not views:
            return job
        if entity_df is None:
            msg = f"{views[0].name}: needs rows, entity_df with {USER} and {_NAMED}"
            raise StateHistoryError(msg)
        others = [view for view in job.on_demand_feature_views if view.name not in by_parts]
        job._on_demand_feature_views = others  # noqa: SLF001 - Feast would decode the last cut
        wanted = _wanted(views, feature_refs, full_feature_names=full_feature_names)
        evaluate = job.evaluation_function
        job.evaluation_function = lambda: delayed(
            _told(evaluate().compute(), _workspace_of(config), wanted)
        )
        return job


def _wanted(
    views: Sequence[OnDemandFeatureView], references: Sequence[str], *, full_feature_names: bool
) -> dict[str, tuple[str, bool]]:
    """Columns of the answer: the feature of each, and whether it is a candidate's."""
    wanted = {}
    for view in views:
        name = view.projection.name_to_use()
        for reference in references:
            of, _, feature = reference.partition(":")
            if of == name:
                column = f"{name}__{feature}" if full_feature_names else feature
                wanted[column] = (feature, view.name == _CANDIDATE_VIEW)
    return wanted


def _workspace_of(config: RepoConfig) -> Path:
    online = config.online_store
    return online.workspace if isinstance(online, PackedStoreConfig) else workspace()


def _told(found: pd.DataFrame, root: Path, wanted: dict[str, tuple[str, bool]]) -> pd.DataFrame:
    """Rows with the features of parts beside what else was found: float64, NaN for nothing."""
    request = _request(root)
    columns = {USER: pa.array(found[USER]), TIME: pa.array(found[time_column(found)])}
    known = np.ones(len(found), np.bool_)
    if any(of_candidate for _, of_candidate in wanted.values()):
        known = found[list(CANDIDATE)].notna().all(axis=1).to_numpy()
        for name, candidate in zip((ITEM, CATEGORY), CANDIDATE, strict=True):
            columns[name] = pa.array(found[candidate].where(known, 0).astype(np.int64))
    names = {one.name.replace(".", "_"): one.name for one in request.state.described}
    with tempfile.TemporaryDirectory(dir=root, prefix=".asof-") as scratch:
        rows = asked_of(request, pa.table(columns), "entity_df")
        told = folded_rows(request, rows, Path(scratch))
    for column, (feature, of_candidate) in wanted.items():
        if feature not in names:
            msg = (
                f"{feature}: the parts of the live generation have no such feature; "
                "apply the definitions again"
            )
            raise StateHistoryError(msg)
        values = told.column(names[feature]).to_numpy().astype(np.float64)
        found[column] = np.where(known, values, np.nan) if of_candidate else values
    return found


def _request(root: Path) -> AsOfRequest:
    """The log, parts and exclusions of the records that are served."""
    snapshot = Snapshot.open(snapshot_in_force(root / "memories") or root / "memories" / CURRENT)
    parts = snapshot.manifest.get("parts")
    if parts is None:
        msg = f"{snapshot.path}: its records have no exact parts; apply the definitions again"
        raise StateHistoryError(msg)
    state = StateDefinition.of_document(parts, f"{snapshot.path}: parts")
    return AsOfRequest(
        log=root / "log",
        state=state,
        columns=_columns(root, snapshot) if state.reads else (),
        time_zone=EventLog(root / "log").time_zone() or "UTC",
        exclusion=Exclusion.from_json(snapshot.manifest["exclude"]),
    )


def _columns(root: Path, snapshot: Snapshot) -> tuple[EventColumn, ...]:
    """Columns of events that the snapshot's bundle reads."""
    bundle = load_bundle(BundleShelf(root / "bundles").find(str(snapshot.manifest["bundle"])))
    if bundle.hash8 != snapshot.bundle:
        msg = (
            f"{snapshot.path}: built with bundle {snapshot.bundle.hex()}, "
            f"{snapshot.manifest['bundle']} is {bundle.hash8.hex()} now; build it again"
        )
        raise StateHistoryError(msg)
    return tuple(bundle.event_columns)
