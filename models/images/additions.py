"""Adding to image features, at the cost of what is new.

An addition writes a part of its own: one image is a few kilobytes beside 100 others as beside
100,000. Now and then, when there are `MAX_PARTS` of them, it writes everything anew as one part.

1. Take the lock of the directory, which every publication holds, and read what is there.
2. Leave out images that are there already, and items that show what they showed.
3. Write the part, or everything.
4. Publish the manifest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from uic.models.images.embedding import FEATURE_WIDTH
from uic.models.images.feature_rows import FeatureRows, Features
from uic.models.images.features import (
    ITEM_IMAGES,
    ImageFeatures,
    ImageFeaturesError,
    Part,
    merged_items,
    parts_of,
)
from uic.models.images.parts import (
    NewPart,
    WrittenPart,
    mapped_features,
    publication_lock,
    publish_parts,
    shape_of,
    write_part,
)
from uic.models.published import MANIFEST_NAME, only_writer

# A rewrite copies all images, so it should be rare; a reader opens four files a part.
MAX_PARTS: Final = 64

# A table that is kept beside features, by role, and the columns that name a row of it: of several
# rows of one name, the last counts.
Keys = tuple[str, ...]


@dataclass(frozen=True)
class Added:
    """What an addition did.

    Attributes:
        features: what is published now.
        images: that were new; count.
        published: False if nothing was new.
    """

    features: ImageFeatures
    images: int
    published: bool


def add_image_features(
    path: Path,
    blocks: Sequence[Features | FeatureRows],
    sha256s: Sequence[str],
    shown: Mapping[int, str],
    *,
    encoder: str,
    facts: Mapping[str, Any] | None = None,
    tables: Mapping[str, pa.Table] | None = None,
    keys: Mapping[str, Keys] | None = None,
) -> Added:
    """Add images and items to the directory `path`, which may not be there yet.

    Args:
        path: `WORKSPACE/images/NAME`.
        blocks: (images, width) each, float32, in order.
        sha256s: (images,), hex sha256 of each image file; those that are there are left out.
        shown: item -> sha256 of the image that it shows from now on, added or there.
        encoder: which encoder made the features, and the sum of its weights.
        facts: entries of the manifest, over those that are there.
        tables: rows to add to the tables beside the features, by role.
        keys: columns that name a row of each of these tables, here or in another part.

    Raises:
        ImageFeaturesError: of another encoder or width, or an item shows an image that is nowhere.
    """
    with only_writer(publication_lock(path)):  # step 1
        path.mkdir(exist_ok=True)
        before = ImageFeatures.open(path) if (path / MANIFEST_NAME).exists() else None
        if before is not None and before.encoder != encoder:
            msg = f"{path}: holds features of encoder {before.encoder}, these are of {encoder}"
            raise ImageFeaturesError(msg)
        # Step 2
        arrays = _blocks_of(path, blocks, len(sha256s), before)
        new = _New.of(path, before, sha256s, shown)
        added = {role: table for role, table in (tables or {}).items() if table.num_rows}
        if before is not None and not (new.places.size or len(new.item_ids) or added):
            return Added(before, 0, published=False)
        part = NewPart(
            features=FeatureRows(arrays, new.places),
            sha256s=[sha256s[place] for place in new.places.tolist()],
            items=pa.table([new.item_ids, new.rows], schema=ITEM_IMAGES),
            tables=added,
        )
        if before is None:
            written = write_part(path, 0, part, encoder)
            published = publish_parts(path, [written], part.counts, encoder, facts or {})
        else:
            published = _publish_beside(path, before, part, facts or {}, keys or {})
        return Added(published, len(part.sha256s), published=True)


@dataclass(frozen=True)
class _New:
    """What an addition brings.

    Attributes:
        places: (images,), which of the added images are not there.
        item_ids: (items,), ascending, those that show another image than before.
        rows: (items,), row in all parts that each shows.
    """

    places: NDArray[np.int64]
    item_ids: NDArray[np.int64]
    rows: NDArray[np.int32]

    @classmethod
    def of(
        cls,
        path: Path,
        before: ImageFeatures | None,
        sha256s: Sequence[str],
        shown: Mapping[int, str],
    ) -> "_New":
        row_of = {digest: row for row, digest in enumerate(before.sha256 if before else ())}
        places = []
        for place, digest in enumerate(sha256s):
            if digest not in row_of:
                row_of[digest] = len(row_of)
                places.append(place)
        nowhere = next((item for item, digest in shown.items() if digest not in row_of), None)
        if nowhere is not None:
            msg = f"{path}: item {nowhere} shows image {shown[nowhere][:16]}, which is not there"
            raise ImageFeaturesError(msg)
        ids = np.array(sorted(shown), dtype=np.int64)
        rows = np.array([row_of[shown[item]] for item in ids.tolist()], dtype=np.int32)
        if before is not None:
            other = before.rows_of(ids) != rows
            ids, rows = ids[other], rows[other]
        return cls(np.array(places, dtype=np.int64), ids, rows)


def _blocks_of(
    path: Path, blocks: Sequence[Features | FeatureRows], rows: int, before: ImageFeatures | None
) -> list[Features | FeatureRows]:
    """The blocks as arrays of the width of those that are there, at least one."""
    width = before.width if before is not None and len(before) else None
    shape = shape_of(path, blocks) if blocks else (0, width or FEATURE_WIDTH)
    wrong = None
    if width not in {None, shape[1]}:
        wrong = f"holds features that are {width} wide, these are {shape[1]}"
    elif shape[0] != rows:
        wrong = f"{rows} sums for {shape[0]} images"
    if wrong is not None:
        msg = f"{path}: {wrong}"
        raise ImageFeaturesError(msg)
    return list(blocks) or [np.zeros(shape, dtype=np.float32)]


def _publish_beside(
    path: Path,
    before: ImageFeatures,
    new: NewPart,
    facts: Mapping[str, Any],
    keys: Mapping[str, Keys],
) -> ImageFeatures:
    """Steps 3 and 4, where parts are there."""
    entries = {entry["path"]: entry for entry in before.manifest["files"]}
    parts = parts_of(before.manifest)
    # Parts that hold no image may be of another width.
    rewrite = len(parts) >= MAX_PARTS or not len(before)
    images = len(before) + len(new.sha256s)
    items = len(np.union1d(before.item_ids, new.items["item_id"].to_numpy()))
    if rewrite:
        written = write_part(path, 0, _merged(parts, before, new, keys), before.encoder)
    else:
        written = write_part(path, len(before), new, before.encoder)
    known = {name: fact for name, fact in before.manifest.items() if name not in {"parts", "roles"}}
    return publish_parts(
        path,
        [*([] if rewrite else (_published(part, entries) for part in parts)), written],
        (images, items),
        before.encoder,
        {**known, **facts},
    )


def _published(part: Part, entries: Mapping[str, Mapping[str, Any]]) -> WrittenPart:
    return WrittenPart(part, [entries[name] for name in part.values()])


def _merged(
    parts: Sequence[Part], before: ImageFeatures, new: NewPart, keys: Mapping[str, Keys]
) -> NewPart:
    """All parts and a new one as one."""
    path = before.path
    blocks = [mapped_features(path, part) for part in parts]
    published = [pq.read_table(path / part["items"], schema=ITEM_IMAGES) for part in parts]
    item_ids, rows = merged_items([*published, new.items])
    tables: dict[str, list[pa.Table]] = {}
    for part in parts:
        for role in set(part) - {"features", "images", "items"}:
            tables.setdefault(role, []).append(pq.read_table(path / part[role]))
    for role, table in new.tables.items():
        tables.setdefault(role, []).append(table)
    features = [block for block in blocks if len(block)]
    return NewPart(
        features=FeatureRows([*features, new.features]) if features else new.features,
        sha256s=[*before.sha256, *new.sha256s],
        items=pa.table([item_ids, rows], schema=ITEM_IMAGES),
        tables={
            role: _last_rows(rows_of_role, keys.get(role, ()))
            for role, rows_of_role in tables.items()
        },
    )


def _last_rows(tables: Sequence[pa.Table], keys: Keys) -> pa.Table:
    """Rows of tables, of those with the same keys the last."""
    table = pa.concat_tables(tables)
    if len(tables) == 1 or not keys:
        return table
    numbered = table.append_column("number", pa.array(np.arange(table.num_rows)))
    last = numbered.group_by(list(keys)).aggregate([("number", "max")])["number_max"]
    return table.take(np.sort(last.to_numpy()))
