"""What becomes of each kind of file: a square of pixels, or a reason."""

import contextlib
import os
import resource
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.pipelines.images.pictures import bomb, encoded, gradient
from uic.pipelines.images.decode import (
    ImageFault,
    RejectedImageError,
    decode_square,
    read_image,
)
from uic.pipelines.images.settings import ImagesSettings

LIMITS = ImagesSettings(max_pixels=1_000_000, max_file_bytes=200_000)


def square(data: bytes, resize: int = 72, crop: int = 64) -> np.ndarray:
    return decode_square(data, resize, crop, LIMITS)


def reason(data: bytes) -> ImageFault:
    with pytest.raises(RejectedImageError) as caught:
        square(data)
    return caught.value.reason


def test_the_middle_of_an_upright_picture_is_taken():
    pixels = square(encoded(gradient(200, 100), "PNG"))
    assert pixels.shape == (64, 64, 3)
    assert pixels.dtype == np.uint8
    # Red grows to the right from the edge of the middle square: (200 - 100 * 64/72) / 2 / 200.
    assert pixels[32, 0, 0] == pytest.approx(255 * 0.28, abs=3)
    assert pixels[32, -1, 0] == pytest.approx(255 * 0.72, abs=3)
    assert pixels[0, 32, 1] < pixels[-1, 32, 1]


def test_orientation_in_exif_is_followed():
    upright = gradient(120, 80)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held turned: shown after a quarter turn
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    found = square(encoded(turned, "JPEG", exif=exif, quality=95))
    expected = square(encoded(upright, "JPEG", quality=95))
    assert np.abs(found.astype(int) - expected).mean() < 3
    assert np.abs(square(encoded(turned)).astype(int) - expected).mean() > 20


@pytest.mark.parametrize("mode", ["CMYK", "P", "L", "1", "RGBA", "LA", "I;16"])
def test_every_way_to_store_colours_gives_three_channels(mode: str):
    picture = gradient()
    if mode == "I;16":
        grey = np.asarray(picture.convert("L"), dtype=np.uint16) * 257
        data = encoded(Image.fromarray(grey), "PNG")
    elif mode == "CMYK":
        data = encoded(picture.convert(mode), "JPEG", quality=95)
    else:
        data = encoded(picture.convert(mode), "PNG")
    pixels = square(data)
    assert pixels.shape == (64, 64, 3)
    if mode not in {"1", "P"}:
        expected = square(
            encoded(picture if mode in {"CMYK", "RGBA"} else picture.convert("L"), "PNG")
        )
        assert np.abs(pixels.astype(int) - expected).mean() < 6


def test_what_is_transparent_is_white():
    layer = gradient().convert("RGBA")
    layer.putalpha(0)
    assert (square(encoded(layer, "PNG")) == 255).all()
    palette = Image.new("P", (80, 80), 0)
    assert (square(encoded(palette, "PNG", transparency=0)) == 255).all()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_picture_is_taken(kind: str):
    first, second = Image.new("RGB", (80, 80), "red"), Image.new("RGB", (80, 80), "blue")
    data = encoded(first, kind, save_all=True, append_images=[second])
    red, _, blue = square(data)[32, 32]
    assert red > 200
    assert blue < 60


def test_a_line_of_pixels_costs_no_more_than_a_picture():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert square(encoded(Image.new("RGB", (30_000, 1), "red"), "PNG")).shape == (64, 64, 3)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 200_000
    assert square(encoded(Image.new("RGB", (1, 1), "red"), "PNG")).shape == (64, 64, 3)


def test_too_many_pixels_are_refused_by_the_header():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert reason(bomb()) is ImageFault.TOO_MANY_PIXELS
    assert reason(bomb(10_000, 10_000)) is ImageFault.TOO_MANY_PIXELS
    assert reason(bomb(1001, 1000)) is ImageFault.TOO_MANY_PIXELS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 100_000


def test_damage_has_a_reason():
    whole = encoded(gradient(), "JPEG", quality=95)
    assert reason(whole[: len(whole) // 2]) is ImageFault.TRUNCATED
    png = encoded(gradient(), "PNG")
    assert reason(png[: len(png) // 2]) in {ImageFault.TRUNCATED, ImageFault.DAMAGED}
    assert reason(b"<html>404</html>") is ImageFault.NOT_AN_IMAGE
    assert reason(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n") is ImageFault.NOT_AN_IMAGE
    assert reason(b"") is ImageFault.NOT_AN_IMAGE


@given(st.data())
def test_whatever_the_bytes_are_it_is_pixels_or_a_reason(data):
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"]))
    good = bytearray(encoded(gradient(24, 20), kind))
    for _ in range(data.draw(st.integers(1, 8))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(good)))
    with contextlib.suppress(RejectedImageError):  # and nothing else
        assert square(bytes(good[:cut])).shape == (64, 64, 3)


def test_a_path_must_stay_in_its_folder(tmp_path: Path):
    folder = tmp_path / "shop"
    (folder / "hats").mkdir(parents=True)
    (folder / "hats" / "1.png").write_bytes(b"inside")
    (tmp_path / "secret").write_bytes(b"outside")
    (tmp_path / "shop2").mkdir()
    (tmp_path / "shop2" / "1.png").write_bytes(b"outside")
    (folder / "link.png").symlink_to(tmp_path / "secret")
    (folder / "folder").symlink_to(tmp_path)
    (folder / "near.png").symlink_to("hats/1.png")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "empty.png").touch()
    (folder / "large.png").write_bytes(b"x" * 200_001)
    os.mkfifo(folder / "pipe.png")
    assert read_image(folder, "hats/1.png", LIMITS) == b"inside"
    assert read_image(folder, "near.png", LIMITS) == b"inside"
    assert read_image(folder, str(folder / "hats" / "1.png"), LIMITS) == b"inside"
    for path, expected in {
        "../secret": ImageFault.OUTSIDE,
        "../shop2/1.png": ImageFault.OUTSIDE,
        str(tmp_path / "secret"): ImageFault.OUTSIDE,
        "link.png": ImageFault.OUTSIDE,
        "folder/secret": ImageFault.OUTSIDE,
        "loop.png": ImageFault.UNREADABLE,
        "nothing.png": ImageFault.MISSING,
        "hats": ImageFault.NOT_A_FILE,
        "pipe.png": ImageFault.NOT_A_FILE,
        "empty.png": ImageFault.EMPTY,
        "large.png": ImageFault.TOO_LARGE,
        "nul\0.png": ImageFault.UNREADABLE,
    }.items():
        with pytest.raises(RejectedImageError) as caught:
            read_image(folder, path, LIMITS)
        assert caught.value.reason is expected, path
