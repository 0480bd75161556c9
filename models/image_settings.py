"""What a model that looks at images is told: which features, and how wide their embedding is.

Light on purpose (no torch), so that the command line can list the keys of `--set`.
"""

from typing import Annotated

from pydantic import Field

from models.settings import Section


class ImageSettings(Section):
    """Images of a model. The last three are filled in by training, and kept in the bundle."""

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
