"""The steps of an extraction, as functions of plain values: read, encode, publish."""

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from uic.models.images.additions import add_image_features
from uic.models.images.features import ImageFeatures
from uic.models.published import MANIFEST_NAME
from uic.pipelines.images.decode import (
    ImageFault,
    RejectedImageError,
    content_sum,
    decode_square,
    read_image,
    real_path,
)
from uic.pipelines.images.encoders import EncoderChoice
from uic.pipelines.images.ledger import FILES_KEYS, FILES_ROLE, FileLine, Ledger
from uic.pipelines.images.sources import ImageSource, SourceImage

OUTCOME: Final = "outcome.json"
# Images of a bucket: 32 MB of features, and a good size to spread over workers.
_BUCKET_IMAGES: Final = 2048
_LEAST_BUCKETS: Final = 2
_SUM_BITS: Final = 32


@dataclass(frozen=True)
class ExtractRequest:
    """What `uic images extract` was asked for.

    Args:
        source: images.
        output: `WORKSPACE/images/NAME`.
        choice: the encoder.
    """

    source: ImageSource
    output: Path
    choice: EncoderChoice


@dataclass(frozen=True)
class Known:
    """What earlier runs found out.

    Args:
        sums: contents that have features.
        lines: the ledger's lines of the source's folder, by path.
        bad: contents that cannot be decoded: sha256 -> reason, detail.
    """

    sums: frozenset[str]
    lines: Mapping[str, FileLine]
    bad: Mapping[str, tuple[str, str]]


@dataclass(frozen=True)
class ImageBlock:
    """The features of one bucket.

    Args:
        bucket: number.
        file: NPY in the drafts' folder; None if no image was left.
        sums: contents of its rows, ascending.
        rejected: sha256 -> reason, detail.
    """

    bucket: int
    file: str | None
    sums: tuple[str, ...]
    rejected: Mapping[str, tuple[str, str]]


