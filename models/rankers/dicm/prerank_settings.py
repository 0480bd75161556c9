"""Settings of the pre-rank (Ge et al., CIKM 2018, table 8). Light on purpose (no torch)."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from uic.models.layers.ranker_settings import HeadInputs
from uic.models.rankers.dicm.image_settings import ImageRankerSettings


class PrerankSettings(ImageRankerSettings):
    """Hyper-parameters of the two towers; with both image switches off the paper's baseline.

    Without `images` all three switches are off, unless one of them is set.
    """

    head_widths: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(
        (64,), description="hidden layers of each tower; widths, [] for a linear tower"
    )

    @model_validator(mode="before")
    @classmethod
    def _without_images(cls, values: Any) -> Any:
        """Where no features are named, and no switch is set, the towers look at ids alone."""
        switches = ("ad_image", "behavior_images", "image_ids")
        if not isinstance(values, dict) or values.get("images") or set(switches) & set(values):
            return values
        return {**values, **dict.fromkeys(switches, False)}

    head_inputs: Literal[HeadInputs.PAPER] = Field(
        HeadInputs.PAPER,
        description="what the towers are fed: paper, since item and history may not meet in one",
    )
    vector_width: Annotated[int, Field(ge=1, le=1024)] = Field(
        12, description="width of a user's and of an item's vector, which are equally long"
    )
