"""Image features on disk: written, opened, and refused when the parts do not fit."""

from pathlib import Path

import numpy as np
import pytest

from tests.models.images import write_image_features
from uic.models.errors import ManifestError
from uic.models.images.features import (
    NO_IMAGE,
    ImageFeatures,
    ImageFeaturesError,
)

FEATURES = np.arange(12, dtype=np.float32).reshape(3, 4)
SUMS = ["aa", "bb", "cc"]


def test_items_find_their_image_and_strangers_none(tmp_path: Path) -> None:
    written = write_image_features(
        tmp_path / "shop", FEATURES, SUMS, [9, 2, 5], [1, 0, 1], encoder="test"
    )
    opened = ImageFeatures.open(tmp_path / "shop", verify=True)
    assert isinstance(opened.features.parts[0], np.memmap)
    assert opened.width == 4
    assert opened.sha256 == SUMS
    assert opened.encoder == written.encoder == "test"
    np.testing.assert_array_equal(opened.features, FEATURES)
    found = opened.rows_of(np.array([5, 1, 2, 9, 10], np.int64))
    assert found.dtype == np.int32
    assert found.tolist() == [1, NO_IMAGE, 0, 1, NO_IMAGE]


def test_no_items_and_no_images_are_fine(tmp_path: Path) -> None:
    opened = write_image_features(tmp_path / "e", [], [], [], [], encoder="test")
    assert len(opened) == 0
    assert opened.rows_of([1]).tolist() == [NO_IMAGE]


def test_an_open_reader_keeps_what_it_opened(tmp_path: Path) -> None:
    old = write_image_features(tmp_path / "shop", FEATURES, SUMS, [1], [0], encoder="test")
    more = [old.features, np.ones((1, 4), np.float32)]
    new = write_image_features(tmp_path / "shop", more, [*SUMS, "dd"], [1, 2], [0, 3], encoder="t")
    np.testing.assert_array_equal(old.features, FEATURES)
    np.testing.assert_array_equal(new.features, np.vstack([FEATURES, np.ones((1, 4))]))
    assert len(list((tmp_path / "shop").glob("features-*.npy"))) == 1


@pytest.mark.parametrize(
    ("parts", "complaint"),
    [
        ((FEATURES.astype(np.float64), SUMS, [1], [0]), "float64"),
        (([FEATURES, np.ones((1, 5), np.float32)], [*SUMS, "d"], [1], [0]), "one width"),
        ((FEATURES, SUMS[:2], [1], [0]), "2 sums for 3 images"),
        ((FEATURES, ["a", "a", "b"], [1], [0]), "there twice"),
        ((FEATURES, SUMS, [1, 1], [0, 1]), "item 1 is named twice"),
        ((FEATURES, SUMS, [1], [3]), "rows 3 to 3 of 3 images"),
        ((FEATURES, SUMS, [1], [-1]), "rows -1 to -1"),
        ((np.full((3, 4), np.nan, np.float32), SUMS, [1], [0]), "not finite"),
    ],
)
def test_parts_that_do_not_fit_are_refused(tmp_path, parts, complaint):
    with pytest.raises(ImageFeaturesError, match=complaint):
        write_image_features(tmp_path / "x", *parts, encoder="test")
    with pytest.raises(ManifestError, match="never published"):
        ImageFeatures.open(tmp_path / "x")
