"""Pictures of every kind that people upload, drawn here."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from uic.models.images.encoder import CompactEncoder
from uic.models.images.encoder_settings import PretrainSettings
from uic.models.images.pretraining import Pretrained, save_encoder
from uic.pipelines.images.encoders import EncoderChoice
from uic.pipelines.images.settings import ImagesSettings

SETTINGS = ImagesSettings(batch_images=4)


def gradient(width: int = 90, height: int = 80, seed: int = 0) -> Image.Image:
    """A smooth picture, different for each seed: red grows to the right, green downwards."""
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    blue = np.full_like(across, (seed * 37 % 100) / 100)
    pixels = np.stack([across, down, blue], axis=-1) * 255
    return Image.fromarray(pixels.astype(np.uint8))


def encoded(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """A PNG of a few bytes whose header promises 3.6 billion pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def random_encoder(encoders: Path, name: str = "compact", seed: int = 0) -> EncoderChoice:
    """A compact encoder that was never trained, published."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = CompactEncoder()
    save_encoder(encoders / name, Pretrained(network, {}), ["a", "b"], PretrainSettings(), seed)
    return EncoderChoice.of(None, name, encoders, SETTINGS)
