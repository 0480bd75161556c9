"""Item vectors by a bundle's image embedding: features to 12 floats, as a Beam pipeline.

1. The rows of the features that items show are cut into parts; each image is in one part, however
   many items show it.
2. A part is read from the memory map, embedded, and travels on as bytes.
3. The last step gives every item the vector of its image and publishes the item version.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from uic.feature_repo.snapshots.item_images import (
    ITEM_IMAGES_KIND,
    ITEM_IMAGES_SCHEMA_VERSION,
    ITEM_VECTORS,
    ItemImages,
)
from uic.feature_repo.snapshots.published_values import column_of
from uic.feature_repo.store.item_vectors import Values, packed_item_vectors
from uic.models.bundles.bundle import Bundle, load_bundle
from uic.models.bundles.documents import BundleError
from uic.models.errors import BadInputError
from uic.models.images.embedding import ImageEmbedding
from uic.models.images.features import ImageFeatures, ImageFeaturesError
from uic.models.published import (
    MANIFEST_NAME,
    file_entry,
    publish_manifest,
    sha256_of,
    stamp_of,
)
from uic.models.rankers.dicm.image_id_table import ImageIdTable
from uic.models.rankers.dicm.image_settings import ImageRankerSettings
from uic.pipelines.beam_run import pipeline_options, publish_together, run_pipeline
from uic.pipelines.overlapped import OverlappedMap

# Rows of a part: 64 MB of features.
PART_IMAGES: Final = 4096
_FILE_ITEMS: Final = 1_000_000
_ID_BYTES: Final = 16  # hex digits of a sha256 that make the 8 bytes of an image's id


class ItemVersionError(BadInputError):
    """An item version cannot be made of these features and this bundle."""


@dataclass(frozen=True)
class EmbedRequest:
    """What `uic images embed` was asked for.

    Args:
        features: `WORKSPACE/images/NAME`.
        bundle: a bundle that looks at images.
        output: `WORKSPACE/item_images/version=NNN`.
        version: the item version.
        now_ms: when this is, milliseconds since 1970 UTC: the position of its vectors.
    """

    features: Path
    bundle: Path
    output: Path
    version: int
    now_ms: int


def image_embedding_of(bundle: Bundle) -> ImageEmbedding | None:
    """The image embedding of a bundle; None for one that knows images by their ids alone.

    Such a bundle (the paper's baseline, section 7.4) has item vectors without a number, whose
    header says which image an item shows.

    Raises:
        BundleError: it does not look at images.
    """
    embedding = getattr(bundle.model, "image_embedding", None)
    if isinstance(embedding, ImageEmbedding):
        return embedding
    if isinstance(getattr(bundle.model, "image_ids", None), ImageIdTable):
        return None
    msg = (
        f"{bundle.path}: model {bundle.name} does not look at images; give a bundle of dicm or "
        "prerank with ad_image, behavior_images or image_ids"
    )
    raise BundleError(msg)


def check_encoder(bundle: Bundle, features: ImageFeatures) -> None:
    """Features must be of the encoder that the bundle was trained with.

    Raises:
        ImageFeaturesError: of another encoder, or of another width.
    """
    settings = bundle.settings
    encoder = settings.image_encoder if isinstance(settings, ImageRankerSettings) else ""
    if encoder not in {"", features.encoder}:
        msg = (
            f"{features.path}: features of encoder {features.encoder}, bundle "
            f"{bundle.name}/{bundle.version} was trained with {encoder}; extract them with that one"
        )
        raise ImageFeaturesError(msg)
    embedding = image_embedding_of(bundle)
    if embedding is not None and len(features) and features.width != embedding.features:
        msg = (
            f"{features.path}: features are {features.width} wide, bundle {bundle.name}/"
            f"{bundle.version} embeds {embedding.features}; extract them with its encoder"
        )
        raise ImageFeaturesError(msg)


def embed_item_images(
    request: EmbedRequest, runner: str = "DirectRunner", beam_arguments: Sequence[str] = ()
) -> ItemImages:
    """Embed the images of all items and publish them as an item version.

    Raises:
        ItemVersionError: the version is published already.
        ImageFeaturesError: the features are not of the bundle's encoder.
        BundleError: the bundle does not look at images.
    """
    options = pipeline_options(runner, beam_arguments)
    if (request.output / MANIFEST_NAME).exists():
        msg = f"{request.output}: this item version is published already; give another --version"
        raise ItemVersionError(msg)
    features = ImageFeatures.open(request.features)
    bundle = _bundle(request.bundle)
    check_encoder(bundle, features)
    # Without an image embedding there is nothing to compute.
    rows = np.unique(features.item_rows if image_embedding_of(bundle) is not None else [])
    parts = [rows[at : at + PART_IMAGES] for at in range(0, len(rows), PART_IMAGES)]
    work = _Embedding(request)
    run_pipeline(lambda pipeline: _build(pipeline, parts, work), options)
    return ItemImages.open(request.output)


@dataclass(frozen=True)
class _Embedding:
    """The steps; travels to workers, which open features and bundle once each."""

    request: EmbedRequest

    def embed(self, rows: NDArray[np.int32]) -> list[tuple[bytes, bytes]]:
        """Step 2: rows (n,) and their vectors (n, width), as bytes."""
        features = _features(self.request)
        vectors = embedded(_bundle(self.request.bundle), features.features[rows])
        return [(rows.tobytes(), vectors.tobytes())]

    def publish(self, parts: Iterable[tuple[bytes, bytes]]) -> None:
        """Step 3."""
        features = _features(self.request)
        bundle = _bundle(self.request.bundle)
        embedding = image_embedding_of(bundle)
        width = 0 if embedding is None else embedding.width
        vectors = np.zeros((len(features), width), dtype=np.float32)
        for rows, part in parts:
            places = np.frombuffer(rows, np.int32)
            vectors[places] = np.frombuffer(part, "<f4").reshape(len(places), width)
        write_item_images(self.request, features, bundle, vectors)


def embedded(bundle: Bundle, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features (n, features) through a bundle's image embedding: (n, width), float32.

    Of a bundle without one: (n, 0).
    """
    embedding = image_embedding_of(bundle)
    if embedding is None:
        return np.zeros((len(features), 0), dtype=np.float32)
    with torch.inference_mode():
        # A copy: torch has no read-only tensors, and a memory map may be one.
        outputs = embedding(torch.from_numpy(np.array(features, dtype=np.float32)))
        vectors: NDArray[np.float32] = outputs.numpy()
        return vectors


def image_id(digest: str) -> bytes:
    """The 8 bytes that stand for an image in an item vector, of its hex sha256."""
    return bytes.fromhex(digest[:_ID_BYTES])


def write_item_images(
    request: EmbedRequest,
    features: ImageFeatures,
    bundle: Bundle,
    vectors: NDArray[np.float32],
) -> None:
    """Publish an item version.

    Args:
        request: where to, and when.
        features: which item shows which image.
        bundle: that embedded them.
        vectors: (images, width), by row of the features.
    """
    request.output.mkdir(parents=True, exist_ok=True)
    ids = [image_id(digest) for digest in features.sha256]
    files: list[dict[str, Any]] = []
    value_bytes = packed_item_vectors(0, bundle.hash8, 0, vectors[:0]).shape[1]
    for at in range(0, len(features.item_ids), _FILE_ITEMS):
        shown = features.item_rows[at : at + _FILE_ITEMS]
        values = packed_item_vectors(
            request.version,
            bundle.hash8,
            request.now_ms,
            vectors[shown],
            [ids[row] for row in shown.tolist()],
        )
        path = request.output / f"part-{at // _FILE_ITEMS:05d}.parquet"
        table = _table(features.item_ids[at : at + _FILE_ITEMS], values, request.now_ms)
        pq.write_table(table, path)
        files.append(file_entry(request.output, path, table.num_rows))
    publish_manifest(
        request.output,
        {
            "kind": ITEM_IMAGES_KIND,
            "schema_version": ITEM_IMAGES_SCHEMA_VERSION,
            "files": files,
            "version": request.version,
            "rows": len(features.item_ids),
            "images": len(np.unique(features.item_rows)),
            "value_bytes": value_bytes,
            "bundle": f"{bundle.name}/{bundle.version}",
            "bundle_hash8": bundle.hash8.hex(),
            "features": request.features.name,
            "features_sha256": sha256_of(request.features / MANIFEST_NAME),
            "encoder": features.encoder,
            "cut_ms": request.now_ms,
        },
    )


def _table(item_ids: NDArray[np.int64], values: Values, now_ms: int) -> pa.Table:
    times = np.full(len(values), now_ms)
    return pa.table([item_ids, times, column_of(values)], schema=ITEM_VECTORS)


def next_version(folder: Path, taken: Iterable[int] = ()) -> int:
    """A version that neither `WORKSPACE/item_images` nor the store has."""
    used = [int(path.name.partition("=")[2]) for path in folder.glob("version=*")]
    return max([*used, *taken], default=0) + 1


@lru_cache(maxsize=2)
def _features(request: EmbedRequest) -> ImageFeatures:
    # By the request: a worker outlives a run, and the folder may hold more images in the next.
    return ImageFeatures.open(request.features)


def _bundle(path: Path) -> Bundle:
    return _loaded(path, stamp_of(path / MANIFEST_NAME))


@lru_cache(maxsize=2)
def _loaded(
    path: Path,
    stamp: tuple[int, ...],  # noqa: ARG001 - another bundle under one name is loaded again
) -> Bundle:
    return load_bundle(path)


def _build(pipeline: beam.Pipeline, parts: list[NDArray[np.int32]], embedding: _Embedding) -> None:
    vectors = (
        pipeline
        | "Rows" >> beam.Create(parts)
        | "Spread" >> beam.Reshuffle()
        | "Embed" >> beam.ParDo(OverlappedMap(embedding.embed))
    )
    publish_together(pipeline, [vectors], embedding.publish)
