"""Image features: what a fixed encoder makes of each image, once, and which item shows which.

`WORKSPACE/images/NAME/` is a published directory (`models.published`). Its manifest names, beside
its own facts, three files whose names change with every publication, so that a reader that is
open keeps what it opened:

| role | content |
|---|---|
| `features` | NPY, float32 (images, width), opened as a memory map; width 4096 as in DICM (FC6) |
| `images` | Parquet `IMAGES`: row of `features`, sha256 of the image file, encoder |
| `items` | Parquet `ITEM_IMAGES`, by item id: the row that an item shows |

An image is stored once, by its content, however many items show it (DICM section 4.1; AMS
section 5: "images are stored once").
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.lib import format as npy
from numpy.typing import ArrayLike, NDArray

from models.errors import BadInputError, ManifestError
from models.published import (
    MANIFEST_NAME,
    file_entry,
    publish_manifest,
    read_manifest,
    verify_checksums,
)

IMAGE_FEATURES_KIND: Final = "image_features"
IMAGE_FEATURES_SCHEMA_VERSION: Final = 1
# VGG16's FC6 (DICM section 4.1). A directory says its own width; tests use small ones.
FEATURE_WIDTH: Final = 4096
NO_IMAGE: Final = -1

IMAGES: Final = pa.schema(
    [
        pa.field("row", pa.int32(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("encoder", pa.string(), nullable=False),
    ]
)
ITEM_IMAGES: Final = pa.schema(
    [
        pa.field("item_id", pa.int64(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
    ]
)
Features = NDArray[np.float32]


class ImageFeaturesError(BadInputError):
    """Image features do not fit together: widths, rows, sums or items."""


@dataclass(frozen=True)
class ImageFeatures:
    """A published directory of image features.

    Attributes:
        path: the directory.
        features: (images, width), float32, read-only memory map.
        sha256: (images,), hex sha256 of each image file, by row.
        item_ids: (items,), int64, ascending.
        item_rows: (items,), int32: row of `features` that each item shows.
        encoder: which encoder made them, and the sum of its weights.
        manifest: `manifest.json`.
    """

    path: Path
    features: Features
    sha256: Sequence[str]
    item_ids: NDArray[np.int64]
    item_rows: NDArray[np.int32]
    encoder: str
    manifest: Mapping[str, Any]

    @classmethod
    def open(cls, path: Path, *, verify: bool = False) -> Self:
        """Open a published directory; `features` is mapped, not read.

        Args:
            path: `WORKSPACE/images/NAME`.
            verify: read every byte and compare the sums.

        Raises:
            ManifestError: it was never published, is of another kind or version, or a file is
                missing or damaged.
            ImageFeaturesError: the files do not fit each other.
        """
        manifest = read_manifest(path, IMAGE_FEATURES_KIND, IMAGE_FEATURES_SCHEMA_VERSION)
        if verify:
            verify_checksums(path, manifest)
        names = manifest["roles"]
        try:
            features = np.load(path / names["features"], mmap_mode="r", allow_pickle=False)
            images = pq.read_table(path / names["images"], columns=IMAGES.names)
            items = pq.read_table(path / names["items"], columns=ITEM_IMAGES.names)
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            msg = f"{path}: cannot be read ({error}); extract the images again"
            raise ManifestError(msg) from error
        found = cls(
            path=path,
            features=features,
            sha256=images["sha256"].to_pylist(),
            item_ids=items["item_id"].to_numpy(),
            item_rows=items["row"].to_numpy(),
            encoder=str(manifest["encoder"]),
            manifest=manifest,
        )
        _check(path, features, found.sha256, found.item_ids, found.item_rows)
        return found

    @property
    def width(self) -> int:
        """Numbers per image."""
        return int(self.features.shape[1])

    def __len__(self) -> int:
        """Images."""
        return int(self.features.shape[0])

    def rows_of(self, item_ids: ArrayLike) -> NDArray[np.int32]:
        """The image of each item: (n,) int64 to (n,) int32, `NO_IMAGE` (-1) for none."""
        ids = np.asarray(item_ids, dtype=np.int64)
        if not len(self.item_ids):
            return np.full(ids.shape, NO_IMAGE, dtype=np.int32)
        places = np.minimum(np.searchsorted(self.item_ids, ids), len(self.item_ids) - 1)
        rows: NDArray[np.int32] = np.where(
            self.item_ids[places] == ids, self.item_rows[places], np.int32(NO_IMAGE)
        )
        return rows


def write_image_features(
    path: Path,
    features: Features | Sequence[Features],
    sha256s: Sequence[str],
    item_ids: ArrayLike,
    rows: ArrayLike,
    *,
    encoder: str,
    facts: Mapping[str, Any] | None = None,
    tables: Mapping[str, pa.Table] | None = None,
) -> ImageFeatures:
    """Publish image features as the directory `path`, in place of what it held; opened.

    Args:
        path: `WORKSPACE/images/NAME`, new or published before.
        features: (images, width), float32; or blocks of rows of one width, in order.
        sha256s: (images,), hex sha256 of each image file, all different.
        item_ids: (items,), int64, all different, in any order.
        rows: (items,), row of `features` that each item shows.
        encoder: which encoder made the features, and the sum of its weights.
        facts: further entries of the manifest.
        tables: further tables to keep beside them, by role (rejects).

    Raises:
        ImageFeaturesError: widths, rows, sums or items do not fit together.
    """
    blocks = [features] if isinstance(features, np.ndarray) else list(features)
    ids = np.asarray(item_ids, dtype=np.int64)
    item_rows = np.asarray(rows, dtype=np.int32)
    order = np.argsort(ids, kind="stable")
    ids, item_rows = ids[order], item_rows[order]
    shape = _shape(path, blocks)
    path.mkdir(parents=True, exist_ok=True)
    number = _next_number(path)
    names = {"features": f"features-{number:06d}.npy"}
    _write_npy(path / names["features"], blocks, shape)
    _check(path, np.load(path / names["features"], mmap_mode="r"), sha256s, ids, item_rows)
    count = len(sha256s)
    images = pa.table(
        [np.arange(count, dtype=np.int32), pa.array(list(sha256s), pa.string()), [encoder] * count],
        schema=IMAGES,
    )
    written = {
        "images": images,
        "items": pa.table([ids, item_rows], schema=ITEM_IMAGES),
        **(tables or {}),
    }
    rows_in = {"features": count}
    for role, table in written.items():
        names[role] = f"{role}-{number:06d}.parquet"
        rows_in[role] = table.num_rows
        pq.write_table(table, path / names[role])
    publish_manifest(
        path,
        {
            **(facts or {}),
            "kind": IMAGE_FEATURES_KIND,
            "schema_version": IMAGE_FEATURES_SCHEMA_VERSION,
            "files": [file_entry(path, path / name, rows_in[role]) for role, name in names.items()],
            "roles": names,
            "number": number,
            "encoder": encoder,
            "width": shape[1],
            "images": count,
            "items": len(ids),
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


def _shape(path: Path, blocks: Sequence[Features]) -> tuple[int, int]:
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


def _write_npy(path: Path, blocks: Iterable[Features], shape: tuple[int, int]) -> None:
    """An NPY file, block after block: an incremental run never holds all features in memory."""
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    with path.open("wb") as stream:
        npy.write_array_header_1_0(stream, header)  # type: ignore[no-untyped-call]
        for block in blocks:
            for at in range(0, len(block), 1024):
                part = np.ascontiguousarray(block[at : at + 1024], dtype="<f4")
                if not np.isfinite(part).all():
                    row = at + int(np.flatnonzero(~np.isfinite(part).all(axis=1))[0])
                    msg = f"{path}: row {row} of a block is not finite; look at the encoder"
                    raise ImageFeaturesError(msg)
                stream.write(part.tobytes())


def _check(
    path: Path,
    features: Features,
    sha256s: Sequence[str],
    item_ids: NDArray[np.int64],
    rows: NDArray[np.int32],
) -> None:
    """Hold the parts against each other."""
    wrong = None
    if features.ndim != 2 or features.dtype != np.float32:
        wrong = f"features are {features.dtype}{list(features.shape)}, expected float32 (images, n)"
    elif len(sha256s) != len(features):
        wrong = f"{len(sha256s)} sums for {len(features)} images"
    elif len(set(sha256s)) != len(sha256s):
        wrong = "one image is there twice; it is stored once, by its content"
    elif len(item_ids) != len(rows):
        wrong = f"{len(item_ids)} items and {len(rows)} rows"
    elif (np.diff(item_ids) <= 0).any():
        at = int(np.flatnonzero(np.diff(item_ids) <= 0)[0])
        wrong = f"item {item_ids[at]} is named twice or out of order"
    elif len(rows) and not (rows.min() >= 0 and rows.max() < len(features)):
        wrong = f"items show rows {rows.min()} to {rows.max()} of {len(features)} images"
    if wrong is not None:
        msg = f"{path}: {wrong}"
        raise ImageFeaturesError(msg)
