"""Labelled images for the compact encoder: class folders, decoded."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from uic.models.images.encoder import COMPACT_PREPARATION
from uic.pipelines.images.decode import RejectedImageError, decode_square, read_image
from uic.pipelines.images.settings import ImagesSettings
from uic.pipelines.images.sources import ImageSource, ImageSourceListError


@dataclass(frozen=True)
class LabelledImages:
    """Images with their classes.

    Attributes:
        pixels: (images, px, px, 3), uint8.
        labels: (images,), int64, index into `classes`.
        classes: names of the folders, ascending.
        rejected: images that could not be used; count.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: list[str]
    rejected: int


def labelled_images(folder: Path, settings: ImagesSettings) -> LabelledImages:
    """Decode the images of class folders.

    Raises:
        ImageSourceListError: not a folder, or no image lies in a class folder.
    """
    if not folder.is_dir():
        msg = f"{folder}: not a folder; expected one folder of images a class"
        raise ImageSourceListError(msg)
    source = ImageSource.open(folder)
    size = COMPACT_PREPARATION.resize_px
    pixels, named, rejected = [], [], 0
    for image in source.images:
        if image.label is None:
            continue
        try:
            data = read_image(source.folder, image.path, settings)
            pixels.append(decode_square(data, size, size, settings))
            named.append(image.label)
        except RejectedImageError:
            rejected += 1
    if not pixels:
        msg = f"{folder}: no usable image in a class folder ({rejected} rejected)"
        raise ImageSourceListError(msg)
    classes = sorted(set(named))
    index = {name: at for at, name in enumerate(classes)}
    return LabelledImages(
        np.stack(pixels), np.array([index[name] for name in named]), classes, rejected
    )
