"""DICM: behaviours and candidates modelled with their images too (Ge et al., CIKM 2018, section 3).

Head input, each part with a switch: what the basic net makes of items and categories; the ids of
the images, as further sparse fields (the baseline has them too, section 7.4); the candidate's
image; the aggregated images of behaviours. One embedding model serves both kinds of images.
"""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from models.adaptive_regularization import AdaptiveRegularization
from models.attention import AttentionUnit
from models.batch import RankerBatch
from models.batch_images import (
    BatchImages,
    ImageSourceError,
    ImageVectors,
    LocalImages,
    images_of,
)
from models.dicm_settings import BasicNet, DicmSettings, IdQuery
from models.embedding import BatchRows
from models.image_aggregator import ImageAggregator
from models.image_embedding import ImageEmbedding
from models.image_features import ImageFeatures
from models.image_id_table import ImageIds, ImageIdTable
from models.ranker import Outputs, Ranker, no_penalty
from models.ranker_settings import InputNorm
from models.windows import Pairs, value_sums, window_pairs, window_sums


class Dicm(Ranker):
    """Sparse fields and images to a logit.

    Args:
        settings: hyper-parameters, with `image_width` filled in where images are looked at.
        item_rows: rows of the item table.
        category_rows: rows of the category table.

    Raises:
        ImageSourceError: images are wanted and no features are named.
    """

    PER_ROW: ClassVar[tuple[str, ...]] = ("regularization.",)
    HASHED_IDS: ClassVar[tuple[str, ...]] = ("image_ids.",)

    def __init__(self, settings: DicmSettings, item_rows: int, category_rows: int) -> None:
        if settings.wants_images and not settings.image_width:
            msg = (
                "dicm looks at images and `images` is empty; name image features with "
                "--set images=NAME, or switch ad_image, behavior_images and image_ids off"
            )
            raise ImageSourceError(msg)
        event = settings.item_width + settings.category_width
        width = settings.image_widths[-1]
        features = event * (3 if settings.basic_net is BasicNet.DIN else 2)
        features += 2 * settings.item_width if settings.image_ids else 0
        features += width if settings.ad_image else 0
        aggregator = ImageAggregator(settings, width) if settings.behavior_images else None
        features += aggregator.features if aggregator is not None else 0
        if settings.basic_net is BasicNet.LR:
            linear = {"head_widths": (), "input_norm": InputNorm.NONE}
            super().__init__(settings.model_copy(update=linear), item_rows, category_rows, features)
        else:
            super().__init__(settings, item_rows, category_rows, features)
        self.settings, self.limit = settings, settings.history_limit
        self.aggregator = aggregator
        self.attention = AttentionUnit(event, event) if settings.basic_net is BasicNet.DIN else None
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

    def outputs(self, batch: RankerBatch, rows: BatchRows) -> Outputs:
        """See `Ranker.outputs`.

        Raises:
            ImageSourceError: no images attached.
        """
        images = self.find(batch)
        vectors = None
        if self.image_embedding is not None and images is not None and self.vectors is not None:
            vectors = self.vectors.vectors(images.rows)
        ids = None
        if self.image_ids is not None and images is not None:
            ids = self.image_ids.of(images)
        logits = self.logits(batch, rows, images, vectors, ids)
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

    def _not_attached(self) -> ImageSourceError:
        name = self.settings.images
        return ImageSourceError(f"dicm: image features {name!r} are not attached")

    def logits(
        self,
        batch: RankerBatch,
        rows: BatchRows,
        images: BatchImages | None,
        vectors: Tensor | None,
        ids: ImageIds | None,
    ) -> Tensor:
        """Logits from vectors of items and images, wherever they were computed.

        Args:
            batch: ragged groups.
            rows: embeddings of its items and categories.
            images: what `find` says; None without images.
            vectors: (distinct, width), embedded `images.rows`; None if no image is looked at.
            ids: embeddings of the images' ids; None without `image_ids`.

        Returns:
            (impressions,).
        """
        pairs = window_pairs(batch, self.limit)
        parts = self._sparse(batch, rows, pairs)
        if images is not None and ids is not None:
            parts += self._image_ids(batch, images, ids, pairs)
        if images is not None and vectors is not None and self.image_embedding is not None:
            table = self.image_embedding.with_default(vectors)
            ads = functional.embedding(images.candidates, table)
            if self.settings.ad_image:
                parts.append(ads)
            if self.aggregator is not None:
                events = functional.embedding(images.history, table)
                parts.append(self.aggregator(events, ads, self._query(batch, rows), batch, pairs))
        logits: Tensor = self.head(torch.cat(parts, dim=1))
        return logits

    def _sparse(self, batch: RankerBatch, rows: BatchRows, pairs: Pairs) -> list[Tensor]:
        """The basic net's view of items and categories."""
        candidates = rows.candidates(batch)
        pooled = window_sums(rows, batch, self.limit)
        if self.settings.basic_net is BasicNet.LR:
            return [candidates, _mean(pooled, pairs)]
        if self.attention is None:
            return [candidates, pooled]
        history = rows.history(batch)
        scores = self.attention(candidates, history, pairs.impressions, pairs.events)
        weights = pairs.softmax(scores).unsqueeze(1)
        attended = pairs.sums(weights * history.index_select(0, pairs.events))
        return [candidates, pooled, attended]

    def _image_ids(
        self, batch: RankerBatch, images: BatchImages, ids: ImageIds, pairs: Pairs
    ) -> list[Tensor]:
        """Ids of images as sparse fields: the candidate's, and the pooled ones of behaviours."""
        events = functional.embedding(ids.index[images.history], ids.embeddings)
        pooled = value_sums(events, batch, self.limit)
        if self.settings.basic_net is BasicNet.LR:
            pooled = _mean(pooled, pairs)
        return [functional.embedding(ids.index[images.candidates], ids.embeddings), pooled]

    def _query(self, batch: RankerBatch, rows: BatchRows) -> Tensor:
        """The candidate's ID field that asks: (impressions, query width)."""
        if self.settings.id_query is IdQuery.CATEGORY:
            return functional.embedding(batch.candidate_categories, rows.categories)
        return functional.embedding(batch.candidate_items, rows.items)


def _mean(sums: Tensor, pairs: Pairs) -> Tensor:
    return sums / pairs.counts.clamp(min=1).unsqueeze(1)
