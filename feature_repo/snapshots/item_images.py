"""Item vectors of one item version, in Parquet: what `uic images embed` makes.

`WORKSPACE/item_images/version=NNN/` holds the files and, last, `manifest.json`, which says which
bundle embedded which image features. `item_images/current`, the source that Feast knows, names one
of them. An item version is a generation of the view `item_image`
(`uic.feature_repo.store.generations`).
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from uic.feature_repo.store.generations import Generation, Generations
from uic.feature_repo.store.item_vectors import Values, item_vector_headers, unpacked_item_vectors
from uic.feature_repo.store.packed import PackedStore
from uic.models.errors import ManifestError
from uic.models.published import read_manifest

ITEM_IMAGES_KIND: Final = "item_images"
ITEM_IMAGES_SCHEMA_VERSION: Final = 1
ITEM_IMAGES_FOLDER: Final = "item_images"
CURRENT: Final = "current"
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
class ItemImages:
    """A published item version.

    Args:
        path: its folder, `version=NNN`.
        manifest: what the embedding wrote beside the files.
    """

    path: Path
    manifest: Mapping[str, Any]

    @classmethod
    def open(cls, path: Path) -> "ItemImages":
        """Read the manifest of a version's folder.

        Raises:
            ManifestError: it was never published, or its files do not fit.
        """
        return cls(path, read_manifest(path, ITEM_IMAGES_KIND, ITEM_IMAGES_SCHEMA_VERSION))

    @property
    def version(self) -> int:
        """The item version that its vectors carry."""
        return int(self.manifest["version"])

    @property
    def rows(self) -> int:
        """Items with a vector."""
        return int(self.manifest["rows"])

    @property
    def bundle(self) -> bytes:
        """First 8 bytes of the hash of the bundle that embedded them."""
        return bytes.fromhex(self.manifest["bundle_hash8"])

    def as_generation(self) -> Generation:
        """What the store has to know before it loads this version."""
        return Generation(
            number=self.version,
            rows_expected=self.rows,
            bundle=self.bundle,
            bundle_name=str(self.manifest["bundle"]),
            record_bytes=int(self.manifest["value_bytes"]),
            positions={},
            snapshot=self.path.name,
        )

    def batches(self, rows: int = 50_000) -> Iterator[tuple[NDArray[np.int64], Values]]:
        """Item ids (n,) and values (n, bytes), in order of item id.

        Raises:
            ForeignValueError: a value is not an item vector.
            ManifestError: one is of another version or bundle than the manifest says.
        """
        width = int(self.manifest["value_bytes"])
        for entry in self.manifest["files"]:
            path = self.path / entry["path"]
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(rows, columns=["item_id", "embedding"]):
                    joined = b"".join(batch.column("embedding").to_pylist())
                    if len(joined) != width * batch.num_rows:
                        msg = f"{path}: values of other widths than {width} bytes; embed again"
                        raise ManifestError(msg)
                    values = np.frombuffer(joined, np.uint8).reshape(batch.num_rows, width)
                    self._check(values, path)
                    yield batch.column("item_id").to_numpy(), values

    def item_ids(self) -> NDArray[np.int64]:
        """Every item with a vector, ascending."""
        columns = [
            pq.read_table(self.path / entry["path"], columns=["item_id"]).column(0).to_numpy()
            for entry in self.manifest["files"]
        ]
        return np.sort(np.concatenate(columns)) if columns else np.zeros(0, dtype=np.int64)

    def _check(self, values: Values, path: Path) -> None:
        unpacked_item_vectors(values, str(path))
        header = item_vector_headers(values)
        bundles = {bytes(found) for found in np.unique(header["bundle"])}
        if (header["generation"] != self.version).any() or bundles - {self.bundle}:
            found = sorted(found.hex() for found in bundles)
            msg = (
                f"{path}: vectors of versions {np.unique(header['generation']).tolist()} and "
                f"bundles {found}, its manifest says {self.version} and {self.bundle.hex()}"
            )
            raise ManifestError(msg)


def load_item_images(
    images: ItemImages,
    store: PackedStore,
    versions: Generations,
    progress: Callable[[int], None] = lambda _: None,
) -> Generation:
    """Load an item version into the store until it is ready; it can be repeated and interrupted.

    As `uic.feature_repo.plugin.loading.load_snapshot`: register, write (the later value of an item
    stays), hold the store against the files.

    Raises:
        GenerationStateError: the number is taken by vectors of another bundle.
        StoreError: Redis does not take the writes; the version stays as it was.
    """
    versions.register(images.as_generation())
    rows = 0
    for item_ids, values in images.batches():
        store.write(images.version, item_ids, values)
        rows += len(item_ids)
        progress(rows)
    return versions.complete(images.version, images.item_ids())


def point_current_to(version: Path) -> None:
    """Make `item_images/current`, the source that Feast knows, name this version; in one rename."""
    folder = version.resolve().parent
    draft = folder / f".current.{os.getpid()}"
    draft.unlink(missing_ok=True)
    draft.symlink_to(version.name)
    draft.replace(folder / CURRENT)


def list_item_images(workspace: Path) -> list[ItemImages]:
    """Every published item version, by number; folders without a manifest are left out."""
    folder = workspace / ITEM_IMAGES_FOLDER
    return sorted(
        (ItemImages.open(path.parent) for path in folder.glob("version=*/manifest.json")),
        key=lambda found: found.version,
    )
