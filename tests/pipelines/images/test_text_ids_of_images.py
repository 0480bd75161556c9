"""Images of a log with text ids: a manifest and files that are named by the texts of items."""

import pytest

from tests.pipelines.test_text_ids import imported
from uic.pipelines.images.sources import ImageSource
from uic.pipelines.log.text_ids import TextIds, number_of


@pytest.fixture
def ids(tmp_path):
    return TextIds.of(imported(tmp_path, "ann,85123A,3", "ann,007,3"))


def test_a_manifest_has_the_texts_of_items(tmp_path, ids):
    (tmp_path / "items.csv").write_text("item_id,path\n85123A,a.jpg\n007,b.jpg\nnew,c.jpg\n")
    listed = ImageSource.open(tmp_path / "items.csv", ids=ids).images
    assert [one.item_id for one in listed] == [number_of(text) for text in ("85123A", "007", "new")]


def test_a_file_is_named_by_the_text_of_an_item_that_the_log_has(tmp_path, ids):
    for name in ("85123A.jpg", "007.jpg", "7.jpg", "IMG_1.jpg"):
        (tmp_path / "shop" / "lamps").mkdir(parents=True, exist_ok=True)
        (tmp_path / "shop" / "lamps" / name).touch()
    listed = ImageSource.open(tmp_path / "shop", ids=ids).images
    assert {one.path: one.item_id for one in listed} == {
        "lamps/007.jpg": number_of("007"),
        "lamps/7.jpg": None,
        "lamps/85123A.jpg": number_of("85123A"),
        "lamps/IMG_1.jpg": None,
    }
    numbers = ImageSource.open(tmp_path / "shop").images
    assert [one.item_id for one in numbers] == [7, 7, None, None]
