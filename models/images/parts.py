"""Parts of image features: their files, and their publication.

`uic.models.images.additions` decides what a publication holds. It holds the lock of the directory
meanwhile, since a publication removes what its manifest does not name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.lib import format as npy

from uic.models.images.embedding import FEATURE_WIDTH
from uic.models.images.feature_rows import FeatureRows, Features
from uic.models.images.features import (
    IMAGE_FEATURES_KIND,
    IMAGE_FEATURES_SCHEMA_VERSION,
    IMAGES,
    ImageFeatures,
    ImageFeaturesError,
    Part,
)
from uic.models.published import (
    MANIFEST_NAME,
    file_entry,
    publish_manifest,
    read_manifest,
)


@dataclass(frozen=True)
class NewPart:
    """What a part is to hold.

    Attributes:
        features: (images, width).
        sha256s: (images,).
        items: `ITEM_IMAGES`, by item id.
        tables: further tables, by role.
    """

    features: FeatureRows
    sha256s: Sequence[str]
    items: pa.Table
    tables: Mapping[str, pa.Table]

    @property
    def counts(self) -> tuple[int, int]:
        """Images and items."""
        return len(self.sha256s), self.items.num_rows


@dataclass(frozen=True)
class WrittenPart:
    """Names of a part's files by role, and their lines of the manifest."""

    roles: Part
    entries: Sequence[Mapping[str, Any]]


def write_part(path: Path, first: int, part: NewPart, encoder: str) -> WrittenPart:
    """Write the files of a part under names that no earlier attempt used.

    Args:
        path: `WORKSPACE/images/NAME`.
        first: row of the part's first image, in all parts.
        part: what it holds.
        encoder: which encoder made the features.

    Raises:
        ImageFeaturesError: a number is not finite.
    """
    number = _next_number(path)
    names = {"features": f"features-{number:06d}.npy"}
    _write_npy(path / names["features"], part.features)
    count = len(part.sha256s)
    numbers = np.arange(first, first + count, dtype=np.int32)
    columns = [numbers, pa.array(list(part.sha256s), pa.string()), [encoder] * count]
    tables = {"images": pa.table(columns, schema=IMAGES), "items": part.items, **part.tables}
    rows_in = {"features": count}
    for role, table in tables.items():
        names[role] = f"{role}-{number:06d}.parquet"
        rows_in[role] = table.num_rows
        pq.write_table(table, path / names[role])
    entries = [file_entry(path, path / name, rows_in[role]) for role, name in names.items()]
    return WrittenPart(names, entries)


def publish_parts(
    path: Path,
    parts: Sequence[WrittenPart],
    counts: tuple[int, int],
    encoder: str,
    facts: Mapping[str, Any],
) -> ImageFeatures:
    """Publish parts whose files are written; opened.

    Args:
        path: `WORKSPACE/images/NAME`.
        parts: in order.
        counts: images and items of all parts.
        encoder: which encoder made the features.
        facts: further entries of the manifest.
    """
    publish_manifest(
        path,
        {
            **facts,
            "kind": IMAGE_FEATURES_KIND,
            "schema_version": IMAGE_FEATURES_SCHEMA_VERSION,
            "files": [dict(entry) for part in parts for entry in part.entries],
            "parts": [dict(part.roles) for part in parts],
            "number": _next_number(path) - 1,
            "encoder": encoder,
            "width": int(mapped_features(path, parts[-1].roles).shape[1]),
            "images": counts[0],
            "items": counts[1],
        },
    )
    return ImageFeatures.open(path)


def _next_number(path: Path) -> int:
    """A number in file names that no earlier attempt used."""
    used = [int(file.stem.rpartition("-")[2]) for file in path.glob("features-*.npy")]
    if (path / MANIFEST_NAME).exists():
        manifest = read_manifest(path, IMAGE_FEATURES_KIND, IMAGE_FEATURES_SCHEMA_VERSION)
        used.append(int(manifest["number"]))
    return max(used, default=0) + 1


def shape_of(path: Path, blocks: Sequence[Features | FeatureRows]) -> tuple[int, int]:
    """Images and width of blocks.

    Raises:
        ImageFeaturesError: they are of several widths, or not float32.
    """
    widths = {block.shape[1:] for block in blocks}
    other = next((block.dtype for block in blocks if block.dtype != np.float32), None)
    if len(widths) > 1 or any(len(width) != 1 for width in widths) or other is not None:
        msg = (
            f"{path}: features of shapes {sorted(block.shape for block in blocks)} and dtype "
            f"{other or 'float32'}, expected float32 (images, width) of one width"
        )
        raise ImageFeaturesError(msg)
    width = next(iter(widths))[0] if widths else FEATURE_WIDTH
    return sum(len(block) for block in blocks), int(width)


def _write_npy(path: Path, features: FeatureRows) -> None:
    """An NPY file, some rows at a time: features are never all in memory."""
    header = {"descr": "<f4", "fortran_order": False, "shape": features.shape}
    with path.open("wb") as stream:
        npy.write_array_header_1_0(stream, header)  # type: ignore[no-untyped-call]  # numpy's
        for at in range(0, len(features), 1024):
            part = np.ascontiguousarray(features[at : at + 1024], dtype="<f4")
            if not np.isfinite(part).all():
                row = at + int(np.flatnonzero(~np.isfinite(part).all(axis=1))[0])
                msg = f"{path}: row {row} is not finite; look at the encoder"
                raise ImageFeaturesError(msg)
            stream.write(part.tobytes())


def mapped_features(path: Path, part: Part) -> Features:
    """The features of a part as a memory map."""
    mapped: Features = np.load(path / part["features"], mmap_mode="r", allow_pickle=False)
    return mapped


def publication_lock(path: Path) -> Path:
    """The lock of a directory's publications; each publication waits for it."""
    return path.parent / f".{path.name}.publish.lock"
