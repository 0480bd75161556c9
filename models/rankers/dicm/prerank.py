"""The pre-rank: two towers, and the inner product of their vectors (Ge et al., CIKM 2018, table 8).

Of several thousand candidates a light model keeps some hundred for the ranker. Item and user meet
nowhere but in the last product, so the vectors of items are computed ahead of all requests, and a
request costs one vector of the user and one matrix-vector product. The behaviours are summed: any
pooling that looks at the candidate would mix the two sides earlier.

| tower | input, each with a switch |
|---|---|
| item | item, category, id of its image, its image |
| user | sums over the last behaviours: items, categories, ids of images, images |
"""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from uic.models.layers.embedding import BatchRows
from uic.models.layers.head import activation, input_norm
from uic.models.layers.windows import value_sums, window_sums
from uic.models.rankers.dicm.image_ranker import ImageRanker, PassImages
from uic.models.rankers.dicm.prerank_settings import PrerankSettings
from uic.models.rankers.ranker import Outputs
from uic.models.samples.batch import RankerBatch


class Tower(nn.Module):
    """Features of one side to its vector: hidden layers with activation, then a linear one.

    Args:
        features: width of the input.
        settings: widths, activation, scale of the input.
    """

    def __init__(self, features: int, settings: PrerankSettings) -> None:
        super().__init__()
        layers: list[nn.Module] = [input_norm(settings.input_norm, features)]
        for width in settings.head_widths:
            layers += [nn.Linear(features, width), activation(settings.activation, width)]
            features = width
        layers.append(nn.Linear(features, settings.vector_width))
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """(n, features) to (n, vector width)."""
        vectors: Tensor = self.layers(features)
        return vectors


class Prerank(ImageRanker):
    """`logit = <user vector, item vector> + bias`.

    Both towers end in a linear layer, so the product needs no scale of its own; the bias carries
    the rate of clicks and changes no order.

    Args:
        settings: hyper-parameters, with `image_width` filled in where images are looked at.
        item_rows: rows of the item table.
        category_rows: rows of the category table.

    Raises:
        ImageSourceError: images are wanted and no features are named.
    """

    NAME = "prerank"
    settings: PrerankSettings

    def __init__(self, settings: PrerankSettings, item_rows: int, category_rows: int) -> None:
        super().__init__(settings, item_rows, category_rows, 0)
        ids = settings.item_width + settings.category_width
        ids += settings.item_width if settings.image_ids else 0
        width = settings.image_widths[-1]
        self.item_tower = Tower(ids + (width if settings.ad_image else 0), settings)
        self.user_tower = Tower(ids + (width if settings.behavior_images else 0), settings)
        self.bias = nn.Parameter(torch.zeros(()))

    def outputs_with(
        self, batch: RankerBatch, rows: BatchRows, images: PassImages | None
    ) -> Outputs:
        """See `ImageRanker.outputs_with`."""
        table = self._table(images)
        users = self._users(batch, rows, images, table)  # (cuts, vector width)
        items = self._items(batch, rows, images, table)  # (impressions, vector width)
        logits = (users.index_select(0, batch.cuts) * items).sum(1) + self.bias
        ids = None if images is None else images.ids
        return self.regularized(logits, batch, rows, ids)

    @torch.no_grad()
    def user_vectors(self, batch: RankerBatch, images: PassImages | None) -> Tensor:
        """The vector of each distinct history of a batch, (cuts, vector width)."""
        return self._users(batch, self.embedding.rows(batch), images, self._table(images))

    @torch.no_grad()
    def item_vectors(self, batch: RankerBatch, images: PassImages | None) -> Tensor:
        """The vector of each candidate of a batch, (impressions, vector width); no user matters."""
        return self._items(batch, self.embedding.rows(batch), images, self._table(images))

    def _users(
        self,
        batch: RankerBatch,
        rows: BatchRows,
        images: PassImages | None,
        table: Tensor | None,
    ) -> Tensor:
        """Each distinct (group, length) once, however many impressions share it."""
        cuts = replace(batch, groups=batch.cut_groups, lengths=batch.cut_lengths)
        parts = [window_sums(rows, cuts, self.limit)]
        if images is not None and images.ids is not None:
            events = functional.embedding(
                images.ids.index[images.found.history], images.ids.embeddings
            )
            parts.append(value_sums(events, cuts, self.limit))
        if images is not None and table is not None and self.settings.behavior_images:
            events = functional.embedding(images.found.history, table)
            parts.append(value_sums(events, cuts, self.limit))
        vectors: Tensor = self.user_tower(torch.cat(parts, dim=1))
        return vectors

    def _items(
        self,
        batch: RankerBatch,
        rows: BatchRows,
        images: PassImages | None,
        table: Tensor | None,
    ) -> Tensor:
        parts = [rows.candidates(batch)]
        if images is not None and images.ids is not None:
            index = images.ids.index[images.found.candidates]
            parts.append(functional.embedding(index, images.ids.embeddings))
        if images is not None and table is not None and self.settings.ad_image:
            parts.append(functional.embedding(images.found.candidates, table))
        vectors: Tensor = self.item_tower(torch.cat(parts, dim=1))
        return vectors

    def _table(self, images: PassImages | None) -> Tensor | None:
        """(distinct + 1, width), embedded images and the default; None if none is looked at."""
        if images is None or images.vectors is None or self.image_embedding is None:
            return None
        return self.image_embedding.with_default(images.vectors)
