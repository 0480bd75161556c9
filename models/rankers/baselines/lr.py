"""Logistic regression on ids: a weight for each id as candidate, and one as event (DICM, fig. 5).

The logit is linear in `[item, mean of history]`; with embeddings of width 2 that is one free
weight for each id in each of the two roles, so wider ones would only be slower.
"""

from typing import Annotated, Literal

from pydantic import Field

from uic.models.layers.embedding import BatchRows
from uic.models.layers.head_inputs import ITEM, MEAN
from uic.models.layers.ranker_settings import HeadInputs, InputNorm, RankerSettings
from uic.models.rankers.ranker import Outputs, Ranker
from uic.models.samples.batch import RankerBatch


class LrSettings(RankerSettings):
    """Hyper-parameters of logistic regression: no hidden layer."""

    item_width: Annotated[int, Field(ge=2, le=256)] = Field(
        2, description="width of an item embedding; 2 are enough, up to 256"
    )
    category_width: Annotated[int, Field(ge=0, le=256)] = Field(
        2, description="width of a category embedding; 2 are enough, 0 to 256"
    )
    head_widths: tuple[()] = Field((), description="hidden layers of the head; none")
    input_norm: Literal[InputNorm.NONE] = Field(
        InputNorm.NONE, description="what scales the head's input: none"
    )
    head_inputs: Literal[HeadInputs.PAPER] = Field(
        HeadInputs.PAPER, description="what the head is fed: paper, since a product is not linear"
    )


class LogisticRegression(Ranker):
    """A linear function of the candidate's and the mean event's embedding.

    Args:
        settings: hyper-parameters.
        item_rows: rows of the item table.
        category_rows: rows of the category table.
    """

    def __init__(self, settings: LrSettings, item_rows: int, category_rows: int) -> None:
        super().__init__(settings, item_rows, category_rows, {}, (ITEM, MEAN))

    def outputs(self, batch: RankerBatch, rows: BatchRows) -> Outputs:
        """See `Ranker.outputs`."""
        return self.finish({}, batch, rows)
