"""Settings of the pre-rank (Ge et al., CIKM 2018, table 8). Light on purpose (no torch)."""

from typing import Annotated

from pydantic import Field

from models.image_settings import ImageSettings
from models.ranker_settings import WindowedSettings


class PrerankSettings(ImageSettings, WindowedSettings):
    """Hyper-parameters of the two towers; with both image switches off the paper's baseline."""

    item_width: Annotated[int, Field(ge=1, le=256)] = Field(
        12, description="width of an item embedding; 1 to 256 (paper: 12)"
    )
    category_width: Annotated[int, Field(ge=0, le=256)] = Field(
        12, description="width of a category embedding; 0 to 256 (paper: 12)"
    )
    history_limit: Annotated[int, Field(ge=1, le=100_000)] = Field(
        100, description="events of history before an impression; count (paper: 32.6 on average)"
    )
    head_widths: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(
        (64,), description="hidden layers of each tower; widths, [] for a linear tower"
    )
    vector_width: Annotated[int, Field(ge=1, le=1024)] = Field(
        12, description="width of a user's and of an item's vector, which are equally long"
    )
    ad_image: bool = Field(default=True, description="the candidate's image is a feature")
    behavior_images: bool = Field(default=True, description="images of behaviours are a feature")
    image_ids: bool = Field(
        default=True, description="ids of these images are sparse fields, in the baseline too"
    )
    image_id_rows: Annotated[int, Field(ge=1)] = Field(
        65_536, description="rows that image ids are hashed to; count"
    )
    adaptive_regularization: Annotated[float, Field(ge=0)] = Field(
        0.01, description="factor on squared embeddings of a batch's ids, each over its frequency"
    )

    @property
    def wants_images(self) -> bool:
        """Whether anything needs to know which image an item shows."""
        return self.ad_image or self.behavior_images or self.image_ids
