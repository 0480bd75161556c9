"""Old item versions go; what is read, and what one may go back to, stays."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uic.feature_repo.snapshots.item_images import (
    ITEM_IMAGES_KIND,
    ITEM_IMAGES_SCHEMA_VERSION,
    list_item_images,
)
from uic.feature_repo.snapshots.published_values import point_current_to
from uic.models.published import publish_manifest
from uic.pipelines.images.prune import prune_item_images


def publish(workspace: Path, version: int, model: str = "dicm") -> Path:
    path = workspace / "item_images" / f"version={version:03d}"
    path.mkdir(parents=True)
    facts = {
        "kind": ITEM_IMAGES_KIND,
        "schema_version": ITEM_IMAGES_SCHEMA_VERSION,
        "version": version,
        "bundle": f"{model}/{version:04d}",
        "files": [],
    }
    publish_manifest(path, facts)
    return path


def left(workspace: Path) -> list[int]:
    return [found.version for found in list_item_images(workspace)]


@pytest.mark.parametrize(
    ("read", "kept", "stays"),
    [
        ({6}, 2, [4, 5, 6]),
        ({6}, 0, [6]),
        ({4}, 2, [2, 3, 4, 5, 6]),  # 5 and 6 are on their way
        ({1, 6}, 2, [1, 4, 5, 6]),
        (set(), 1, [5, 6]),
        ({99}, 1, [5, 6]),
        ({6}, 9, [1, 2, 3, 4, 5, 6]),
    ],
)
def test_what_is_read_what_is_newer_and_some_before_stay(tmp_path: Path, read, kept, stays):
    for version in range(1, 7):
        publish(tmp_path, version)
    removed = prune_item_images(tmp_path, read, kept)
    assert left(tmp_path) == stays
    assert [found.version for found in removed] == sorted(set(range(1, 7)) - set(stays))
    assert prune_item_images(tmp_path, read, kept) == []


def test_models_are_pruned_one_by_one_and_the_source_of_feast_stays(tmp_path: Path):
    for version in range(1, 9):
        path = publish(tmp_path, version, "prerank" if version % 2 else "dicm")
        if version == 1:
            point_current_to(path)
    prune_item_images(tmp_path, {7, 8}, 1)
    assert left(tmp_path) == [1, 5, 6, 7, 8]


@given(
    models=st.lists(st.sampled_from(["dicm", "prerank"]), min_size=1, max_size=12),
    kept=st.integers(0, 4),
    read=st.sets(st.integers(1, 14)),
)
@settings(max_examples=25, deadline=None)
def test_nothing_that_is_read_is_ever_removed(tmp_path_factory, models, kept, read):
    workspace = tmp_path_factory.mktemp("prune")
    for version, model in enumerate(models, start=1):
        publish(workspace, version, model)
    before = set(left(workspace))
    prune_item_images(workspace, read, kept)
    after = set(left(workspace))
    assert before & read <= after
    for model in set(models):
        of_model = {at for at, name in enumerate(models, start=1) if name == model}
        newest_read = max(of_model & read, default=max(of_model))
        earlier = sorted(at for at in of_model if at < newest_read)
        back = set(earlier[len(earlier) - kept :] if kept < len(earlier) else earlier)
        newer = {at for at in of_model if at >= newest_read}
        assert of_model & after == newer | back | of_model & read
    shutil.rmtree(workspace)
