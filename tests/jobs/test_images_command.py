"""`uic images`, from photographs to vectors in the store, as a person runs it."""

import importlib.util
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.pipelines.images.pictures import encoded, gradient
from uic.feature_repo.snapshots.item_images import list_item_images
from uic.feature_repo.store.connection import STORE_FOLDER, connect, resolve_address
from uic.feature_repo.store.errors import GenerationStateError
from uic.feature_repo.store.item_store import ItemStore
from uic.feature_repo.store.item_vectors import (
    HEADER_BYTES,
    item_vector_headers,
    unpacked_item_vectors,
)
from uic.feature_repo.store.server import EmbeddedRedis
from uic.feature_repo.store.settings import StoreSettings
from uic.jobs.cli import app
from uic.models.bundles.bundle import load_bundle
from uic.models.errors import BadInputError
from uic.models.images.features import ImageFeatures, ImageFeaturesError
from uic.pipelines.images.add import AddImageError
from uic.pipelines.images.embed import embedded, image_id

pytestmark = pytest.mark.slow


def _module(name: str):
    path = Path(__file__).parents[1] / "models" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"images_command_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


samples, pictures = _module("conftest"), _module("images")

TINY = ("item_width=4", "category_width=2", "head_widths=[8]", "image_widths=[6,4]")


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Path]:
    samples.publish_samples(tmp_path / "samples" / "small", samples.random_rows(30))
    for seed in range(12):
        folder = tmp_path / "photographs" / ("hat" if seed % 2 else "shoe")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{seed}.jpg").write_bytes(encoded(gradient(seed=seed)))
    # A switch is over soon.
    store = "store: {pointer_refresh_seconds: 0.05, switch_delay_seconds: 0.1}\n"
    (tmp_path / "uic.yaml").write_text("images: {pretrain: {epochs: 1}}\n" + store)
    yield tmp_path
    EmbeddedRedis(tmp_path / STORE_FOLDER).stop()


