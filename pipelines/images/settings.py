"""The section `images` of `uic.yaml`. Light on purpose (no Beam, no torch)."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from uic.models.images.encoder_settings import Fc6, PretrainSettings
from uic.models.settings import ADVANCED, Section


def _default_pretraining() -> PretrainSettings:
    return PretrainSettings.model_validate({})


class ImagesSettings(Section):
    """Decoding of images and the encoder that makes features of them (DICM, section 4.1)."""

    max_pixels: Annotated[int, Field(ge=1, le=89_478_485)] = Field(
        50_000_000,
        description="an image with more, by its header, is rejected unread (a decompression bomb); "
        "pixels, up to Pillow's own limit of 89478485",
    )
    max_file_bytes: Annotated[int, Field(ge=1, le=2**31)] = Field(
        64 << 20, description="a larger file is rejected unread; bytes"
    )
    batch_images: Annotated[int, Field(ge=1, le=4096)] = Field(
        16, description="images that the encoder takes at once; count, 1 to 4096"
    )
    resize_px: Annotated[int, Field(ge=224, le=1024)] = Field(
        256,
        description="VGG16: shorter side after resizing; pixels (not in the paper)",
        json_schema_extra=ADVANCED,
    )
    crop_px: Annotated[int, Field(ge=32, le=1024)] = Field(
        224,
        description="VGG16: the square in the middle of that; pixels (not in the paper)",
        json_schema_extra=ADVANCED,
    )
    mean: tuple[float, float, float] = Field(
        (0.485, 0.456, 0.406),
        description="VGG16: mean of red, green, blue in 0 to 1 (not in the paper)",
        json_schema_extra=ADVANCED,
    )
    std: tuple[float, float, float] = Field(
        (0.229, 0.224, 0.225),
        description="VGG16: standard deviation of red, green, blue (not in the paper)",
        json_schema_extra=ADVANCED,
    )
    fc6: Fc6 = Field(
        Fc6.AFTER_RELU,
        description="VGG16: features before or after the ReLU of FC6 (not in the paper): "
        "before_relu|after_relu",
        json_schema_extra=ADVANCED,
    )
    versions_kept: Annotated[int, Field(ge=0, le=1000)] = Field(
        2,
        description="item versions before the one that is read that a new one leaves in the "
        "workspace, to go back to; count of each model, 0 to 1000",
    )
    pretrain: PretrainSettings = Field(
        default_factory=_default_pretraining, description="training of the compact encoder"
    )

    def limits(self) -> dict[str, int]:
        """What a file may cost: with other limits, an image that was rejected may be accepted."""
        return {"max_pixels": self.max_pixels, "max_file_bytes": self.max_file_bytes}

    @model_validator(mode="after")
    def _the_crop_fits(self) -> Self:
        if self.crop_px > self.resize_px:
            msg = f"crop_px is {self.crop_px}, more than resize_px ({self.resize_px})"
            raise ValueError(msg)
        if min(self.std) <= 0:
            msg = f"std is {self.std}, expected numbers above 0"
            raise ValueError(msg)
        return self
