"""The fixed part of an image's way: pixels to 4,096 floats (DICM, section 4.1 and figure 4).

`Vgg16` is the paper's: VGG16 up to FC6, with torchvision's parameter names, so that the usual
public weight file loads. `CompactEncoder` is for those who have no such file: a small network
trained here on labelled folders (`uic.models.images.pretraining`). Both are frozen afterwards.

An encoder's `identity` names its kind, the sum of its weights and how images are prepared for it:
features of two identities are never mixed.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from uic.models.errors import BadInputError
from uic.models.images.embedding import FEATURE_WIDTH
from uic.models.images.encoder_settings import Fc6
from uic.models.published import sha256_of

# Means and standard deviations of ImageNet, which VGG16 was trained with; red, green, blue.
IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)
# Configuration D; 0 is a pooling.
_VGG_CHANNELS: Final = (
    64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0,
)  # fmt: skip
_VGG_POOLED: Final = 7
# torchvision names a file by the first digits of its sum: vgg16-397923af.pth.
_NAMED_SUM: Final = re.compile(r"-([0-9a-f]{8})$")
# Layers after FC6, which the usual file has and this network leaves out.
_UNUSED: Final = tuple(f"classifier.{at}.{part}" for at in (3, 6) for part in ("weight", "bias"))


class ImageWeightsError(BadInputError):
    """A weight file is not one of VGG16 in torchvision's layout."""


@dataclass(frozen=True)
class Preparation:
    """How an image becomes an encoder's input.

    Args:
        resize_px: the shorter side is resized to this; pixels.
        crop_px: of that, the square in the middle; pixels.
        mean, std: of each channel (red, green, blue) of pixels in 0 to 1.
    """

    resize_px: int
    crop_px: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __str__(self) -> str:
        """Short, for identities: `256/224`."""
        return f"{self.resize_px}/{self.crop_px}"

    def normalised(self, pixels: NDArray[np.uint8]) -> Tensor:
        """(n, height, width, 3) uint8 to (n, 3, height, width) float32."""
        scaled = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(torch.float32) / 255
        mean, std = torch.tensor(self.mean), torch.tensor(self.std)
        return (scaled - mean[:, None, None]) / std[:, None, None]


VGG_PREPARATION: Final = Preparation(resize_px=256, crop_px=224)
COMPACT_PREPARATION: Final = Preparation(resize_px=72, crop_px=64)


