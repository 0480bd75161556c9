"""The Feast repository opened by `uic`: the same yaml, with this workspace's folders and Redis."""

import contextlib
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from feast import FeatureStore, RepoConfig

from uic.feature_repo.decode import WORKSPACE_VARIABLE
from uic.feature_repo.features import DEFINITIONS, feature_views, state_views
from uic.feature_repo.snapshots.item_images import ItemImages
from uic.feature_repo.snapshots.published_values import point_live_to
from uic.feature_repo.snapshots.snapshots import Snapshot
from uic.feature_repo.store.errors import StoreError
from uic.feature_repo.store.item_vectors import ITEM_VIEW
from uic.feature_repo.store.layout import MEMORY_VIEW
from uic.feature_repo.store.opened import open_memories
from uic.feature_repo.store.settings import StoreSettings

REPOSITORY = Path(__file__).resolve().parents[1]


def repo_config(settings: StoreSettings, workspace: Path) -> RepoConfig:
    """`feature_store.yaml` for a workspace: registry and sources there, Redis by the settings."""
    text = (REPOSITORY / "feature_store.yaml").read_text(encoding="utf-8")
    document: dict[str, Any] = yaml.safe_load(text)
    registry = workspace.resolve() / "feast.db"
    registry.parent.mkdir(parents=True, exist_ok=True)
    document["project"] = settings.project
    document["registry"]["path"] = str(registry)
    document["online_store"] |= {"settings": settings, "workspace": workspace.resolve()}
    return RepoConfig(**document, repo_path=REPOSITORY)


def open_feature_store(settings: StoreSettings, workspace: Path) -> FeatureStore:
    """Feast's own API on a workspace; `apply_definitions` must have run once."""
    return FeatureStore(config=repo_config(settings, workspace))


def apply_definitions(store: FeatureStore, workspace: Path) -> None:
    """What `feast apply` does: put the definitions into the workspace's registry."""
    root = workspace.resolve()
    _note_live(store.config.online_store.settings, root)
    with _decoders_in(root):
        store.apply([*DEFINITIONS, *feature_views(root), *state_views(root)])


def _note_live(settings: StoreSettings, root: Path) -> None:
    """Views of parts have the names of the live generation: which one that is, the store knows.

    A store that does not answer, or is empty, leaves what was noted at the last switch.
    """
    with contextlib.suppress(StoreError), open_memories(settings, root) as opened:
        point_live_to(root / "memories", opened.generations.live())


@contextlib.contextmanager
def _decoders_in(root: Path) -> Iterator[None]:
    """Feast runs the decoders when they are applied; they find a workspace in the environment."""
    before = os.environ.get(WORKSPACE_VARIABLE)
    os.environ[WORKSPACE_VARIABLE] = str(root)
    try:
        yield
    finally:
        if before is None:
            del os.environ[WORKSPACE_VARIABLE]
        else:
            os.environ[WORKSPACE_VARIABLE] = before


def materialize_memories(settings: StoreSettings, workspace: Path, snapshot: Snapshot) -> None:
    """Load a snapshot as `feast materialize` does; `memories/current` must point to it."""
    _materialize(settings, workspace, MEMORY_VIEW, snapshot.manifest["cut_ms"])


def materialize_item_images(settings: StoreSettings, workspace: Path, images: ItemImages) -> None:
    """Load an item version as `feast materialize` does; `item_images/current` must point to it."""
    _materialize(settings, workspace, ITEM_VIEW, images.manifest["cut_ms"])


def _materialize(settings: StoreSettings, workspace: Path, view: str, cut_ms: int) -> None:
    store = open_feature_store(settings, workspace)
    apply_definitions(store, workspace)
    cut = datetime.fromtimestamp(cut_ms / 1000, UTC)
    with contextlib.redirect_stdout(sys.stderr):  # Feast prints its progress
        store.materialize(cut - timedelta(seconds=1), cut, feature_views=[view])
