"""One new image, from its file to the store: what `uic images add` does.

The vector of an image depends on nothing but the image (DICM, section 3), so it can be used at
once: by every item version whose bundle is at hand, live or about to be.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from uic.feature_repo.store.errors import GenerationStateError
from uic.feature_repo.store.generation import Generation, State
from uic.feature_repo.store.item_store import ItemStore
from uic.feature_repo.store.item_vectors import packed_item_vectors
from uic.models.bundles.bundle import Bundle
from uic.models.errors import BadInputError
from uic.models.images.additions import add_image_features
from uic.models.images.features import ImageFeatures
from uic.pipelines.images.decode import RejectedImageError, content_sum, decode_square, read_image
from uic.pipelines.images.embed import check_encoder, embedded, image_id
from uic.pipelines.images.encoders import EncoderChoice
from uic.pipelines.images.ledger import FILES_KEYS, FILES_ROLE


class AddImageError(BadInputError):
    """The file is no image that can be used."""


@dataclass(frozen=True)
class AddedImage:
    """What was added.

    Attributes:
        sha256: of the file.
        versions: item versions that have the vector now.
        left_out: versions whose bundle is not at hand: number -> its name.
        encoded: False if the features were there already.
    """

    sha256: str
    versions: tuple[int, ...]
    left_out: dict[int, str]
    encoded: bool


def add_image(
    file: Path,
    item_id: int,
    output: Path,
    *,
    choice: EncoderChoice,
    store: ItemStore,
    bundle_of: Callable[[bytes], Bundle | None],
    now_ms: int,
) -> AddedImage:
    """Embed an image, write it to the store, and keep its features for the next embedding.

    Args:
        file: the image.
        item_id: that shows it from now on.
        output: `WORKSPACE/images/NAME`.
        choice: the encoder of those features.
        store: item versions.
        bundle_of: the bundle of a hash; None if it is not at hand.
        now_ms: when this is; later than the vectors that are there.

    Raises:
        AddImageError: the file is rejected, with the reason.
        ImageFeaturesError: the features are of another encoder.
        GenerationStateError: no item version's bundle is at hand.
    """
    features = ImageFeatures.open(output)
    digest, row, row_features = _features_of(file, features, choice)
    written, left_out = [], {}
    for version in _readable(store):
        bundle = bundle_of(version.bundle)
        if bundle is None:
            left_out[version.number] = version.bundle_name
            continue
        check_encoder(bundle, features)
        vector = embedded(bundle, row_features)
        values = packed_item_vectors(
            version.number, bundle.hash8, now_ms, vector, [image_id(digest)]
        )
        store.add(version.number, [item_id], values)
        written.append(version.number)
    if not written:
        names = ", ".join(left_out.values()) or "none"
        msg = (
            f"{store.address}: no item version whose bundle is at hand (the store's are of: "
            f"{names}); run `uic images embed` and `uic images load` first"
        )
        raise GenerationStateError(msg)
    add_image_features(
        output, [row_features], [digest], {item_id: digest}, encoder=features.encoder,
        keys={FILES_ROLE: FILES_KEYS},
    )  # fmt: skip
    return AddedImage(digest, tuple(written), left_out, row is None)


def _readable(store: ItemStore) -> list[Generation]:
    """Versions that are read now, or may be after a switch."""
    return [version for version in store.versions.all() if version.state is not State.DROPPING]


def _features_of(
    file: Path, features: ImageFeatures, choice: EncoderChoice
) -> tuple[str, int | None, NDArray[np.float32]]:
    """Sum of a file, its row if it is known, and its features (1, width)."""
    limits = choice.settings
    try:
        data = read_image(file.resolve().parent, file.resolve().name, limits)
        digest = content_sum(data)
        if digest in features.sha256:
            row = features.sha256.index(digest)
            return digest, row, np.array(features.features[row : row + 1])
        encoder = choice.load()
        if encoder.identity != features.encoder:
            msg = (
                f"{features.path}: holds features of encoder {features.encoder}, this one is "
                f"{encoder.identity}; give --weights or --encoder of the same"
            )
            raise AddImageError(msg)
        prepared = encoder.preparation
        square = decode_square(data, prepared.resize_px, prepared.crop_px, limits)
    except RejectedImageError as error:
        msg = f"{file}: {error}; give another image"
        raise AddImageError(msg) from error
    return digest, None, encoder.encode(square[None])