@dataclass(frozen=True)
class ImageEncoder:
    """A frozen network with what belongs to it.

    Args:
        network: (n, 3, crop, crop) float32 to (n, features); in evaluation mode.
        preparation: of its input.
        identity: kind, sum of the weights, preparation.
        sha256: of the weights, in full.
        width: numbers per image.
    """

    network: nn.Module
    preparation: Preparation
    identity: str
    sha256: str
    width: int = FEATURE_WIDTH

    @torch.inference_mode()
    def encode(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Prepared images to features: (n, crop, crop, 3) uint8 to (n, width) float32."""
        batch = self.preparation.normalised(pixels).contiguous(memory_format=torch.channels_last)
        features: NDArray[np.float32] = self.network(batch).numpy()
        return features


class Vgg16(nn.Module):
    """VGG16 up to FC6 (Simonyan and Zisserman 2015, configuration D), torchvision's names.

    13 convolutions of 3 x 3 with ReLU and 5 maximum poolings, averaged to 7 x 7, and the first
    fully connected layer, 25,088 to 4,096: the 14 layers of DICM.

    Args:
        fc6: features before or after FC6's ReLU.
    """

    def __init__(self, fc6: Fc6 = Fc6.AFTER_RELU) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for channels in _VGG_CHANNELS:
            if not channels:
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [nn.Conv2d(inputs, channels, 3, padding=1), nn.ReLU(inplace=True)]
            inputs = channels
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(_VGG_POOLED)
        self.classifier = nn.Sequential(nn.Linear(inputs * _VGG_POOLED**2, FEATURE_WIDTH))
        if fc6 is Fc6.AFTER_RELU:
            self.classifier.append(nn.ReLU(inplace=True))

    def forward(self, images: Tensor) -> Tensor:
        """(n, 3, 224, 224) to (n, 4096)."""
        pooled = self.avgpool(self.features(images))  # (n, 512, 7, 7)
        features: Tensor = self.classifier(pooled.flatten(1))
        return features


class CompactEncoder(nn.Module):
    """Four convolutions, averaged over the image, and a layer to 4,096 floats after ReLU.

    64 x 64 pixels, 1.44 million weights. The last layer is for what FC6 is to VGG16: images of a
    class come to lie together, where maps of convolutions keep places of an image apart. The head
    that it is trained with is not part of it.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for channels, stride in ((32, 2), (64, 2), (128, 2), (256, 2)):
            layers += [
                nn.Conv2d(inputs, channels, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
            ]
            inputs = channels
        self.layers = nn.Sequential(*layers)
        self.fc6 = nn.Linear(inputs, FEATURE_WIDTH)

    def forward(self, images: Tensor) -> Tensor:
        """(n, 3, 64, 64) to (n, 4096)."""
        maps: Tensor = self.layers(images)  # (n, 256, 4, 4)
        return torch.relu(self.fc6(maps.mean((2, 3))))


def load_vgg16(
    path: Path, fc6: Fc6 = Fc6.AFTER_RELU, preparation: Preparation = VGG_PREPARATION
) -> ImageEncoder:
    """VGG16 with the weights of a file in torchvision's layout (`.pth` or `.safetensors`).

    Args:
        path: never unpickled beyond tensors.
        fc6: features before or after FC6's ReLU.
        preparation: of images.

    Raises:
        ImageWeightsError: not readable, not the file that its name promises, or a tensor is
            missing, unknown or mis-shaped; by name.
    """
    digest = _checked_sum(path)
    tensors = _read_tensors(path)
    with torch.device("meta"):
        network = Vgg16(fc6)
    expected = network.state_dict()
    for name, tensor in expected.items():
        loaded = tensors.get(name)
        if loaded is None:
            msg = f"{path}: tensor {name} is missing; expected VGG16 (no BN) as torchvision has it"
            raise ImageWeightsError(msg)
        if loaded.shape != tensor.shape or loaded.dtype != torch.float32:
            described = f"{str(loaded.dtype).removeprefix('torch.')}{list(loaded.shape)}"
            msg = f"{path}: tensor {name} is {described}, expected float32{list(tensor.shape)}"
            raise ImageWeightsError(msg)
    unknown = sorted(tensors.keys() - expected.keys() - set(_UNUSED))
    if unknown:
        msg = f"{path}: tensor {unknown[0]} is unknown to VGG16; is it of another network?"
        raise ImageWeightsError(msg)
    network.load_state_dict({name: tensors[name] for name in expected}, assign=True)
    identity = f"vgg16-fc6-{fc6}-{digest[:12]}-{preparation}"
    return ImageEncoder(frozen(network), preparation, identity, digest)


def frozen(network: nn.Module) -> nn.Module:
    """In evaluation mode, without gradients, in the memory order that convolutions like."""
    network = network.eval().requires_grad_(requires_grad=False)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _checked_sum(path: Path) -> str:
    if not path.is_file():
        msg = f"{path}: no such weight file; give VGG16's, e.g. torchvision's vgg16-397923af.pth"
        raise ImageWeightsError(msg)
    digest = sha256_of(path)
    named = _NAMED_SUM.search(path.stem)
    if named is not None and not digest.startswith(named[1]):
        msg = (
            f"{path}: sha256 begins with {digest[:8]}, its name says {named[1]}; "
            "the file is damaged or was renamed: get it again"
        )
        raise ImageWeightsError(msg)
    return digest


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors by name; a pickle may hold tensors and nothing else."""
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        document: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        msg = f"{path}: cannot be read as tensors ({reason}); expected a state dict or safetensors"
        raise ImageWeightsError(msg) from error
    except Exception as error:  # unpickling raises a type of its own, which torch does not export
        msg = f"{path}: holds more than tensors ({type(error).__name__}); expected a state dict"
        raise ImageWeightsError(msg) from error
    if not isinstance(document, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in document.items()
    ):
        msg = f"{path}: found {type(document).__name__}, expected a state dict of tensors by name"
        raise ImageWeightsError(msg)
    return dict(document)
