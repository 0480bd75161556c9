"""From a file to the square of pixels that an encoder takes, or a reason why not.

What is handled: EXIF orientation, CMYK, palettes, greys of 8 and 16 bits, transparency (on white),
animations (their first picture), in JPEG (MPO, too), PNG, WebP, GIF, BMP and TIFF. What is rejected
says why. The size is taken from the header before anything is decoded, so a decompression
bomb costs nothing.
"""

import hashlib
import io
import os
import stat
from enum import StrEnum
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from uic.pipelines.images.settings import ImagesSettings

# Formats that the web uses; others (PostScript!) run programs or are not pictures of things.
FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_WHITE: Final = (255, 255, 255, 255)


class ImageFault(StrEnum):
    """Why an image has no features."""

    MISSING = "missing"  # no such file
    OUTSIDE = "outside_folder"  # the path, or what it links to, leaves the given folder
    NOT_A_FILE = "not_a_file"  # a folder, a pipe, a device
    UNREADABLE = "unreadable"  # the system does not let us
    EMPTY = "empty"  # zero bytes
    TOO_LARGE = "too_many_bytes"
    TOO_MANY_PIXELS = "too_many_pixels"  # by its header: a decompression bomb, or a very large one
    NOT_AN_IMAGE = "not_an_image"
    TRUNCATED = "truncated"
    DAMAGED = "damaged"
    ITEM_TWICE = "item_named_twice"  # another line or file names the same item


class RejectedImageError(Exception):
    """An image cannot be used; never leaves this package."""

    def __init__(self, reason: ImageFault, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def read_image(folder: Path, relative: str, limits: ImagesSettings) -> bytes:
    """The bytes of an image file inside `folder`.

    Raises:
        RejectedImageError: no file, outside of the folder (by name or by link), empty, too large.
    """
    real = real_path(folder, relative)
    try:
        # What was checked is what is opened: a link put in its place meanwhile is refused.
        descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as stream:
            status = os.fstat(stream.fileno())
            _check_file(status, limits)
            data = stream.read(limits.max_file_bytes + 1)
    except FileNotFoundError as error:
        raise RejectedImageError(ImageFault.MISSING, "no such file") from error
    except IsADirectoryError as error:
        raise RejectedImageError(ImageFault.NOT_A_FILE, "a folder") from error
    except OSError as error:
        raise RejectedImageError(ImageFault.UNREADABLE, error.strerror or str(error)) from error
    if len(data) > limits.max_file_bytes:
        detail = f"more than {limits.max_file_bytes} bytes"
        raise RejectedImageError(ImageFault.TOO_LARGE, detail)
    return data


def real_path(folder: Path, relative: str) -> Path:
    """Where a path leads, with all links followed.

    Raises:
        RejectedImageError: out of `folder`, or it is no path at all.
    """
    root = os.path.realpath(folder)
    try:
        real = os.path.realpath(os.path.join(root, relative))  # noqa: PTH118 - an absolute one wins
    except (OSError, ValueError) as error:  # a loop of links, a NUL byte
        raise RejectedImageError(ImageFault.UNREADABLE, str(error)) from error
    if os.path.commonpath([root, real]) != root:
        raise RejectedImageError(ImageFault.OUTSIDE, "the path leads out of the given folder")
    return Path(real)


def _check_file(found: os.stat_result, limits: ImagesSettings) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise RejectedImageError(ImageFault.NOT_A_FILE, "a folder, pipe or device")
    if not found.st_size:
        raise RejectedImageError(ImageFault.EMPTY, "0 bytes")
    if found.st_size > limits.max_file_bytes:
        detail = f"{found.st_size} bytes, limit {limits.max_file_bytes}"
        raise RejectedImageError(ImageFault.TOO_LARGE, detail)


def content_sum(data: bytes) -> str:
    """Hex sha256 of an image file: the identity of an image."""
    return hashlib.sha256(data).hexdigest()


def decode_square(
    data: bytes, resize_px: int, crop_px: int, limits: ImagesSettings
) -> NDArray[np.uint8]:
    """The square in the middle of an image, as an encoder takes it.

    The shorter side would become `resize_px`; of that, only the square of `crop_px` in the middle
    is computed, so that a picture of 1 x 100,000 pixels costs no more than another.

    Returns:
        (crop_px, crop_px, 3), uint8, red, green, blue.

    Raises:
        RejectedImageError: not an image, too many pixels, truncated, damaged.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_pixels(image.size, limits)
            image.seek(0)
            upright = _upright(image)
            square = upright.resize(
                (crop_px, crop_px),
                Image.Resampling.BILINEAR,
                box=_middle(upright.size, crop_px / resize_px),
            )
    except RejectedImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RejectedImageError(ImageFault.TOO_MANY_PIXELS, str(error)) from error
    except UnidentifiedImageError as error:
        detail = f"starts with {data[:8]!r}; known are {', '.join(FORMATS)}"
        raise RejectedImageError(ImageFault.NOT_AN_IMAGE, detail) from error
    except Exception as error:  # a decoder of foreign bytes raises anything: struct, Index, Type…
        text = " ".join(str(error).split())[:200] or type(error).__name__
        truncated = "truncat" in text.lower() or isinstance(error, EOFError)
        reason = ImageFault.TRUNCATED if truncated else ImageFault.DAMAGED
        raise RejectedImageError(reason, text) from error
    return np.array(square)  # a copy: torch has no read-only tensors


def _check_pixels(size: tuple[int, int], limits: ImagesSettings) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        detail = f"{width} x {height} pixels, limit {limits.max_pixels}"
        raise RejectedImageError(ImageFault.TOO_MANY_PIXELS, detail)


def _upright(image: Image.Image) -> Image.Image:
    """Decoded, turned as EXIF says, in red, green and blue."""
    image.load()
    turned = ImageOps.exif_transpose(image)
    if turned.mode.startswith("I"):  # 16 or 32 bits of grey
        grey = np.asarray(turned, dtype=np.float64)
        top = 65_535.0 if grey.max(initial=0) > 255 else 255.0
        turned = Image.fromarray((np.clip(grey / top, 0, 1) * 255).astype(np.uint8))
    if "transparency" in turned.info or turned.mode in {"RGBA", "LA", "PA", "La", "RGBa"}:
        layer = turned.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, _WHITE), layer).convert("RGB")
    return turned.convert("RGB")


def _middle(size: tuple[int, int], share: float) -> tuple[float, float, float, float]:
    """The square in the middle whose side is `share` of the shorter side, in source pixels."""
    width, height = size
    side = min(size) * share
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side
