"""VGG16 from a file of the usual layout, and the compact encoder that is trained here."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from uic.models.errors import ManifestError
from uic.models.images.encoder import (
    COMPACT_PREPARATION,
    Fc6,
    ImageWeightsError,
    Preparation,
    Vgg16,
    load_vgg16,
)
from uic.models.images.encoder_settings import PretrainSettings
from uic.models.images.pretraining import PretrainingError, load_encoder, pretrain, save_encoder
from uic.models.published import sha256_of

# The tensors of torchvision's vgg16-397923af.pth up to FC6.
USUAL = {
    "features.0.weight": (64, 3, 3, 3),
    "features.2.weight": (64, 64, 3, 3),
    "features.5.weight": (128, 64, 3, 3),
    "features.7.weight": (128, 128, 3, 3),
    "features.10.weight": (256, 128, 3, 3),
    "features.12.weight": (256, 256, 3, 3),
    "features.14.weight": (256, 256, 3, 3),
    "features.17.weight": (512, 256, 3, 3),
    "features.19.weight": (512, 512, 3, 3),
    "features.21.weight": (512, 512, 3, 3),
    "features.24.weight": (512, 512, 3, 3),
    "features.26.weight": (512, 512, 3, 3),
    "features.28.weight": (512, 512, 3, 3),
    "classifier.0.weight": (4096, 25088),
}
SMALL = Preparation(resize_px=48, crop_px=32)


def usual_tensors() -> dict[str, torch.Tensor]:
    """Random numbers in the usual layout; one number repeated where the file would be large."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, shape in USUAL.items():
        inputs = int(np.prod(shape[1:]))
        tensors[name] = torch.randn(shape, generator=generator) * (2 / inputs) ** 0.5
        tensors[name.replace("weight", "bias")] = torch.zeros(shape[0])
    # The layers after FC6 are in the file and are not read (here small, whatever their shape).
    for at in (3, 6):
        tensors |= {
            f"classifier.{at}.weight": torch.zeros(1),
            f"classifier.{at}.bias": torch.zeros(1),
        }
    return tensors


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "vgg16.pth"
    torch.save(usual_tensors(), path)
    return path


def test_the_network_has_the_usual_names_shapes_and_size():
    with torch.device("meta"):
        network = Vgg16()
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert {name: shape for name, shape in shapes.items() if name.endswith("weight")} == USUAL
    assert sum(value.numel() for value in network.parameters()) == 14_714_688 + 102_764_544
    # With ReLU after FC6, or without.
    with torch.device("meta"):
        before = Vgg16(Fc6.BEFORE_RELU)
    assert len(network.classifier) == len(before.classifier) + 1


def test_a_file_of_the_usual_layout_loads_and_encodes(weights: Path):
    pixels = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3), dtype=np.uint8)
    loaded = load_vgg16(weights, Fc6.BEFORE_RELU, SMALL)
    features = loaded.encode(pixels)
    assert features.shape == (2, 4096)
    assert features.min() < 0 < features.max()
    np.testing.assert_allclose(loaded.encode(pixels[1:]), features[1:], rtol=1e-3, atol=1e-4)
    assert loaded.sha256 == sha256_of(weights)
    assert loaded.identity == f"vgg16-fc6-before_relu-{loaded.sha256[:12]}-48/32"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"features.10.bias": None}, r"tensor features\.10\.bias is missing"),
        ({"features.5.bias": torch.zeros(64)}, r"features\.5\.bias is float32\[64\], .*\[128\]"),
        ({"features.0.bias": torch.zeros(64).half()}, r"features\.0\.bias is float16\[64\]"),
        ({"features.1.running_mean": torch.zeros(64)}, r"features\.1\.running_mean is unknown"),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused_by_name(tmp_path: Path, change, says: str):
    # What is checked comes before what is large: these files hold no numbers of their own.
    tensors = {name: torch.zeros(1).expand(shape) for name, shape in USUAL.items()}
    tensors |= {
        name.replace("weight", "bias"): torch.zeros(shape[0]) for name, shape in USUAL.items()
    }
    tensors |= change
    path = tmp_path / "vgg16.pth"
    torch.save({name: value for name, value in tensors.items() if value is not None}, path)
    assert path.stat().st_size < 1_000_000
    with pytest.raises(ImageWeightsError, match=says):
        load_vgg16(path)


def test_a_file_that_is_no_weights_is_refused(tmp_path: Path):
    for name, content, says in (
        ("text.pth", b"hello", "cannot be read|more than tensors"),
        ("vgg16-397923af.pth", b"hello", "its name says 397923af"),
        ("x.safetensors", b"hello", "cannot be read as tensors"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageWeightsError, match=says):
            load_vgg16(tmp_path / name)
    with pytest.raises(ImageWeightsError, match="no such weight file"):
        load_vgg16(tmp_path / "nothing.pth")
    torch.save({"a": Path("code")}, tmp_path / "code.pth")
    with pytest.raises(ImageWeightsError, match=r"code\.pth: (holds more|cannot be read)"):
        load_vgg16(tmp_path / "code.pth")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(ImageWeightsError, match="found list, expected a state dict"):
        load_vgg16(tmp_path / "list.pth")
    save_file({"features.0.bias": torch.zeros(64)}, tmp_path / "few.safetensors")
    with pytest.raises(ImageWeightsError, match=r"features\.0\.weight is missing"):
        load_vgg16(tmp_path / "few.safetensors")


def striped(count: int, label: int, seed: int) -> np.ndarray:
    """Pictures of two classes: stripes that lie or stand."""
    size = COMPACT_PREPARATION.resize_px
    stripes = (np.arange(size) // 6 % 2 * 200).astype(np.uint8)
    picture = np.broadcast_to(stripes[:, None] if label else stripes[None, :], (size, size))
    noise = np.random.default_rng(seed).integers(0, 50, (count, size, size, 3), dtype=np.uint8)
    return picture[None, :, :, None] + noise


def test_the_compact_encoder_learns_classes_and_loads_as_it_was_saved(tmp_path: Path):
    pixels = np.concatenate([striped(16, 0, 1), striped(16, 1, 2)])
    labels = np.repeat([0, 1], 16)
    settings = PretrainSettings(epochs=4, batch_images=8, held_out_share=0.25)
    trained = pretrain(pixels, labels, settings, seed=3)
    assert trained.metrics["held_out_images"] == 8
    assert trained.metrics["held_out_accuracy"] >= 0.9
    saved = save_encoder(tmp_path / "e", trained, ["lie", "stand"], settings, 3)
    loaded = load_encoder(tmp_path / "e")
    assert loaded.identity == saved.identity
    assert loaded.identity.startswith("compact-")
    crop = pixels[:3, :64, :64]
    features = loaded.encode(crop)
    assert features.shape == (3, 4096)
    np.testing.assert_array_equal(features, saved.encode(crop))
    np.testing.assert_allclose(loaded.encode(crop[:1]), features[:1], rtol=1e-4, atol=1e-5)
    with pytest.raises(ManifestError, match="published already"):
        save_encoder(tmp_path / "e", trained, ["lie", "stand"], settings, 3)
    (tmp_path / "e" / "model.safetensors").write_bytes(b"x")
    with pytest.raises(ManifestError, match=r"model\.safetensors"):
        load_encoder(tmp_path / "e")


def test_one_class_cannot_be_learned():
    with pytest.raises(PretrainingError, match="at least two folders"):
        pretrain(striped(4, 0, 1), np.zeros(4, np.int64), PretrainSettings())
