"""The images of a batch: which ones, each once, and where their vectors come from.

A batch holds item ids; `BatchImages` holds the distinct rows of `ImageFeatures` that its items
show, and an index for each event and each impression. However often an image is wanted, it is
embedded once a batch (DICM, section 4.2: the computation of an image that occurs several times in
an iteration is merged).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uic.models.errors import BadInputError
from uic.models.images.embedding import ImageEmbedding
from uic.models.images.features import NO_IMAGE, ImageFeatures
from uic.models.layers.windows import group_windows
from uic.models.published import MANIFEST_NAME, sha256_of
from uic.models.rankers.dicm.image_settings import ImageRankerSettings
from uic.models.samples.batch import RankerBatch

SettingsType = TypeVar("SettingsType", bound=ImageRankerSettings)


class ImageSourceError(BadInputError):
    """A model that looks at images has none, or those of another encoder."""


@dataclass
class ImageCounts:
    """What the batches so far asked for.

    Attributes:
        wanted: events and impressions that show an image; count.
        embedded: images that went through the embedding; count.
        missing: events and impressions without an image, which get the default vector; count.
    """

    wanted: int = 0
    embedded: int = 0
    missing: int = 0


@dataclass(frozen=True)
class BatchImages:
    """The images of one batch.

    Attributes:
        rows: (distinct,) int64, ascending, rows of the features.
        history: (events,) int64, indices into `rows`; `distinct` for an event without an image,
            and for one that no impression looks at.
        candidates: (impressions,) int64, the same for each impression.
        wanted: events and impressions with an image; count.
        missing: events and impressions without; count.
    """

    rows: NDArray[np.int64]
    history: Tensor
    candidates: Tensor
    wanted: int
    missing: int


class ShownImages(Protocol):
    """Says which image an item shows."""

    def rows_of(self, item_ids: NDArray[np.int64]) -> NDArray[np.int32]:
        """The image of each item: (n,) int64 to (n,) int32, `NO_IMAGE` (-1) for none."""


@dataclass(frozen=True)
class PrecomputedImages:
    """Images of some items, embedded ahead of the batch; each item's image is counted for itself.

    Attributes:
        item_ids: (items,), int64, ascending: the items that show an image; all others show none.
        vectors: (items, width), float32; width 0 for a model without an image embedding.
        id_rows: (items,), int64: each image's row of the model's `ImageIdTable`.
    """

    item_ids: NDArray[np.int64]
    vectors: Tensor
    id_rows: NDArray[np.int64]

    def rows_of(self, item_ids: NDArray[np.int64]) -> NDArray[np.int32]:
        """See `ShownImages`; rows of `vectors` and `id_rows`."""
        if not len(self.item_ids):
            return np.full(len(item_ids), NO_IMAGE, dtype=np.int32)
        rows = np.minimum(np.searchsorted(self.item_ids, item_ids), len(self.item_ids) - 1)
        return np.where(self.item_ids[rows] == item_ids, rows, NO_IMAGE).astype(np.int32)


class ImageVectors(Protocol):
    """Who embeds: this process, or the servers of AMS.

    Attributes:
        counts: of everything asked for.
    """

    counts: ImageCounts

    def vectors(self, rows: NDArray[np.int64]) -> Tensor:
        """(distinct,) rows of the features to (distinct, width), with a gradient."""


@dataclass
class LocalImages:
    """Images that this process embeds itself.

    Attributes:
        features: of the fixed encoder.
        embedding: the trained part.
        counts: of everything asked for.
    """

    features: ImageFeatures
    embedding: ImageEmbedding
    counts: ImageCounts = field(default_factory=ImageCounts)

    def vectors(self, rows: NDArray[np.int64]) -> Tensor:
        """See `ImageVectors`."""
        self.counts.embedded += rows.size
        weight = self.embedding.default
        features = torch.from_numpy(self.features.features[rows])  # (distinct, features), a copy
        vectors: Tensor = self.embedding(features.to(weight.device, weight.dtype))
        return vectors


def images_of(
    batch: RankerBatch,
    features: ShownImages,
    limit: int | None,
    *,
    history: bool = True,
    candidates: bool = True,
) -> BatchImages:
    """The images that a batch wants.

    Args:
        batch: whose items.
        features: which image an item shows.
        limit: events before an impression that are looked at; None for all.
        history: whether images of events are wanted.
        candidates: whether images of impressions are wanted.
    """
    source, device = batch.source, batch.groups.device
    asked = np.zeros(source.events, dtype=np.bool_)
    if history:
        asked = _looked_at(batch, limit)
    shown = np.concatenate(
        [
            np.where(asked, features.rows_of(source.history_item_ids), NO_IMAGE),
            features.rows_of(source.item_ids)
            if candidates
            else np.full(source.impressions, NO_IMAGE),
        ]
    ).astype(np.int64)
    has_image = shown >= 0
    rows, places = np.unique(shown[has_image], return_inverse=True)
    index = np.full(shown.size, rows.size)
    index[has_image] = places
    with_image = int(np.count_nonzero(has_image))
    looked_at = int(np.count_nonzero(asked)) + (source.impressions if candidates else 0)
    parts = torch.from_numpy(index).to(device)
    return BatchImages(
        rows, parts[: source.events], parts[source.events :], with_image, looked_at - with_image
    )


def _looked_at(batch: RankerBatch, limit: int | None) -> NDArray[np.bool_]:
    """(events,) bool: some impression of the group looks at the event."""
    source = batch.source
    if limit is None:
        return np.ones(source.events, dtype=np.bool_)
    firsts = group_windows(batch, limit).firsts.cpu().numpy() + source.history_offsets[:-1]
    owner = np.repeat(np.arange(source.groups), np.diff(source.history_offsets))
    looked: NDArray[np.bool_] = np.arange(source.events) >= firsts[owner]
    return looked


def resolve_images(
    settings: SettingsType, root: Path, *, trained: bool = False
) -> tuple[SettingsType, ImageFeatures | None]:
    """Open the features that settings name, and fill in what they are.

    Args:
        settings: of a model.
        root: `WORKSPACE/images`.
        trained: the settings are a bundle's: keep the sum that it was trained on, since images
            that were added since do not change it; encoder and width must still be the same.

    Raises:
        ImageSourceError: no such features, of another encoder or width.
        ManifestError: not published.
    """
    if not settings.images:
        return settings, None
    path = root / settings.images
    if not path.is_dir():
        known = sorted(manifest.parent.name for manifest in root.glob(f"*/{MANIFEST_NAME}"))
        msg = (
            f"{path}: images={settings.images}: no such image features; there is: "
            f"{', '.join(known) or 'none'}; make some with `uic images extract`"
        )
        raise ImageSourceError(msg)
    features = ImageFeatures.open(path)
    if settings.image_width not in {0, features.width}:
        msg = (
            f"{path}: features are {features.width} wide, image_width is {settings.image_width}; "
            "use the features that the model was trained with, or leave image_width out"
        )
        raise ImageSourceError(msg)
    if settings.image_encoder not in {"", features.encoder}:
        msg = (
            f"{path}: features of encoder {features.encoder!r}, the model is for "
            f"{settings.image_encoder!r}; extract them again with that one, or train again"
        )
        raise ImageSourceError(msg)
    filled = {"image_width": features.width, "image_encoder": features.encoder}
    if not trained:
        filled["images_sha256"] = sha256_of(path / MANIFEST_NAME)
    return settings.model_copy(update=filled), features
