"""DICM: behaviours and candidates modelled with their images too (Ge et al., CIKM 2018, section 3).

The paper's head input, each part with a switch: what the basic net makes of items and categories;
the ids of the images, as further sparse fields (the baseline has them too, section 7.4); the
candidate's image; the aggregated images of behaviours. One embedding model serves both kinds of
images. A linear basic net keeps to the paper, whatever `head_inputs` says.
"""

from torch import Tensor
from torch.nn import functional

from uic.models.layers.attention import AttentionUnit
from uic.models.layers.distinct_pairs import window_distinct_pairs
from uic.models.layers.embedding import BatchRows
from uic.models.layers.head_inputs import ITEM, MEAN, SUM
from uic.models.layers.ranker_settings import HeadInputs, InputNorm
from uic.models.layers.windows import Pairs, value_sums, window_pairs
from uic.models.rankers.dicm.batch_images import BatchImages
from uic.models.rankers.dicm.image_aggregator import ImageAggregator
from uic.models.rankers.dicm.image_id_table import ImageIds
from uic.models.rankers.dicm.image_ranker import ImageRanker, PassImages
from uic.models.rankers.dicm.settings import BasicNet, DicmSettings, IdQuery
from uic.models.rankers.ranker import Outputs
from uic.models.samples.batch import RankerBatch


class Dicm(ImageRanker):
    """Sparse fields and images to a logit.

    Args:
        settings: hyper-parameters, with `image_width` filled in where images are looked at.
        item_rows: rows of the item table.
        category_rows: rows of the category table.

    Raises:
        ImageSourceError: images are wanted and no features are named.
    """

    NAME = "dicm"
    settings: DicmSettings

    def __init__(self, settings: DicmSettings, item_rows: int, category_rows: int) -> None:
        event = settings.item_width + settings.category_width
        width = settings.image_widths[-1]
        aggregator = ImageAggregator(settings, width) if settings.behavior_images else None
        widths = {
            "attended": event if settings.basic_net is BasicNet.DIN else 0,
            "image id": settings.item_width if settings.image_ids else 0,
            "image ids": settings.item_width if settings.image_ids else 0,
            "image": width if settings.ad_image else 0,
            "images": 0 if aggregator is None else aggregator.features,
        }
        own = {name: wide for name, wide in widths.items() if wide}
        pooled, head = SUM, None
        if settings.basic_net is BasicNet.LR:
            linear = {"head_widths": (), "input_norm": InputNorm.NONE}
            # A product is not linear in ids.
            head = settings.model_copy(update={**linear, "head_inputs": HeadInputs.PAPER})
            pooled = MEAN
        super().__init__(settings, item_rows, category_rows, own, (ITEM, pooled, *own), head=head)
        self.aggregator = aggregator
        self.attention = AttentionUnit(event, event) if settings.basic_net is BasicNet.DIN else None

    def outputs_with(
        self, batch: RankerBatch, rows: BatchRows, images: PassImages | None
    ) -> Outputs:
        """See `ImageRanker.outputs_with`."""
        if images is None:
            logits = self.logits(batch, rows, None, None, None)
            return self.regularized(logits, batch, rows, None)
        logits = self.logits(batch, rows, images.found, images.vectors, images.ids)
        return self.regularized(logits, batch, rows, images.ids)

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
        own = {}
        if self.attention is not None:
            own["attended"] = self._attended(self.attention, batch, rows)
        if images is not None and ids is not None:
            own |= self._image_ids(batch, images, ids, pairs)
        if images is not None and vectors is not None and self.image_embedding is not None:
            table = self.image_embedding.with_default(vectors)
            ads = functional.embedding(images.candidates, table)
            if self.settings.ad_image:
                own["image"] = ads
            if self.aggregator is not None:
                events = functional.embedding(images.history, table)
                query = self._query(batch, rows)
                own["images"] = self.aggregator(events, ads, query, batch, pairs)
        return self.logits_of(self.parts.joined(own, batch, rows), batch)

    def _attended(self, unit: AttentionUnit, batch: RankerBatch, rows: BatchRows) -> Tensor:
        """The history as DIN sees it: (impressions, event width)."""
        candidates = rows.candidates(batch)
        distinct = window_distinct_pairs(batch, self.limit, events_alike=True)
        keys = rows.events(batch, distinct.keys)
        return unit.attend(candidates[distinct.queries], keys, distinct)[1]

    def _image_ids(
        self, batch: RankerBatch, images: BatchImages, ids: ImageIds, pairs: Pairs
    ) -> dict[str, Tensor]:
        """Ids of images as sparse fields: the candidate's, and the pooled ones of behaviours."""
        events = functional.embedding(ids.index[images.history], ids.embeddings)
        pooled = value_sums(events, batch, self.limit)
        if self.settings.basic_net is BasicNet.LR:
            pooled = pooled / pairs.counts.clamp(min=1).unsqueeze(1)
        candidates = functional.embedding(ids.index[images.candidates], ids.embeddings)
        return {"image id": candidates, "image ids": pooled}

    def _query(self, batch: RankerBatch, rows: BatchRows) -> Tensor:
        """The candidate's ID field that asks: (impressions, query width)."""
        if self.settings.id_query is IdQuery.CATEGORY:
            return functional.embedding(batch.candidate_categories, rows.categories)
        return functional.embedding(batch.candidate_items, rows.items)
