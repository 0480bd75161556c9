"""The pre-rank: two towers, and the inner product of their vectors (Ge et al., CIKM 2018, table 8).

Of several thousand candidates a light model keeps some hundred for the ranker. Item and user meet
nowhere but in the last product, so the vectors of items are computed ahead of all requests, and a
request costs one vector of the user and one matrix-vector product. The behaviours are summed: any
pooling that looks at the candidate would mix the two sides earlier.

| tower | input, each with a switch |
|---|---|
| item | item, category, id of its image, its image; features of the item |
| user | sums over the last behaviours: items, categories, ids of images, images; features of user |

Features of the context are the user tower's, too; where it has any it runs once an impression.
"""

from dataclasses import replace
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from uic.models.errors import BadInputError
from uic.models.features.definition import Owner
from uic.models.features.fitted import FittedFeatures
from uic.models.layers.embedding import BatchRows
from uic.models.layers.features import FeatureEmbedding
from uic.models.layers.head import activation, input_norm
from uic.models.layers.windows import value_sums, window_sums
from uic.models.rankers.dicm.image_ranker import ImageRanker, PassImages
from uic.models.rankers.dicm.prerank_settings import PrerankSettings
from uic.models.rankers.ranker import Outputs
from uic.models.samples.batch import RankerBatch

ITEM_SIDE: Final = frozenset({Owner.ITEM})
USER_SIDE: Final = frozenset({Owner.USER, Owner.CONTEXT})


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
        super().__init__(settings, item_rows, category_rows, {}, ())
        ids = settings.item_width + settings.category_width
        ids += settings.item_width if settings.image_ids else 0
        width = settings.image_widths[-1]
        self._item_inputs = ids + (width if settings.ad_image else 0)
        self._user_inputs = ids + (width if settings.behavior_images else 0)
        self.item_tower = Tower(self._item_inputs, settings)
        self.user_tower = Tower(self._user_inputs, settings)
        self.bias = nn.Parameter(torch.zeros(()))

    def attach_features(self, fitted: FittedFeatures) -> None:
        """Give each tower the features of its own side; before training."""
        if not fitted.fitted:
            return
        if fitted.definitions.of(Owner.STATE):
            msg = "prerank takes no features of a record (state.*); make samples with --state none"
            raise BadInputError(msg)
        embedding = self.feature_embedding = FeatureEmbedding(fitted)
        item_inputs = self._item_inputs + embedding.width_of(ITEM_SIDE)
        self.item_tower = Tower(item_inputs, self.settings)
        self.user_tower = Tower(self._user_inputs + embedding.width_of(USER_SIDE), self.settings)

    def outputs_with(
        self, batch: RankerBatch, rows: BatchRows, images: PassImages | None
    ) -> Outputs:
        """See `ImageRanker.outputs_with`."""
        table = self._table(images)
        sums = self._sums(batch, rows, images, table)  # (cuts, width)
        features = self._features(batch, USER_SIDE)
        if features is None:
            users = self.user_tower(sums).index_select(0, batch.cuts)  # (impressions, vector width)
        else:
            sums = sums.index_select(0, batch.cuts)  # (impressions, width)
            users = self.user_tower(torch.cat([sums, features], dim=1))
        beside = self._features(batch, ITEM_SIDE)
        items = self._items(batch, rows, images, table, beside)  # (impressions, vector width)
        logits = (users * items).sum(1) + self.bias
        ids = None if images is None else images.ids
        return self.regularized(logits, batch, rows, ids)

    @torch.no_grad()
    def history_sums(self, batch: RankerBatch, images: PassImages | None) -> Tensor:
        """What the user tower takes of each distinct history of a batch, (cuts, width)."""
        return self._sums(batch, self.embedding.rows(batch), images, self._table(images))

    @torch.no_grad()
    def user_vectors(self, sums: Tensor, features: Tensor | None = None) -> Tensor:
        """The vector of users.

        Args:
            sums: (n, width), by `history_sums`.
            features: (n, width), of users and context, embedded; None for a bundle without.

        Returns:
            (n, vector width).
        """
        inputs = sums if features is None else torch.cat([sums, features], dim=1)
        vectors: Tensor = self.user_tower(inputs)
        return vectors

    @torch.no_grad()
    def item_vectors(
        self, batch: RankerBatch, images: PassImages | None, features: Tensor | None = None
    ) -> Tensor:
        """The vector of each candidate of a batch; no user matters.

        Args:
            batch: whose candidates.
            images: theirs.
            features: (impressions, width), of items, embedded; None takes the batch's, if the
                model has any.

        Returns:
            (impressions, vector width).
        """
        if features is None:
            features = self._features(batch, ITEM_SIDE)
        rows = self.embedding.rows(batch)
        return self._items(batch, rows, images, self._table(images), features)

    def _features(self, batch: RankerBatch, side: frozenset[Owner]) -> Tensor | None:
        """(impressions, width) of one tower; None where it has no features."""
        embedding = self.feature_embedding
        if embedding is None or not embedding.width_of(side):
            return None
        return embedding.of(batch, side)

    def _sums(
        self,
        batch: RankerBatch,
        rows: BatchRows,
        images: PassImages | None,
        table: Tensor | None,
    ) -> Tensor:
        """(cuts, width), each distinct (group, length) once, however many impressions share it."""
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
        return torch.cat(parts, dim=1)

    def _items(
        self,
        batch: RankerBatch,
        rows: BatchRows,
        images: PassImages | None,
        table: Tensor | None,
        features: Tensor | None,
    ) -> Tensor:
        parts = [rows.candidates(batch)]
        if images is not None and images.ids is not None:
            index = images.ids.index[images.found.candidates]
            parts.append(functional.embedding(index, images.ids.embeddings))
        if images is not None and table is not None and self.settings.ad_image:
            parts.append(functional.embedding(images.found.candidates, table))
        if features is not None:
            parts.append(features)
        vectors: Tensor = self.item_tower(torch.cat(parts, dim=1))
        return vectors

    def _table(self, images: PassImages | None) -> Tensor | None:
        """(distinct + 1, width), embedded images and the default; None if none is looked at."""
        if images is None or images.vectors is None or self.image_embedding is None:
            return None
        return self.image_embedding.with_default(images.vectors)