def uic(workspace: Path, *words: str) -> str:
    result = CliRunner().invoke(app, [*words, "-w", str(workspace)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def opened(workspace: Path) -> ItemStore:
    address = resolve_address(StoreSettings(), workspace)
    return ItemStore.on(connect(address), address, StoreSettings())


def switch_to(workspace: Path, version: int) -> None:
    uic(workspace, "images", "switch", str(version), "--with-bundle")
    time.sleep(0.2)  # until `switch_at` has passed


def test_photographs_become_vectors_that_are_read_switched_and_added_to(workspace: Path):
    photographs = str(workspace / "photographs")
    printed = uic(workspace, "images", "pretrain", photographs)
    assert "12 of 2 classes, 2 held out, 0 rejected" in printed
    first = uic(workspace, "images", "extract", photographs, "--out", "shop")
    assert "weights     compact, sha256 " in first
    assert "12 listed, 12 new, 0 known already, 0 rejected" in first
    again = uic(workspace, "images", "extract", photographs, "--out", "shop")
    assert "12 listed, 0 new, 12 known already" in again
    assert ", unchanged" in again

    settings = [word for text in ("images=shop", *TINY) for word in ("--set", text)]
    uic(workspace, "train", "dicm", "--samples", "small", *settings, "--epochs", "1")
    uic(workspace, "store", "start")
    assert "item version 1: 12 items" in uic(
        workspace, "images", "embed", "--bundle", "dicm", "--images", "shop"
    )
    assert "item version 1: ready, 12 items loaded" in uic(workspace, "images", "load")
    assert "item version 1 is live in 0.0 s" in uic(workspace, "images", "switch", "1")

    features = ImageFeatures.open(workspace / "images" / "shop")
    bundle = load_bundle(workspace / "bundles" / "dicm" / "0001")
    with opened(workspace).client as client:
        store = ItemStore.on(client, resolve_address(StoreSettings(), workspace), StoreSettings())
        values, found = store.vectors.read(1, [3, 11, 99])
        assert found.tolist() == [True, True, False]
        rows = features.rows_of([3, 11])
        np.testing.assert_allclose(
            unpacked_item_vectors(values[:2], "store"),
            embedded(bundle, features.features[rows]),
            atol=1e-5,
        )
        headers = item_vector_headers(values[:2])
        assert bytes(headers["bundle"][0]) == bundle.hash8
        assert bytes(headers["image"][1]) == image_id(features.sha256[rows[1]])

        # A second version by Feast's own materialize, of the same bundle: the same vectors.
        uic(workspace, "images", "embed", "--bundle", "dicm", "--images", "shop")
        assert "item version 2: ready" in uic(workspace, "images", "load", "--by-feast")
        second, _ = store.vectors.read(2, [3, 11])
        np.testing.assert_array_equal(second[:, 32:], values[:2, 32:])

        # A new image is in both versions at once, and in the features for tomorrow.
        new = workspace / "new.png"
        new.write_bytes(encoded(gradient(seed=50), "PNG"))
        added = uic(workspace, "images", "add", str(new), "--item", "99", "--images", "shop")
        assert "readable now in item version 1, 2" in added
        for version in (1, 2):
            assert store.vectors.read(version, [99])[1].all()
        assert len(ImageFeatures.open(features.path)) == 13

    switch_to(workspace, 2)
    listed = uic(workspace, "images", "list")
    assert "2*  live       13" in listed
    assert "dicm/0001" in listed
    assert "13 vectors deleted" in uic(workspace, "images", "drop", "1", "--yes")
    with pytest.raises(GenerationStateError, match="no item version 1"):
        uic(workspace, "images", "switch", "1")
    (workspace / "bad.png").write_bytes(b"no picture")
    with pytest.raises(AddImageError, match=r"bad\.png: not_an_image"):
        uic(
            workspace,
            "images",
            "add",
            str(workspace / "bad.png"),
            "--item",
            "5",
            "--images",
            "shop",
        )

    # Features of another encoder are not embedded by this bundle.
    uic(workspace, "images", "pretrain", photographs, "--out", "other", "--seed", "2")
    uic(workspace, "images", "extract", photographs, "--out", "second", "--encoder", "other")
    with pytest.raises(ImageFeaturesError, match="was trained with compact-"):
        uic(workspace, "images", "embed", "--bundle", "dicm", "--images", "second")


def test_ids_of_images_alone_are_an_item_version_without_numbers(workspace: Path):
    features = pictures.publish_features(workspace / "images" / "shop")
    switches = ("--set", "ad_image=false", "--set", "behavior_images=false")
    settings = [word for text in ("images=shop", *TINY) for word in ("--set", text)]
    uic(workspace, "train", "dicm", "--samples", "small", *settings, *switches, "--epochs", "1")
    made = uic(workspace, "images", "embed", "--bundle", "dicm", "--images", "shop")
    assert "item version 1: 34 items" in made
    [images] = list_item_images(workspace)
    [(items, values)] = images.batches()
    assert values.shape == (34, HEADER_BYTES)
    rows = features.rows_of(items)
    found = item_vector_headers(values)["image"]
    assert [bytes(one) for one in found] == [image_id(features.sha256[row]) for row in rows]


def test_an_embedding_removes_old_versions_and_never_what_is_read(workspace: Path):
    pictures.publish_features(workspace / "images" / "shop")
    settings = [word for text in ("images=shop", *TINY) for word in ("--set", text)]
    uic(workspace, "train", "dicm", "--samples", "small", *settings, "--epochs", "1")
    path = workspace / "uic.yaml"
    path.write_text(path.read_text().replace("images: {", "images: {versions_kept: 1, "))

    def embed() -> tuple[list[int], str]:
        printed = uic(workspace, "images", "embed", "--bundle", "dicm", "--images", "shop")
        return [found.version for found in list_item_images(workspace)], printed

    assert embed()[0] == [1]
    uic(workspace, "store", "start")
    uic(workspace, "images", "load")
    uic(workspace, "images", "switch", "1")
    embed()
    assert embed()[0] == [1, 2, 3]  # 1 is live
    uic(workspace, "images", "load", "3")
    switch_to(workspace, 3)
    left, printed = embed()
    assert left == [2, 3, 4]
    assert "removed item version 1 (dicm/0001)" in printed
    uic(workspace, "store", "stop")
    assert embed()[0] == [2, 3, 4, 5]  # nobody can say what is read


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("extract", "photographs", "--out", "shop"), "uic images pretrain DIR"),
        (("embed", "--bundle", "dicm", "--images", "shop"), "no such image features"),
        (("load",), "no item version"),
        (("pretrain", "nothing"), "not a folder"),
    ],
)
def test_what_is_missing_is_one_line(workspace: Path, words, says: str):
    named = [str(workspace / word) if word == "photographs" else word for word in words]
    with pytest.raises(BadInputError, match=says):
        uic(workspace, "images", *named)