@dataclass(frozen=True)
class ExtractRun:
    """One extraction; travels to workers, which share the folder `drafts`."""

    request: ExtractRequest
    known: Known
    drafts: Path

    @property
    def buckets(self) -> int:
        """How many buckets new contents are divided into."""
        return max(_LEAST_BUCKETS, -(-len(self.request.source.images) // _BUCKET_IMAGES))

    def read(self, part: Sequence[tuple[int, SourceImage]]) -> list[tuple[int, FileLine]]:
        """Step 1: a line for each image of the source, with its number there."""
        return [(number, self._line(image.path)) for number, image in part]

    def wanted(self, numbered: tuple[int, FileLine]) -> list[tuple[int, tuple[str, str]]]:
        """Step 2: the bucket of a content that has no features yet, with where it lies."""
        line = numbered[1]
        if line.reason is not None or line.sha256 is None or line.sha256 in self.known.sums:
            return []
        bucket = (int(line.sha256[:8], 16) * self.buckets) >> _SUM_BITS
        return [(bucket, (line.sha256, line.path))]

    def encode(self, bucket: tuple[int, Iterable[tuple[str, str]]]) -> list[ImageBlock]:
        """Step 3: the features of a bucket's contents, each once, as a block."""
        number, members = bucket
        paths = dict(sorted(members, reverse=True))  # of a content at several paths, the first
        encoder, settings = self.request.choice.load(), self.request.choice.settings
        sums: list[str] = []
        features: list[NDArray[np.float32]] = []
        rejected: dict[str, tuple[str, str]] = {}
        pixels: list[NDArray[np.uint8]] = []
        for digest in sorted(paths):
            try:
                pixels.append(self._decoded(paths[digest], digest))
                sums.append(digest)
            except RejectedImageError as error:
                rejected[digest] = (error.reason, error.detail)
            if len(pixels) == settings.batch_images:
                features.append(encoder.encode(np.stack(pixels)))
                pixels = []
        if pixels:
            features.append(encoder.encode(np.stack(pixels)))
        if not features:
            return [ImageBlock(number, None, (), rejected)]
        # A runner may run this twice; each attempt has a name of its own.
        name = f"{number:05d}-{uuid.uuid4().hex}.npy"
        np.save(self.drafts / name, np.concatenate(features), allow_pickle=False)
        return [ImageBlock(number, name, tuple(sums), rejected)]

    def publish(
        self, numbered: Iterable[tuple[int, FileLine]], blocks: Iterable[ImageBlock]
    ) -> None:
        """Step 4: publish if anything is new, and leave what was done for the launcher."""
        lines = [line for _, line in sorted(numbered, key=lambda pair: pair[0])]
        by_bucket: dict[int, ImageBlock] = {}
        for block in sorted(blocks, key=lambda block: block.file or ""):
            by_bucket.setdefault(block.bucket, block)
        outcome = self._published(lines, [by_bucket[number] for number in sorted(by_bucket)])
        (self.drafts / OUTCOME).write_text(json.dumps(outcome), encoding="utf-8")

    def _line(self, path: str) -> FileLine:
        """What a file is now; one that did not change since the ledger's line is not read."""
        folder = self.request.source.folder
        limits = self.request.choice.settings
        line = FileLine(path)
        try:
            status = real_path(folder, path).stat()
            line = FileLine(path, status.st_size, status.st_mtime_ns)
            old = self.known.lines.get(path)
            same = old is not None and (old.bytes, old.modified_ns) == (
                status.st_size,
                line.modified_ns,
            )
            digest = old.sha256 if old is not None and same else None
            if digest is None or not (digest in self.known.sums or digest in self.known.bad):
                digest = content_sum(read_image(folder, path, limits))
        except RejectedImageError as error:
            return line.rejected(error.reason, error.detail)
        except FileNotFoundError:
            return line.rejected(ImageFault.MISSING, "no such file")
        except OSError as error:
            return line.rejected(ImageFault.UNREADABLE, error.strerror or str(error))
        line = FileLine(path, line.bytes, line.modified_ns, digest)
        bad = self.known.bad.get(digest)
        return line if bad is None else line.rejected(*bad)

    def _decoded(self, path: str, digest: str) -> NDArray[np.uint8]:
        preparation = self.request.choice.load().preparation
        limits = self.request.choice.settings
        data = read_image(self.request.source.folder, path, limits)
        if content_sum(data) != digest:
            raise RejectedImageError(ImageFault.DAMAGED, "changed while it was read; run it again")
        return decode_square(data, preparation.resize_px, preparation.crop_px, limits)

    def _published(self, lines: list[FileLine], blocks: list[ImageBlock]) -> dict[str, Any]:
        output = self.request.output
        bad = {digest: why for block in blocks for digest, why in block.rejected.items()}
        lines = [
            line.rejected(*bad[line.sha256]) if line.reason is None and line.sha256 in bad else line
            for line in lines
        ]
        items, lines = self._items(lines)
        before = ImageFeatures.open(output) if (output / MANIFEST_NAME).exists() else None
        newer = Ledger.of(before).newer(self.request.source.folder, lines)
        parts = [np.load(self.drafts / block.file, mmap_mode="r") for block in blocks if block.file]
        added = add_image_features(
            output,
            parts,
            [one for block in blocks if block.file for one in block.sums],
            items,
            encoder=self.request.choice.load().identity,
            facts={"limits": self.request.choice.settings.limits()},
            tables={FILES_ROLE: newer.table()},
            keys={FILES_ROLE: FILES_KEYS},
        )
        rejected = [asdict(line) for line in lines if line.reason is not None]
        return {
            "seen": len(lines),
            "encoded": added.images,
            "known": sum(line.sha256 in self.known.sums for line in lines),
            "rejected": rejected,
            "published": added.published,
        }

    def _items(self, lines: list[FileLine]) -> tuple[dict[int, str], list[FileLine]]:
        """The content that each item shows; of an item named twice, the first image stays."""
        items: dict[int, str] = {}
        checked = list(lines)
        for at, (image, line) in enumerate(zip(self.request.source.images, lines, strict=True)):
            if image.item_id is None or line.reason is not None or line.sha256 is None:
                continue
            if items.setdefault(image.item_id, line.sha256) != line.sha256:
                detail = f"item {image.item_id} is named by an earlier line or file"
                checked[at] = line.rejected(ImageFault.ITEM_TWICE, detail)
        return items, checked
