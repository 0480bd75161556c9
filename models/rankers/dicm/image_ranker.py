"""What every ranker that looks at images has: the embedding, the ids, and their regularisation."""

from typing import ClassVar

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
    images_of,
)
from uic.models.rankers.dicm.image_id_table import ImageIds, ImageIdTable
from uic.models.rankers.dicm.image_settings import ImageRankerSettings
from uic.models.rankers.ranker import Outputs, Ranker, no_penalty
from uic.models.samples.batch import RankerBatch


class ImageRanker(Ranker):
    """Base of DICM and of its pre-rank.

    Args:
        settings: hyper-parameters, with `image_width` filled in where images are looked at.
        item_rows: rows of the item table.
        category_rows: rows of the category table.
        features: width of the head's input; 0 for a model without one.
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
        features: int,
        head: RankerSettings | None = None,
    ) -> None:
        if settings.wants_images and not settings.image_width:
            msg = (
                f"{self.NAME} looks at images and `images` is empty; name image features with "
                "--set images=NAME, or switch ad_image, behavior_images and image_ids off"
            )
            raise ImageSourceError(msg)
        super().__init__(head or settings, item_rows, category_rows, features)
        self.settings: ImageRankerSettings = settings
        self.limit = settings.history_limit
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

    def find(self, batch: RankerBatch) -> BatchImages | None:
        """The images that a batch wants; None if the switches want none.

        Raises:
            ImageSourceError: no images attached.
        """
        if not self.settings.wants_images:
            return None
        if self.features is None:
            raise self._not_attached()
        ids = self.settings.image_ids
        found = images_of(
            batch,
            self.features,
            self.limit,
            history=ids or self.settings.behavior_images,
            candidates=ids or self.settings.ad_image,
        )
        if self.vectors is not None:
            self.vectors.counts.wanted += found.wanted
            self.vectors.counts.missing += found.missing
        return found

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

    def _not_attached(self) -> ImageSourceError:
        name = self.settings.images
        return ImageSourceError(f"{self.NAME}: image features {name!r} are not attached")
