"""What all rankers have in common: embeddings in, a logit per impression out.

A model is one file and one class. It embeds each group's history once, however many impressions
look at it, and every quantity of an impression depends only on the first `lengths` events of its
group: what a server would have known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from uic.models.errors import BadInputError
from uic.models.features.fitted import FittedFeatures
from uic.models.images.features import ImageFeatures
from uic.models.layers.embedding import BatchRows, ItemEmbedding
from uic.models.layers.features import FeatureEmbedding
from uic.models.layers.head import Head
from uic.models.layers.head_inputs import HeadParts
from uic.models.layers.ranker_settings import RankerSettings
from uic.models.rankers.lmn.lmn import LargeMemory
from uic.models.rankers.lmn.settings import LargeMemorySettings
from uic.models.samples.batch import RankerBatch


@dataclass(frozen=True)
class Outputs:
    """What a model says of a batch.

    Attributes:
        all_logits: (impressions,), of a click; of a model with tasks (impressions, 1 + tasks), the
            click first.
        penalty: scalar, added to the cross-entropy.
    """

    all_logits: Tensor
    penalty: Tensor

    @property
    def logits(self) -> Tensor:
        """(impressions,), of a click."""
        return click_logits(self.all_logits)


def click_logits(all_logits: Tensor) -> Tensor:
    """The click's of `Outputs.all_logits`: (n,)."""
    return all_logits if all_logits.ndim == 1 else all_logits[:, 0]


