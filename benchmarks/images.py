"""Image features: `uic images extract` against a plain loop over images.

    python benchmarks/images.py [--quick]

The same pictures, the same weights, in turn: ours (Beam, contents once, batches through the
encoder, decoding beside encoding) and what one would write first (Pillow, one image at a time
through the encoder). Both must give the same features. Then our rerun, which computes nothing.
Pictures are the clothing photographs of UIC_SHARED_DATA, repeated with other bytes at their end,
or drawn ones where there are none. Without `--quick` also with VGG16 to FC6 (random weights of its
size).
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import arguments, in_process, median, report, say
from PIL import Image

from uic.models.images.encoder import CompactEncoder, Vgg16, load_vgg16
from uic.models.images.encoder_settings import PretrainSettings
from uic.models.images.features import ImageFeatures
from uic.models.images.pretraining import Pretrained, load_encoder, save_encoder
from uic.pipelines.images.encoders import EncoderChoice
from uic.pipelines.images.extract import extract_images
from uic.pipelines.images.extract_run import ExtractRequest
from uic.pipelines.images.settings import ImagesSettings
from uic.pipelines.images.sources import ImageSource

TARGETS = {"compact": ">=1.5"}
TOLERANCE = 1e-3


def pictures(folder: Path, count: int) -> None:
    """So many image files of different content."""
    folder.mkdir(parents=True)
    shared = Path(os.environ.get("UIC_SHARED_DATA", "../shared/data")) / "clothing_images"
    found = sorted(shared.rglob("*.jpg"))
    if not found:
        say("no clothing photographs: drawing some")
        random = np.random.default_rng(0)
        for at in range(min(count, 100)):
            pixels = random.integers(0, 255, (40, 40, 3), dtype=np.uint8)
            path = folder.parent / f"drawn-{at}.jpg"
            Image.fromarray(pixels).resize((400, 400)).save(path)
            found.append(path)
    for at in range(count):
        data = found[at % len(found)].read_bytes()
        (folder / f"{at + 1}.jpg").write_bytes(data + b"\0" * (at // len(found)))


def choice_of(encoder: Path) -> EncoderChoice:
    return EncoderChoice(encoder, ImagesSettings())


def ours(source: Path, output: Path, encoder: Path) -> int:
    """`uic images extract` without the command line; images encoded."""
    torch.set_num_threads(1)
    request = ExtractRequest(ImageSource.open(source), output, choice_of(encoder))
    return extract_images(request).encoded


def plain(source: Path, output: Path, encoder: Path) -> int:
    """One image at a time."""
    torch.set_num_threads(1)
    loaded = load_encoder(encoder) if encoder.is_dir() else load_vgg16(encoder)
    prepared = loaded.preparation
    features = []
    paths = sorted(source.iterdir(), key=lambda path: int(path.stem))
    for path in paths:
        image = Image.open(path).convert("RGB")
        side = min(image.size) * prepared.crop_px / prepared.resize_px
        left, top = (image.width - side) / 2, (image.height - side) / 2
        size = (prepared.crop_px, prepared.crop_px)
        box = (left, top, left + side, top + side)
        pixels = np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=box))
        features.append(loaded.encode(pixels[None])[0])
    np.save(output, np.stack(features))
    return len(features)


def compare(scratch: Path, name: str, encoder: Path, count: int, repeats: int) -> dict[str, Any]:
    """Images a second of both, and the difference of their features."""
    source = scratch / f"pictures-{name}"
    pictures(source, count)
    found: dict[str, list[float]] = {"ours": [], "plain": [], "rerun": []}
    memory: dict[str, int] = {}
    output, loop = scratch / "images" / name, scratch / f"{name}.npy"
    for turn in range(repeats):
        shutil.rmtree(output, ignore_errors=True)
        for contender, run, where in (
            ("ours", ours, output),
            ("plain", plain, loop),
            ("rerun", ours, output),
        ):
            done = in_process(run, source, where, encoder)
            found[contender].append(count / done["seconds"])
            memory[contender] = max(memory.get(contender, 0), done["peak_memory_mib"])
            say(f"{name} {contender} {turn + 1}/{repeats}: {count / done['seconds']:.1f} images/s")
            if contender == "rerun" and done["result"]:
                msg = f"a rerun encoded {done['result']} images, expected none"
                raise RuntimeError(msg)
    features = ImageFeatures.open(output)
    mine = features.features[features.rows_of(np.arange(1, count + 1))]
    difference = float(np.abs(mine - np.load(loop)).max() / max(float(np.abs(mine).max()), 1e-9))
    if difference > TOLERANCE:
        msg = f"{name}: features differ by {difference:g} of the largest, tolerance {TOLERANCE:g}"
        raise RuntimeError(msg)
    return {
        "images": count,
        "ours": median(found["ours"]),
        "plain": median(found["plain"]),
        "rerun": median(found["rerun"]),
        "memory": memory,
        "difference": difference,
    }


def encoders(scratch: Path, *, with_vgg16: bool) -> dict[str, Path]:
    torch.manual_seed(0)
    compact = scratch / "image_encoders" / "compact"
    save_encoder(compact, Pretrained(CompactEncoder(), {}), [], PretrainSettings(), 0)
    found = {"compact": compact}
    if with_vgg16:
        found["vgg16"] = scratch / "vgg16.pth"
        torch.save(Vgg16().state_dict(), found["vgg16"])
    return found


def main() -> None:
    options = arguments(__doc__ or "").parse_args()
    sizes = {"compact": 150, "vgg16": 0} if options.quick else {"compact": 3000, "vgg16": 48}
    repeats = 1 if options.quick else 3
    with tempfile.TemporaryDirectory(prefix="uic-images-") as folder:
        scratch = Path(folder)
        made = encoders(scratch, with_vgg16=not options.quick)
        found = {
            name: compare(scratch, name, encoder, sizes[name], repeats)
            for name, encoder in made.items()
        }
    report(
        "images",
        ours={
            key: value
            for name, figures in found.items()
            for key, value in {
                f"{name}_images": figures["images"],
                f"{name}_images_per_second": figures["ours"],
                f"{name}_rerun_images_per_second": figures["rerun"],
                f"{name}_peak_memory_mib": figures["memory"]["ours"],
                f"{name}_difference_of_largest": float(f"{figures['difference']:.2g}"),
            }.items()
        },
        peers={
            "plain_loop": {
                key: value
                for name, figures in found.items()
                for key, value in {
                    f"{name}_images_per_second": figures["plain"],
                    f"{name}_peak_memory_mib": figures["memory"]["plain"],
                }.items()
            }
        },
        ratios={name: figures["ours"] / figures["plain"] for name, figures in found.items()},
        # In a small run the runner's own seconds are most of the cost.
        targets={} if options.quick else TARGETS,
        packages=("apache-beam", "numpy", "pillow", "torch"),
    )


if __name__ == "__main__":
    main()
