"""Settings of the fixed image encoders. Light on purpose (no torch)."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from uic.models.settings import Section


class Fc6(StrEnum):
    """Which side of FC6's ReLU the features are (the paper does not say)."""

    BEFORE_RELU = "before_relu"
    AFTER_RELU = "after_relu"


class PretrainSettings(Section):
    """Training of the compact encoder."""

    epochs: Annotated[int, Field(ge=1, le=10_000)] = Field(
        150, description="passes over the images; count, 1 to 10000"
    )
    batch_images: Annotated[int, Field(ge=2, le=4096)] = Field(
        32, description="images of a step; count, 2 to 4096"
    )
    learning_rate: Annotated[float, Field(gt=0, le=1)] = Field(
        0.002, description="of AdamW, falling to 0 as a cosine; 0 to 1"
    )
    held_out_share: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.2, description="images that only measure; share, 0 to 1"
    )