class Ranker(nn.Module):
    """Base of every model.

    Args:
        settings: hyper-parameters.
        item_rows: rows of the item table.
        category_rows: rows of the category table.
        own: widths by name of what the model alone knows, for its head; see `HeadParts.of`.
        paper: names of what its paper feeds the head, in order; empty for a model without a head.
        memory: of a large memory beside the model's own view of the history; None for none.
        limit: newest events of a history that the model is given; None for all.
    """

    # Prefixes of tensors that a warm start does not copy, beside `embedding.` that it maps by id:
    # `PER_ROW` never (they follow the vocabulary's rows), `HASHED_IDS` not with --except-ids.
    PER_ROW: ClassVar[tuple[str, ...]] = ()
    HASHED_IDS: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        settings: RankerSettings,
        item_rows: int,
        category_rows: int,
        own: Mapping[str, int],
        paper: Sequence[str] | None = None,
        *,
        memory: LargeMemorySettings | None = None,
        limit: int | None = None,
    ) -> None:
        super().__init__()
        self.embedding = ItemEmbedding(
            item_rows,
            category_rows,
            settings.item_width,
            settings.category_width,
            std=settings.embedding_std,
        )
        self.large: LargeMemory | None = None
        if memory is not None:
            self.large = LargeMemory(memory, self.embedding.width, limit)
        width = self.embedding.width
        self.parts = HeadParts.of(settings.head_inputs, own, paper, width=width, limit=limit)
        self.feature_embedding: FeatureEmbedding | None = None
        self.tasks: dict[str, float] = {}  # label beside the click -> weight of its loss
        self.task_heads: nn.ModuleDict | None = None
        self.hyper_parameters = settings
        if self.parts.width:
            self.head = self._new_head()

    def head_features(self) -> dict[str, int]:
        """The width of everything that the head is fed, by name and in order.

        The model's parts, what a large memory recalls, and the features of impressions, among them
        those of the record (`state.*`).
        """
        named = dict(self.parts.widths)
        if self.large is not None:
            named["recalled"] = self.large.features
        if self.feature_embedding is not None:
            named |= self.feature_embedding.widths
        return named

    def _new_head(self) -> Head:
        settings = self.hyper_parameters
        inputs = sum(self.head_features().values())
        return Head(inputs, settings.head_widths, settings.activation, settings.input_norm)

    def attach_features(self, fitted: FittedFeatures) -> None:
        """Give the head the features of impressions beside the model's own; before training."""
        if not fitted.fitted:
            return
        self.feature_embedding = FeatureEmbedding(fitted)
        self.head = self._new_head()

    def attach_event_features(self, fitted: FittedFeatures) -> None:
        """Give the fold the columns of events that its settings name; before training.

        Args:
            fitted: those columns; none for a model without.

        Raises:
            BadInputError: the settings name one that is not there.
        """

    def attach_tasks(self, weights: Mapping[str, float]) -> None:
        """Give labels beside the click a head each, after the features; before training.

        Args:
            weights: of each label's loss, by its name.

        Raises:
            BadInputError: the model has no head.
        """
        if not weights:
            return
        if not self.parts.width:
            msg = f"this model has no head; train it without task_weights (found {dict(weights)})"
            raise BadInputError(msg)
        self.tasks = dict(sorted(weights.items()))
        # The names of a module may be those of no attribute, like `items`.
        self.task_heads = nn.ModuleDict({f"{name}_head": self._new_head() for name in self.tasks})

    def attach_images(self, images: ImageFeatures | None) -> None:
        """Say where images of items come from; a model without images does not look."""

    def extra_metrics(self, batch: RankerBatch) -> dict[str, list[float]]:  # noqa: ARG002
        """What a table shows of this model beside its scores, over a batch; nothing here."""
        return {}

    def finish(self, own: Mapping[str, Tensor], batch: RankerBatch, rows: BatchRows) -> Outputs:
        """What the model alone knows, by name, and all else that the head is fed, to its logits.

        Args:
            own: (impressions, width) each, of the names and widths that the model was made with.
            batch: ragged groups.
            rows: embeddings of its items.

        Returns:
            The logits, and the loss of a large memory as penalty.

        Raises:
            BadInputError: other names.
        """
        return self.finish_with(self.parts.joined(own, batch, rows), batch, rows)

    def finish_with(self, features: Tensor, batch: RankerBatch, rows: BatchRows) -> Outputs:
        """As `finish`, from the parts side by side: (impressions, width of `parts`)."""
        if self.large is None:
            logits = self.logits_of(features, batch)
            return Outputs(logits, no_penalty(logits))
        recalled = self.large(batch, rows)
        features = torch.cat([features, recalled.features], dim=1)
        return Outputs(self.logits_of(features, batch), recalled.loss)

    def logits_of(self, inputs: Tensor, batch: RankerBatch) -> Tensor:
        """The model's own numbers of impressions, and their features, to logits.

        Args:
            inputs: (impressions, the model's width).
            batch: whose features.

        Returns:
            As `Outputs.all_logits`.
        """
        if self.feature_embedding is not None:
            inputs = torch.cat([inputs, self.feature_embedding(batch)], dim=1)
        return self.heads(inputs)

    def heads(self, inputs: Tensor) -> Tensor:
        """What all heads say of the same numbers: as `Outputs.all_logits`."""
        logits: Tensor = self.head(inputs)
        if self.task_heads is None:
            return logits
        return torch.stack([logits, *(head(inputs) for head in self.task_heads.values())], dim=1)

    def outputs(self, batch: RankerBatch, rows: BatchRows) -> Outputs:
        """Logits and penalty of a batch, from the embeddings of its items.

        Args:
            batch: ragged groups.
            rows: `self.embedding.rows(batch)`; a gradient of the loss ends there.
        """
        raise NotImplementedError

    def forward(self, batch: RankerBatch) -> Tensor:
        """Logits of a click: (impressions,)."""
        return click_logits(self.all_logits(batch))

    def all_logits(self, batch: RankerBatch) -> Tensor:
        """As `Outputs.all_logits`."""
        return self.outputs(batch, self.embedding.rows(batch)).all_logits


def no_penalty(logits: Tensor) -> Tensor:
    """Zero, for models whose loss is the cross-entropy alone."""
    return torch.zeros((), dtype=logits.dtype, device=logits.device)
