"""What a model that looks at images is told: which features, and how wide their embedding is.

Light on purpose (no torch), so that the command line can list the keys of `--set`.
"""

from typing import Annotated

from pydantic import Field

from uic.models.layers.ranker_settings import WindowedSettings


class ImageRankerSettings(WindowedSettings):
    """What DICM and its pre-rank share; with both image switches off each is its baseline.

    `image_width`, `image_encoder` and `images_sha256` are filled in by training, and kept in the
    bundle.
    """

    images: str = Field("", description="name of the image features (`uic images extract`)")
    image_widths: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(
        (256, 64, 12),
        min_length=1,
        description="layers of the image embedding; widths (paper: 256, 64, 12)",
    )
    image_width: Annotated[int, Field(ge=0, le=65_536)] = Field(
        0, description="width of the image features; 0 = as wide as `images` is (paper: 4096)"
    )
    image_encoder: str = Field(
        "", description="encoder that the features must be of; empty = that of `images`"
    )
    images_sha256: str = Field(
        "", description="sum of the manifest of the features trained on; filled in by training"
    )
    item_width: Annotated[int, Field(ge=1, le=256)] = Field(
        12, description="width of an item embedding; 1 to 256 (paper: 12)"
    )
    category_width: Annotated[int, Field(ge=0, le=256)] = Field(
        12, description="width of a category embedding; 0 to 256 (paper: 12)"
    )
    history_limit: Annotated[int, Field(ge=1, le=100_000)] = Field(
        100, description="events of history before an impression; count (paper: 32.6 on average)"
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
