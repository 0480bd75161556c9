"""The compact encoder, trained on labelled images and published as a directory.

`WORKSPACE/image_encoders/NAME/` holds `model.safetensors`, `config.json` and, last,
`manifest.json`. Whole classes of things are learned (hat, shirt, …); what an interaction log
teaches beyond that is the trained embedding's part.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from uic.models.errors import BadInputError, ManifestError
from uic.models.images.embedding import FEATURE_WIDTH
from uic.models.images.encoder import COMPACT_PREPARATION, CompactEncoder, ImageEncoder, frozen
from uic.models.images.encoder_settings import PretrainSettings
from uic.models.published import file_entry, publish_manifest, read_manifest, verify_checksums

IMAGE_ENCODER_KIND: Final = "image_encoder"
IMAGE_ENCODER_SCHEMA_VERSION: Final = 1
COMPACT: Final = "compact"
_WEIGHTS: Final = "model.safetensors"
_CONFIG: Final = "config.json"


class PretrainingError(BadInputError):
    """The labelled images are too few to learn from."""


@dataclass(frozen=True)
class Pretrained:
    """A trained network and what was measured.

    Attributes:
        network: the encoder, without its head.
        metrics: images, accuracy on held-out images, that of the commonest class, loss by epoch.
    """

    network: CompactEncoder
    metrics: dict[str, Any]


def pretrain(
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int64],
    settings: PretrainSettings,
    seed: int = 1,
    progress: Callable[[int, float], None] = lambda *_: None,
) -> Pretrained:
    """Train a compact encoder to name the class of an image.

    Args:
        pixels: (n, resize, resize, 3), uint8, squares of `COMPACT_PREPARATION.resize_px`.
        labels: (n,), from 0.
        settings: of the training.
        seed: of weights, split and order.
        progress: told (epochs done, mean loss).

    Raises:
        PretrainingError: fewer than two classes, or no image is left to train on.
    """
    classes = int(labels.max()) + 1 if len(labels) else 0
    order = np.random.default_rng(seed).permutation(len(labels))
    held_out, trained = np.split(order, [int(len(order) * settings.held_out_share)])
    if classes < 2 or len(trained) < 2:
        msg = (
            f"pretrain: {len(labels)} images of {classes} classes, {len(trained)} to train on; "
            "expected at least two folders of images, one a class"
        )
        raise PretrainingError(msg)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = CompactEncoder()
        head = nn.Sequential(nn.Dropout(0.5), nn.Linear(FEATURE_WIDTH, classes))
        losses = _train(network, head, (pixels[trained], labels[trained]), settings, progress)
    network.eval()
    metrics: dict[str, Any] = {
        "images": len(labels),
        "classes": classes,
        "held_out_images": len(held_out),
        "loss": [round(loss, 4) for loss in losses],
    }
    if len(held_out):
        truth = labels[held_out]
        metrics["held_out_accuracy"] = _accuracy(network, head.eval(), pixels[held_out], truth)
        commonest = np.bincount(labels[trained]).argmax()
        metrics["commonest_class_accuracy"] = round(float((truth == commonest).mean()), 4)
    return Pretrained(network, metrics)


def _train(
    network: CompactEncoder,
    head: nn.Module,
    examples: tuple[NDArray[np.uint8], NDArray[np.int64]],
    settings: PretrainSettings,
    progress: Callable[[int, float], None],
) -> list[float]:
    pixels, labels = examples
    weights = [*network.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(weights, settings.learning_rate, weight_decay=0.05)
    size = min(settings.batch_images, len(labels))
    steps = len(labels) // size  # the rest of an epoch is left out: another one each time
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.epochs * steps)
    losses = []
    for epoch in range(settings.epochs):
        total = 0.0
        for chosen in torch.randperm(len(labels))[: steps * size].view(steps, size).numpy():
            images = _augmented(pixels[chosen])
            logits = head(network(images))
            loss = functional.cross_entropy(
                logits, torch.from_numpy(labels[chosen]), label_smoothing=0.1
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += loss.item()
        losses.append(total / steps)
        progress(epoch + 1, losses[-1])
    return losses


def _augmented(pixels: NDArray[np.uint8]) -> Tensor:
    """One random crop for the batch, and half of the images mirrored."""
    crop = COMPACT_PREPARATION.crop_px
    room = pixels.shape[1] - crop + 1
    top, left = torch.randint(room, (2,)).tolist()
    images = COMPACT_PREPARATION.normalised(pixels[:, top : top + crop, left : left + crop])
    mirrored = torch.rand(len(images)) < 0.5
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)


@torch.inference_mode()
def _accuracy(
    network: nn.Module, head: nn.Module, pixels: NDArray[np.uint8], labels: NDArray[np.int64]
) -> float:
    crop = COMPACT_PREPARATION.crop_px
    edge = (pixels.shape[1] - crop) // 2
    middle = pixels[:, edge : edge + crop, edge : edge + crop]
    named = head(network(COMPACT_PREPARATION.normalised(middle))).argmax(1).numpy()
    return round(float((named == labels).mean()), 4)


def save_encoder(
    path: Path, trained: Pretrained, classes: list[str], settings: PretrainSettings, seed: int
) -> ImageEncoder:
    """Publish a trained encoder as the directory `path`; loaded.

    Raises:
        ManifestError: there is one of this name already.
    """
    if (path / "manifest.json").exists():
        msg = f"{path}: this encoder is published already; choose another --out"
        raise ManifestError(msg)
    path.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.contiguous() for name, value in trained.network.state_dict().items()}
    save_file(tensors, path / _WEIGHTS)
    config = {
        "kind": COMPACT,
        "classes": classes,
        "training": settings.model_dump(mode="json"),
        "seed": seed,
        "metrics": trained.metrics,
    }
    text = json.dumps(config, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    (path / _CONFIG).write_text(text, encoding="utf-8")
    publish_manifest(
        path,
        {
            "kind": IMAGE_ENCODER_KIND,
            "schema_version": IMAGE_ENCODER_SCHEMA_VERSION,
            "files": [file_entry(path, path / name) for name in (_WEIGHTS, _CONFIG)],
        },
    )
    return load_encoder(path)


def load_encoder(path: Path) -> ImageEncoder:
    """Load a published compact encoder.

    Raises:
        ManifestError: no encoder was published there, or a file is damaged.
    """
    manifest = read_manifest(path, IMAGE_ENCODER_KIND, IMAGE_ENCODER_SCHEMA_VERSION)
    verify_checksums(path, manifest)
    network = CompactEncoder()
    try:
        network.load_state_dict(load_file(path / _WEIGHTS))
    except (SafetensorError, RuntimeError) as error:
        msg = f"{path / _WEIGHTS}: not this code's compact encoder ({error}); pretrain it again"
        raise ManifestError(msg) from error
    digest = next(entry["sha256"] for entry in manifest["files"] if entry["path"] == _WEIGHTS)
    identity = f"{COMPACT}-{digest[:12]}-{COMPACT_PREPARATION}"
    return ImageEncoder(frozen(network), COMPACT_PREPARATION, identity, digest)
