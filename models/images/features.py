"""Image features: what a fixed encoder makes of each image, once, and which item shows which.

`WORKSPACE/images/NAME/` is a published directory (`uic.models.published`). Its manifest names,
beside its own facts, parts of three files each. A publication adds a part
(`uic.models.images.additions`) under names that no earlier one used, so that a reader that is open
keeps what it opened:

| role | content |
|---|---|
| `features` | NPY, float32 (images, width), opened as a memory map; width 4096 as in DICM (FC6) |
| `images` | Parquet `IMAGES`: row, sha256 of the image file, encoder |
| `items` | Parquet `ITEM_IMAGES`, by item id: the row that an item shows |

Rows are counted through all parts. Of an item that several parts name, the last one counts.

An image is stored once, by its content, however many items show it (DICM section 4.1; AMS
section 5: "images are stored once").
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from uic.models.errors import BadInputError, ManifestError
from uic.models.images.feature_rows import FeatureRows, Features
from uic.models.published import read_manifest, verify_checksums

IMAGE_FEATURES_KIND: Final = "image_features"
IMAGE_FEATURES_SCHEMA_VERSION: Final = 1
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
# Files of a part, by role.
Part = Mapping[str, str]


class ImageFeaturesError(BadInputError):
    """Image features do not fit together: widths, rows, sums or items."""


@dataclass(frozen=True)
class ImageFeatures:
    """A published directory of image features.

    Attributes:
        path: the directory.
        features: (images, width), float32, in memory maps.
        sha256: (images,), hex sha256 of each image file, by row.
        item_ids: (items,), int64, ascending.
        item_rows: (items,), int32: row of `features` that each item shows.
        encoder: which encoder made them, and the sum of its weights.
        manifest: `manifest.json`.
    """

    path: Path
    features: FeatureRows
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
        try:
            parts = parts_of(manifest)
            features = [
                np.load(path / part["features"], mmap_mode="r", allow_pickle=False)
                for part in parts
            ]
            sums = [pq.read_table(path / part["images"], columns=["sha256"]) for part in parts]
            items = [pq.read_table(path / part["items"], schema=ITEM_IMAGES) for part in parts]
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            msg = f"{path}: cannot be read ({error}); extract the images again"
            raise ManifestError(msg) from error
        sha256 = [digest for table in sums for digest in table["sha256"].to_pylist()]
        for table in items:
            check_items(path, table["item_id"].to_numpy(), table["row"].to_numpy())
        item_ids, item_rows = merged_items(items)
        check_parts(path, features, sha256, item_rows)
        return cls(
            path=path,
            features=FeatureRows(features),
            sha256=sha256,
            item_ids=item_ids,
            item_rows=item_rows,
            encoder=str(manifest["encoder"]),
            manifest=manifest,
        )

    @property
    def parts(self) -> list[Part]:
        """Files by role, part after part."""
        return parts_of(self.manifest)

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


def parts_of(manifest: Mapping[str, Any]) -> list[Part]:
    """The parts of a manifest, in order; an older one names one part, as `roles`."""
    return list(manifest["parts"]) if "parts" in manifest else [manifest["roles"]]


def merged_items(tables: Sequence[pa.Table]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Items of several `ITEM_IMAGES`, of each the row of its last table: ids ascending, rows."""
    ids = np.concatenate([table["item_id"].to_numpy() for table in tables])
    rows = np.concatenate([table["row"].to_numpy() for table in tables])
    if len(tables) == 1:
        return ids, rows
    # The first of the reversed order is the last of the order.
    distinct, places = np.unique(ids[::-1], return_index=True)
    return distinct, rows[::-1][places]


def check_items(path: Path, item_ids: NDArray[np.int64], rows: NDArray[np.int32]) -> None:
    """Items of a part: each once, in order.

    Raises:
        ImageFeaturesError: they are not.
    """
    wrong = None
    if len(item_ids) != len(rows):
        wrong = f"{len(item_ids)} items and {len(rows)} rows"
    elif (np.diff(item_ids) <= 0).any():
        at = int(np.flatnonzero(np.diff(item_ids) <= 0)[0])
        wrong = f"item {item_ids[at]} is named twice or out of order"
    if wrong is not None:
        msg = f"{path}: {wrong}"
        raise ImageFeaturesError(msg)


def check_parts(
    path: Path,
    parts: Sequence[Features | FeatureRows],
    sha256s: Sequence[str],
    rows: NDArray[np.int32],
) -> None:
    """Hold features, sums and the rows that items show against each other.

    Raises:
        ImageFeaturesError: they do not fit.
    """
    wrong = None
    other = [part for part in parts if part.ndim != 2 or part.dtype != np.float32]
    count = sum(len(part) for part in parts)
    if other:
        kind = f"{other[0].dtype}{list(other[0].shape)}"
        wrong = f"features are {kind}, expected float32 (images, n)"
    elif len({part.shape[1] for part in parts}) > 1:
        wrong = f"parts are {sorted({part.shape[1] for part in parts})} wide, expected one width"
    elif len(sha256s) != count:
        wrong = f"{len(sha256s)} sums for {count} images"
    elif len(set(sha256s)) != len(sha256s):
        wrong = "one image is there twice; it is stored once, by its content"
    elif len(rows) and not (rows.min() >= 0 and rows.max() < count):
        wrong = f"items show rows {rows.min()} to {rows.max()} of {count} images"
    if wrong is not None:
        msg = f"{path}: {wrong}"
        raise ImageFeaturesError(msg)
