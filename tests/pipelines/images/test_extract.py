"""Extraction: equal to a plain loop over images, once per content, and every reject listed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.pipelines.images.pictures import SETTINGS, bomb, encoded, gradient, random_encoder
from uic.models.images.features import ImageFeatures, ImageFeaturesError
from uic.models.images.pretraining import load_encoder
from uic.pipelines.images.encoders import EncoderChoice, NoEncoderError
from uic.pipelines.images.extract import extract_images
from uic.pipelines.images.extract_run import ExtractRequest
from uic.pipelines.images.sources import ImageSource, ImageSourceListError


def plain_features(path: Path, encoder: Path) -> np.ndarray:
    """One image at a time, by Pillow and torch alone."""
    network = load_encoder(encoder).network
    image = Image.open(path).convert("RGB")
    side = min(image.size) * 64 / 72
    left, top = (image.width - side) / 2, (image.height - side) / 2
    small = image.resize(
        (64, 64), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side)
    )
    pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        return network(((pixels - mean[:, None, None]) / std[:, None, None])[None])[0].numpy()


def shop(folder: Path) -> Path:
    """Seven items and five pictures, and eight lines that cannot be used."""
    (folder / "hats").mkdir(parents=True)
    for seed in range(5):
        (folder / "hats" / f"{seed}.jpg").write_bytes(encoded(gradient(seed=seed)))
    (folder / "copy.jpg").write_bytes((folder / "hats" / "0.jpg").read_bytes())
    (folder / "empty.jpg").touch()
    (folder / "half.jpg").write_bytes(encoded(gradient())[:300])
    (folder / "bomb.png").write_bytes(bomb())
    (folder / "page.jpg").write_text("<html>not found</html>")
    manifest = folder / "items.csv"
    lines = [(10 + seed, f"hats/{seed}.jpg") for seed in range(5)]
    lines += [(20, "copy.jpg"), (21, "hats/1.jpg")]
    lines += [(30, "empty.jpg"), (31, "half.jpg"), (32, "bomb.png"), (33, "page.jpg")]
    lines += [(34, "nothing.jpg"), (35, "../secret.jpg"), (36, "hats"), (10, "hats/4.jpg")]
    manifest.write_text("item_id,path\n" + "".join(f"{item},{path}\n" for item, path in lines))
    return manifest


def test_extraction_is_the_plain_loop_and_a_rerun_computes_nothing(tmp_path: Path):
    manifest = shop(tmp_path / "shop")
    choice = random_encoder(tmp_path / "image_encoders")
    out = tmp_path / "images" / "shop"
    request = ExtractRequest(ImageSource.open(manifest), out, choice)
    first = extract_images(request)
    assert (first.seen, first.encoded, first.known) == (15, 5, 0)
    assert {line.path: line.reason for line in first.rejected} == {
        "empty.jpg": "empty",
        "half.jpg": "truncated",
        "bomb.png": "too_many_pixels",
        "page.jpg": "not_an_image",
        "nothing.jpg": "missing",
        "../secret.jpg": "outside_folder",
        "hats": "not_a_file",
        "hats/4.jpg": "item_named_twice",
    }
    features = ImageFeatures.open(out, verify=True)
    assert features.features.shape == (5, 4096)
    for seed in range(5):
        row = features.rows_of([10 + seed])[0]
        expected = plain_features(tmp_path / "shop" / "hats" / f"{seed}.jpg", choice.path)
        np.testing.assert_allclose(features.features[row], expected, rtol=1e-4, atol=1e-4)
    assert features.rows_of([20])[0] == features.rows_of([10])[0]
    assert features.rows_of([30, 31, 36, 99]).tolist() == [-1, -1, -1, -1]

    before = {path.name: path.read_bytes() for path in out.iterdir()}
    again = extract_images(request)
    assert (again.encoded, again.known, again.published) == (0, 8, False)
    assert again.rejected == first.rejected
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before

    # One new picture, and an item that shows another one from now on.
    (tmp_path / "shop" / "new.png").write_bytes(encoded(gradient(seed=9), "PNG"))
    manifest.write_text("item_id,path\n40,new.png\n11,hats/2.jpg\n")
    more = extract_images(ExtractRequest(ImageSource.open(manifest), out, choice))
    assert (more.encoded, more.known) == (1, 1)
    np.testing.assert_array_equal(more.features.features[:5], features.features)
    rows = more.features.rows_of([40, 11, 12, 10])
    assert rows[0] == 5
    assert rows[1] == rows[2] != rows[3]
    assert not list(tmp_path.glob("images/.shop.*[!k]"))  # no drafts are left


def test_features_of_two_encoders_are_never_mixed(tmp_path: Path):
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "42.png").write_bytes(encoded(gradient(), "PNG"))
    encoders, out = tmp_path / "image_encoders", tmp_path / "images" / "shop"
    source = ImageSource.open(tmp_path / "shop")
    first = extract_images(ExtractRequest(source, out, random_encoder(encoders)))
    assert first.features.item_ids.tolist() == [42]
    other = random_encoder(encoders, "other", seed=1)
    with pytest.raises(ImageFeaturesError, match="holds features of encoder compact-"):
        extract_images(ExtractRequest(source, out, other))
    with pytest.raises(NoEncoderError, match=r"there is: compact, other"):
        EncoderChoice.of(None, "best", encoders, SETTINGS)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("item_id,path\nx,a.jpg\n", "int64"),
        ("item_id,file\n1,a.jpg\n", "path"),
        ("item_id,path\n,a.jpg\n", "item_id is empty in 1 rows"),
    ],
)
def test_a_manifest_that_is_none_is_one_line(tmp_path: Path, text: str, says: str):
    (tmp_path / "items.csv").write_text(text)
    with pytest.raises(ImageSourceListError, match=says):
        ImageSource.open(tmp_path / "items.csv")
    with pytest.raises(ImageSourceListError, match="expected a folder of images"):
        ImageSource.open(tmp_path / "nothing")
