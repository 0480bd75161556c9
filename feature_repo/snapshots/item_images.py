"""Item vectors of one item version, in Parquet: what `uic images embed` makes.

`WORKSPACE/item_images/version=NNN/` holds the files and, last, `manifest.json`, which says which
bundle embedded which image features. `item_images/current`, the source that Feast knows, names one
of them. An item version is a generation of the view `item_image`
(`uic.feature_repo.store.generations`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from uic.feature_repo.snapshots.published_values import PublishedValues
from uic.feature_repo.store.generations import Generation
from uic.feature_repo.store.item_vectors import Values, item_vector_headers, unpacked_item_vectors
from uic.models.errors import ManifestError

ITEM_IMAGES_KIND: Final = "item_images"
ITEM_IMAGES_SCHEMA_VERSION: Final = 1
ITEM_IMAGES_FOLDER: Final = "item_images"
# `embedding` is the packed item vector (`uic.feature_repo.store.item_vectors`), as the store
# holds it.
ITEM_VECTORS: Final = pa.schema(
    [
        pa.field("item_id", pa.int64(), nullable=False),
        pa.field("event_timestamp", pa.timestamp("ms", tz="UTC"), nullable=False),
        pa.field("embedding", pa.binary(), nullable=False),
    ]
)


@dataclass(frozen=True)
class ItemImages(PublishedValues):
    """A published item version, in the folder `version=NNN`; a value is the vector of its item."""

    KIND, SCHEMA_VERSION, SCHEMA = ITEM_IMAGES_KIND, ITEM_IMAGES_SCHEMA_VERSION, ITEM_VECTORS

    @property
    def version(self) -> int:
        """The item version that its vectors carry."""
        return int(self.manifest["version"])

    @property
    def value_bytes(self) -> int:
        """Width of a packed vector."""
        return int(self.manifest["value_bytes"])

    def as_generation(self) -> Generation:
        """See `PublishedValues.as_generation`."""
        return Generation(
            number=self.version,
            rows_expected=self.rows,
            bundle=self.bundle,
            bundle_name=str(self.manifest["bundle"]),
            record_bytes=self.value_bytes,
            positions={},
            snapshot=self.path.name,
        )

    def check(self, values: Values, path: Path) -> None:
        """See `PublishedValues.check`."""
        unpacked_item_vectors(values, str(path))
        header = item_vector_headers(values)
        bundles = {bytes(bundle) for bundle in np.unique(header["bundle"])}
        if (header["generation"] != self.version).any() or bundles - {self.bundle}:
            names = sorted(bundle.hex() for bundle in bundles)
            msg = (
                f"{path}: vectors of versions {np.unique(header['generation']).tolist()} and "
                f"bundles {names}, its manifest says {self.version} and {self.bundle.hex()}"
            )
            raise ManifestError(msg)


def list_item_images(workspace: Path) -> list[ItemImages]:
    """Every published item version, by number; folders without a manifest are left out."""
    folder = workspace / ITEM_IMAGES_FOLDER
    return sorted(
        (ItemImages.open(path.parent) for path in folder.glob("version=*/manifest.json")),
        key=lambda images: images.version,
    )
