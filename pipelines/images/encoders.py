"""Which encoder a run uses, as something that travels to workers; they load it once each."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from uic.models.errors import BadInputError
from uic.models.images.encoder import ImageEncoder, Preparation, load_vgg16
from uic.models.images.pretraining import load_encoder
from uic.models.published import MANIFEST_NAME, stamp_of
from uic.pipelines.images.settings import ImagesSettings

DEFAULT_ENCODER: Final = "compact"


class NoEncoderError(BadInputError):
    """There is neither a weight file nor a pretrained encoder."""


@dataclass(frozen=True)
class EncoderChoice:
    """One encoder, before it is loaded.

    Args:
        path: a weight file of VGG16, or a published compact encoder.
        settings: for VGG16: preparation, and which side of FC6's ReLU.
    """

    path: Path
    settings: ImagesSettings

    @classmethod
    def of(
        cls, weights: Path | None, encoder: str | None, encoders: Path, settings: ImagesSettings
    ) -> "EncoderChoice":
        """VGG16 if a weight file is given, else the compact encoder of a name.

        Args:
            weights: file of VGG16; None for a compact encoder.
            encoder: its name; None for `compact`.
            encoders: `WORKSPACE/image_encoders`.
            settings: section `images`.

        Raises:
            NoEncoderError: both are given, or there is no encoder of that name.
        """
        if weights is not None:
            if encoder is not None:
                msg = f"--weights {weights} and --encoder {encoder}: give one of them"
                raise NoEncoderError(msg)
            return cls(weights, settings)
        path = encoders / (encoder or DEFAULT_ENCODER)
        if not (path / "manifest.json").exists():
            known = ", ".join(
                sorted(manifest.parent.name for manifest in encoders.glob("*/manifest.json"))
            )
            msg = (
                f"{path}: no such encoder (there is: {known or 'none'}); give --weights FILE of "
                "VGG16, or train a compact one: uic images pretrain DIR"
            )
            raise NoEncoderError(msg)
        return cls(path, settings)

    def load(self) -> ImageEncoder:
        """The encoder, loaded once a process.

        Raises:
            ImageWeightsError: the weight file is not VGG16's.
            ManifestError: the compact encoder is damaged.
        """
        return _loaded(self, stamp_of(self.path), stamp_of(self.path / MANIFEST_NAME))


@lru_cache(maxsize=1)
def _loaded(
    choice: EncoderChoice,
    *stamps: tuple[int, ...],  # noqa: ARG001 - another file under one name is loaded again
) -> ImageEncoder:
    if choice.path.is_dir():
        return load_encoder(choice.path)
    settings = choice.settings
    preparation = Preparation(settings.resize_px, settings.crop_px, settings.mean, settings.std)
    return load_vgg16(choice.path, settings.fc6, preparation)
