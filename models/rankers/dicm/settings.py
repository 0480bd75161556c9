"""Settings of DICM (Ge et al., CIKM 2018). Light on purpose (no torch)."""

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from uic.models.rankers.dicm.image_settings import ImageRankerSettings


class Aggregator(StrEnum):
    """Images of behaviours to one vector (DICM, section 5.2, figure 3)."""

    CONCATENATE = "concatenate"
    MAX = "max"
    SUM = "sum"
    ATTENTIVE = "attentive"
    MULTI_QUERY = "multi_query"


class BasicNet(StrEnum):
    """The net for sparse fields that images are added to (DICM, section 7.4, figure 5)."""

    MLP = "mlp"
    DIN = "din"
    LR = "lr"


class AttentionWeights(StrEnum):
    """What attention multiplies images of behaviours with (DICM, section 5.2: as DIN does).

    DIN gives the softmax up, to keep how strong an interest is (DIN, section 4.3).
    """

    RAW = "raw"
    SOFTMAX = "softmax"


class IdQuery(StrEnum):
    """The ID field of the ad that asks in multi-query attention (the paper: "e.g." category)."""

    CATEGORY = "category"
    ITEM = "item"


class DicmSettings(ImageRankerSettings):
    """Hyper-parameters of DICM; with both image switches off it is the paper's baseline."""

    basic_net: BasicNet = Field(BasicNet.MLP, description="net for sparse fields: mlp|din|lr")
    aggregator: Aggregator = Field(
        Aggregator.MULTI_QUERY,
        description="behaviour images to one vector: concatenate|max|sum|attentive|multi_query",
    )
    attention_weights: AttentionWeights = Field(
        AttentionWeights.RAW,
        description="attentive, multi_query: raw keeps how strong an interest is | softmax",
    )
    concatenate_events: Annotated[int, Field(ge=1, le=1000)] = Field(
        20, description="newest events that are concatenated, padded with zeros; count"
    )
    id_query: IdQuery = Field(
        IdQuery.CATEGORY, description="ID field of the second query: category|item"
    )

    @model_validator(mode="after")
    def _attention_has_a_query(self) -> Self:
        if self.behavior_images and not self.ad_image and self.aggregator is Aggregator.ATTENTIVE:
            msg = (
                "aggregator=attentive asks with the candidate's image, and ad_image=false; "
                "use multi_query (then asks with the ID alone), sum or max"
            )
            raise ValueError(msg)
        if self.aggregator is Aggregator.MULTI_QUERY and not self.query_width:
            msg = "aggregator=multi_query asks with the category, and category_width=0"
            raise ValueError(msg)
        return self

    @property
    def query_width(self) -> int:
        """Width of the ID field that asks."""
        return self.category_width if self.id_query is IdQuery.CATEGORY else self.item_width
