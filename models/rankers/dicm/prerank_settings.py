"""Settings of the pre-rank (Ge et al., CIKM 2018, table 8). Light on purpose (no torch)."""

from typing import Annotated

from pydantic import Field

from uic.models.rankers.dicm.image_settings import ImageRankerSettings


class PrerankSettings(ImageRankerSettings):
    """Hyper-parameters of the two towers; with both image switches off the paper's baseline."""

    head_widths: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(
        (64,), description="hidden layers of each tower; widths, [] for a linear tower"
    )
    vector_width: Annotated[int, Field(ge=1, le=1024)] = Field(
        12, description="width of a user's and of an item's vector, which are equally long"
    )
