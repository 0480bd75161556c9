"""What every ranker that looks at images has: the embedding, the ids, and their regularisation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uic.models.images.embedding import ImageEmbedding
from uic.models.images.features import ImageFeatures
from uic.models.layers.embedding import BatchRows
from uic.models.layers.ranker_settings import RankerSettings
from uic.models.rankers.dicm.adaptive_regularization import AdaptiveRegularization
from uic.models.rankers.dicm.batch_images import (
    BatchImages,
    ImageSourceError,
    ImageVectors,
    LocalImages,
    PrecomputedImages,
    ShownImages,
    images_of,
)
from uic.models.rankers.dicm.image_id_table import ImageIds, ImageIdTable
from uic.models.rankers.dicm.image_settings import ImageRankerSettings
from uic.models.rankers.ranker import Outputs, Ranker, no_penalty
from uic.models.samples.batch import RankerBatch


@dataclass(frozen=True)
class PassImages:
    """What a forward pass knows of its batch's images.

    Attributes:
        found: which image each event and impression shows.
        vectors: (distinct, width), embedded `found.rows`; None if no image is looked at.
        ids: embeddings of the images' ids; None without `image_ids`.
    """

    found: BatchImages
    vectors: Tensor | None
    ids: ImageIds | None


class ImageRanker(Ranker):
    """Base of DICM and of its pre-rank.

    Args:
        settings: hyper-parameters, with `image_width` filled in where images are looked at.
        item_rows: rows of the item table.
        category_rows: rows of the category table.
        own: see `Ranker`.
        paper: see `Ranker`.
        head: settings of the head where they differ from `settings`.

    Raises:
        ImageSourceError: images are wanted and no features are named.
    """

    NAME: ClassVar[str]
    PER_ROW: ClassVar[tuple[str, ...]] = ("regularization.",)
    HASHED_IDS: ClassVar[tuple[str, ...]] = ("image_ids.",)

    def __init__(
        self,
        settings: ImageRankerSettings,
        item_rows: int,
        category_rows: int,
        own: Mapping[str, int],
        paper: Sequence[str],
        *,
        head: RankerSettings | None = None,
    ) -> None:
        if settings.wants_images and not settings.image_width:
            msg = (
                f"{self.NAME} looks at images and `images` is empty; name image features with "
                "--set images=NAME, or switch ad_image, behavior_images and image_ids off"
            )
            raise ImageSourceError(msg)
        limit = settings.history_limit
        super().__init__(head or settings, item_rows, category_rows, own, paper, limit=limit)
        self.settings: ImageRankerSettings = settings
        self.limit = limit
        self.image_embedding: ImageEmbedding | None = None
        if settings.ad_image or settings.behavior_images:
            self.image_embedding = ImageEmbedding(settings.image_width, settings.image_widths)
        self.image_ids: ImageIdTable | None = None
        tables = {"item": item_rows, "category": category_rows}
        if settings.image_ids:
            self.image_ids = ImageIdTable(
                settings.image_id_rows, settings.item_width, settings.embedding_std
            )
            tables["image_id"] = settings.image_id_rows + 1
        self.regularization: AdaptiveRegularization | None = None
        if settings.adaptive_regularization:
            self.regularization = AdaptiveRegularization(settings.adaptive_regularization, tables)
        self.features: ImageFeatures | None = None
        self.vectors: ImageVectors | None = None

    def attach_images(self, images: ImageFeatures | None) -> None:
        """See `Ranker.attach_images`; the embedding of this process embeds them.

        Raises:
            ImageSourceError: none, and images are wanted.
        """
        if images is None:
            if self.settings.wants_images:
                raise self._not_attached()
            return
        self.features = images
        if self.image_embedding is not None:
            self.vectors = LocalImages(images, self.image_embedding)
        if self.image_ids is not None:
            self.image_ids.know(images)

    @property
    def looks_at_events(self) -> bool:
        """Whether it matters which image an event's item shows."""
        return self.settings.image_ids or self.settings.behavior_images

    @property
    def looks_at_candidates(self) -> bool:
        """Whether it matters which image a candidate shows."""
        return self.settings.image_ids or self.settings.ad_image

    def find(self, batch: RankerBatch) -> BatchImages | None:
        """The images that a batch wants; None if the switches want none.

        Raises:
            ImageSourceError: no images attached.
        """
        if not self.settings.wants_images:
            return None
        if self.features is None:
            raise self._not_attached()
        found = self._find(batch, self.features)
        if self.vectors is not None:
            self.vectors.counts.wanted += found.wanted
            self.vectors.counts.missing += found.missing
        return found

    def attached_images(self, batch: RankerBatch) -> PassImages | None:
        """Images of a batch from what is attached; None if the switches want none.

        Raises:
            ImageSourceError: no images attached.
        """
        found = self.find(batch)
        if found is None:
            return None
        vectors = None
        if self.image_embedding is not None and self.vectors is not None:
            vectors = self.vectors.vectors(found.rows)
        return PassImages(
            found, vectors, None if self.image_ids is None else self.image_ids.of(found)
        )

    def precomputed_images(
        self, batch: RankerBatch, images: PrecomputedImages | None
    ) -> PassImages | None:
        """Images of a batch whose vectors were computed ahead; nothing attached is looked at.

        Args:
            batch: ragged groups.
            images: of its items; None for a model whose switches want none.
        """
        if images is None or not self.settings.wants_images:
            return None
        found = self._find(batch, images)
        vectors = ids = None
        if self.image_embedding is not None:
            vectors = images.vectors.index_select(0, torch.from_numpy(found.rows))
        if self.image_ids is not None:
            ids = self.image_ids.of(found, images.id_rows)
        return PassImages(found, vectors, ids)

    def outputs(self, batch: RankerBatch, rows: BatchRows) -> Outputs:
        """See `Ranker.outputs`.

        Raises:
            ImageSourceError: no images attached.
        """
        return self.outputs_with(batch, rows, self.attached_images(batch))

    def outputs_with(
        self, batch: RankerBatch, rows: BatchRows, images: PassImages | None
    ) -> Outputs:
        """As `outputs`, with images from wherever.

        Args:
            batch: ragged groups.
            rows: embeddings of its items and categories.
            images: of the batch; None if the switches want none.
        """
        raise NotImplementedError

    def wanted_items(
        self, history: NDArray[np.int64], candidates: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Distinct items, ascending, whose images matter to a pass.

        Args:
            history: (events,), items of the events that are looked at.
            candidates: (impressions,), items.
        """
        none = history[:0]
        items = [
            history if self.looks_at_events else none,
            candidates if self.looks_at_candidates else none,
        ]
        distinct: NDArray[np.int64] = np.unique(np.concatenate(items))
        return distinct

    def regularized(
        self, logits: Tensor, batch: RankerBatch, rows: BatchRows, ids: ImageIds | None
    ) -> Outputs:
        """Logits with the penalty on the ids that the batch touched.

        Args:
            logits: (impressions,).
            batch: ragged groups.
            rows: embeddings of its items and categories.
            ids: embeddings of the images' ids; None without `image_ids`.
        """
        if self.regularization is None:
            return Outputs(logits, no_penalty(logits))
        touched = {
            "item": (batch.items, rows.items),
            "category": (batch.categories, rows.categories),
        }
        if ids is not None:
            touched["image_id"] = (ids.rows, ids.embeddings)
        wide = {name: pair for name, pair in touched.items() if pair[1].shape[1]}
        return Outputs(logits, self.regularization.penalty(wide))

    def _find(self, batch: RankerBatch, images: ShownImages) -> BatchImages:
        return images_of(
            batch,
            images,
            self.limit,
            history=self.looks_at_events,
            candidates=self.looks_at_candidates,
        )

    def _not_attached(self) -> ImageSourceError:
        name = self.settings.images
        return ImageSourceError(f"{self.NAME}: image features {name!r} are not attached")
