"""Adding to image features: the same as writing them all at once, at the cost of what is new."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.images import write_image_features
from uic.models.errors import ManifestError
from uic.models.images.additions import MAX_PARTS, add_image_features
from uic.models.images.feature_rows import FeatureRows
from uic.models.images.features import ImageFeatures, ImageFeaturesError, parts_of
from uic.models.published import MANIFEST_NAME

pytestmark = pytest.mark.slow

WIDTH = 3
KEYS = {"files": ("path",)}


def digest(image: int) -> str:
    return hashlib.sha256(str(image).encode()).hexdigest()


def numbers(images: list[int]) -> np.ndarray:
    """What the encoder makes of images: (images, 3)."""
    return np.array([[image, -image, image / 7] for image in images], np.float32).reshape(-1, WIDTH)


def add(path: Path, images: list[int], shown: dict[int, int], files: dict[str, int] | None = None):
    """Images by number; `files` are rows of a table beside them."""
    table = pa.table(
        {"path": list(files or {}), "was": pa.array((files or {}).values(), pa.int64())}
    )
    return add_image_features(
        path,
        [numbers(images)] if images else [],
        [digest(image) for image in images],
        {item: digest(image) for item, image in shown.items()},
        encoder="test",
        tables={"files": table},
        keys=KEYS,
    )


def lines_of(features: ImageFeatures) -> dict[str, int]:
    """The table beside the features, of a path the last row."""
    found = {}
    for part in parts_of(features.manifest):
        if "files" in part:
            table = pq.read_table(features.path / part["files"])
            paths = table["path"].to_pylist()
            assert len(set(paths)) == len(paths)
            found |= dict(zip(paths, table["was"].to_pylist(), strict=True))
    return found


@st.composite
def additions(draw):
    """Some additions: images (maybe there already), what items show, rows of a table."""
    known: list[int] = []
    made = []
    for _ in range(draw(st.integers(1, 8))):
        images = draw(st.lists(st.integers(0, 30), max_size=6, unique=True))
        known = list(dict.fromkeys([*known, *images]))
        shown = {}
        if known:
            items = st.dictionaries(st.integers(0, 12), st.sampled_from(known), max_size=5)
            shown = draw(items)
        files = draw(st.dictionaries(st.sampled_from("abcd"), st.integers(0, 9), max_size=3))
        made.append((images, shown, files))
    return made


@given(additions())
@settings(max_examples=25, deadline=None)
def test_additions_are_one_publication_of_everything(steps) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "parts"
        images: list[int] = []
        shown: dict[int, int] = {}
        files: dict[str, int] = {}
        for step in steps:
            added = add(path, *step)
            assert added.images == len(set(step[0]) - set(images))
            images = list(dict.fromkeys([*images, *step[0]]))
            shown |= step[1]
            files |= step[2]
        found = ImageFeatures.open(path, verify=True)
        rows = [images.index(image) for image in shown.values()]
        whole = write_image_features(
            Path(folder) / "whole",
            numbers(images) if images else [],
            [digest(image) for image in images],
            list(shown),
            rows,
            encoder="test",
        )
        np.testing.assert_array_equal(np.asarray(found.features), np.asarray(whole.features))
        assert found.sha256 == whole.sha256
        np.testing.assert_array_equal(found.item_ids, whole.item_ids)
        np.testing.assert_array_equal(found.item_rows, whole.item_rows)
        assert lines_of(found) == files
        counts = (found.manifest["images"], found.manifest["items"])
        assert counts == (len(images), len(shown))
        assert len(found.parts) <= MAX_PARTS
        assert {file.name for file in path.iterdir()} == {
            MANIFEST_NAME,
            *(name for part in found.parts for name in part.values()),
        }


@given(st.lists(st.integers(0, 5), min_size=1, max_size=5), st.data())
@settings(max_examples=60, deadline=None)
def test_rows_of_parts_are_those_of_one_array(lengths, data) -> None:
    whole = numbers(list(range(sum(lengths))))
    bounds = np.cumsum([0, *lengths])
    parts = [whole[first:last] for first, last in pairwise(bounds)]
    rows = FeatureRows(parts)
    assert rows.shape == whole.shape
    key = slice(*data.draw(st.tuples(*[st.none() | st.integers(-9, 9).filter(bool)] * 3)))
    np.testing.assert_array_equal(np.asarray(rows[key]), whole[key])
    if len(whole):
        asked = data.draw(st.lists(st.integers(-len(whole), len(whole) - 1), max_size=9))
        index = np.array(asked, np.int64)
        np.testing.assert_array_equal(rows[index], whole[index])
        np.testing.assert_array_equal(rows[::2][: len(index)], whole[::2][: len(index)])
        np.testing.assert_array_equal(FeatureRows([rows, whole])[index], whole[index])
    with pytest.raises(IndexError):
        rows[np.array([len(whole)])]


@pytest.mark.parametrize("images", [100, 20_000])
def test_one_image_writes_a_few_files_of_its_own(tmp_path: Path, images: int) -> None:
    path = tmp_path / "shop"
    base = write_image_features(
        path,
        numbers(list(range(images))),
        [digest(image) for image in range(images)],
        np.arange(images),
        np.arange(images),
        encoder="test",
    )
    before = {file.name: file.stat() for file in path.iterdir()}
    first = before
    for new in range(images, images + 9):
        found = add(path, [new], {new: new}).features
        now = {file.name: file.stat() for file in path.iterdir()}
        for name in (entry["path"] for entry in base.manifest["files"]):
            old = first[name]
            assert (now[name].st_ino, now[name].st_mtime_ns) == (old.st_ino, old.st_mtime_ns)
        added = sum(now[name].st_size for name in set(now) - set(before) - {MANIFEST_NAME})
        assert added < 12_000
        before = now
    assert [len(part) for part in found.features.parts] == [images, *[1] * 9]
    np.testing.assert_array_equal(np.asarray(base.features), numbers(list(range(images))))


def test_now_and_then_everything_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "shop"
    counts = [len(add(path, [n], {n % 5: n}).features.parts) for n in range(MAX_PARTS + 2)]
    assert counts == [*range(1, MAX_PARTS + 1), 1, 2]
    found = ImageFeatures.open(path, verify=True)
    np.testing.assert_array_equal(np.asarray(found.features), numbers(list(range(MAX_PARTS + 2))))
    assert found.rows_of([0]).tolist() == [65]


def test_additions_at_the_same_time_all_land(tmp_path: Path) -> None:
    path = tmp_path / "shop"
    add(path, [0], {0: 0})
    with ThreadPoolExecutor(8) as pool:
        done = [pool.submit(add, path, [number], {number: number}) for number in range(1, 25)]
    assert all(one.result().published for one in done)
    found = ImageFeatures.open(path, verify=True)
    for item in range(25):
        np.testing.assert_array_equal(found.features[found.rows_of([item])], numbers([item]))


def test_what_a_killed_addition_left_is_not_read_and_goes(tmp_path: Path) -> None:
    path = tmp_path / "shop"
    add(path, [0, 1, 2], {0: 0})
    (path / "features-000002.npy").write_bytes(b"half")
    (path / "items-000002.parquet").write_bytes(b"half")
    assert len(ImageFeatures.open(path)) == 3
    found = add(path, [3], {3: 3}).features
    assert len(found) == 4
    assert sorted(file.name for file in path.glob("features-*")) == [
        "features-000001.npy",
        "features-000003.npy",
    ]


def test_a_manifest_of_one_part_by_its_older_name_is_read(tmp_path: Path) -> None:
    path = tmp_path / "shop"
    add(path, [0, 1], {5: 1})
    manifest = json.loads((path / MANIFEST_NAME).read_text())
    [manifest["roles"]] = manifest.pop("parts")
    (path / MANIFEST_NAME).write_text(json.dumps(manifest))
    assert ImageFeatures.open(path).rows_of([5, 6]).tolist() == [1, -1]
    found = add(path, [2], {6: 2}).features
    assert found.rows_of([5, 6]).tolist() == [1, 2]
    assert "roles" not in found.manifest


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (([np.ones((1, 4), np.float32)], [digest(9)], {}), "3 wide, these are 4"),
        (([numbers([9])], [], {}), "0 sums for 1 images"),
        (([], [], {7: digest(9)}), "item 7 shows image 19581e27de7ced00, which is not there"),
        (([numbers([9]) * np.nan], [digest(9)], {}), "row 0 is not finite"),
    ],
)
def test_what_does_not_fit_changes_nothing(tmp_path: Path, arguments, says: str) -> None:
    path = tmp_path / "shop"
    add(path, [0, 1], {5: 1})
    before = (path / MANIFEST_NAME).read_bytes()
    with pytest.raises(ImageFeaturesError, match=says):
        add_image_features(path, *arguments, encoder="test")
    with pytest.raises(ImageFeaturesError, match="holds features of encoder test"):
        add_image_features(path, [], [], {}, encoder="other")
    assert (path / MANIFEST_NAME).read_bytes() == before
    assert len(ImageFeatures.open(path, verify=True)) == 2
    # Nothing new publishes nothing.
    assert not add(path, [1, 0], {5: 1}).published
    with pytest.raises(ManifestError, match="never published"):
        ImageFeatures.open(tmp_path / "x")
