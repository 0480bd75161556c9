"""What the tests of image models share: published features, and the laws that all of them obey."""

import hashlib

import numpy as np
import pyarrow as pa
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from uic.models.hashing import stable_hash
from uic.models.images.feature_rows import FeatureRows
from uic.models.images.features import ITEM_IMAGES, check_items, check_parts
from uic.models.images.parts import NewPart, publication_lock, publish_parts, shape_of, write_part
from uic.models.published import only_writer

ENCODER = "test-encoder sha256:0"


def write_image_features(path, features, sha256s, item_ids, rows, *, encoder):
    """Publish image features as the directory `path`, in place of what it held; opened."""
    blocks = [features] if isinstance(features, np.ndarray) else list(features)
    ids = np.asarray(item_ids, dtype=np.int64)
    order = np.argsort(ids, kind="stable")
    ids, item_rows = ids[order], np.asarray(rows, dtype=np.int32)[order]
    check_items(path, ids, item_rows)
    blocks = blocks or [np.zeros(shape_of(path, blocks), dtype=np.float32)]
    shape_of(path, blocks)
    check_parts(path, blocks, sha256s, item_rows)
    items = pa.table([ids, item_rows], schema=ITEM_IMAGES)
    part = NewPart(FeatureRows(blocks), sha256s, items, {})
    with only_writer(publication_lock(path)):
        path.mkdir(exist_ok=True)
        return publish_parts(path, [write_part(path, 0, part, encoder)], part.counts, encoder, {})


def publish_features(path, *, items=40, images=25, width=9, seed=0, encoder=ENCODER):
    """Random features; every seventh item has no image, and several items share one."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(images, width)).astype(np.float32)
    ids = np.array([item for item in range(items) if item % 7 != 3])
    sums = [hashlib.sha256(f"{seed}-{row}".encode()).hexdigest() for row in range(images)]
    return write_image_features(
        path, features, sums, ids, random.integers(0, images, ids.size), encoder=encoder
    )


def image_id_row(features, item):
    """The row of an image's id among 11; the last is that of items without one."""
    row = int(features.rows_of([item])[0])
    if row < 0:
        return 11
    content = np.array([int(features.sha256[row][:15], 16)])
    return int(stable_hash(content, seed=3)[0] % np.uint64(11))


def check_formula(family, model, data, formula, features):
    """Logits and loss of a model are those of its literal formula, sample by sample."""
    batch, vocabulary = data
    encoded = family.encode(batch, vocabulary)
    with torch.no_grad():
        found = model(encoded)

    def image_of(item):
        row = int(features.rows_of([item])[0])
        return None if row < 0 else features.features[row].astype(np.float64)

    expected = family.literal_logits(
        model,
        model.settings,
        batch,
        vocabulary,
        formula,
        image_of=image_of,
        image_id_of=lambda item: image_id_row(features, item),
    )
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-9)
    loss = np.log1p(np.exp(-expected * np.where(batch.labels, 1, -1))).mean()
    ours = binary_cross_entropy_with_logits(found, encoded.labels)
    assert abs(float(ours) - loss) < 1e-12


def check_company(family, model, data):
    """Neither grouping nor the order of groups changes a logit."""
    batch, vocabulary = data
    with torch.no_grad():
        together = model(family.encode(batch, vocabulary))
        single = model(family.encode(batch.ungrouped(), vocabulary))
        order = np.random.default_rng(1).permutation(batch.groups)
        shuffled = model(family.encode(batch.select(order), vocabulary))
    torch.testing.assert_close(single, together, rtol=0, atol=1e-9)
    places = np.concatenate(
        [np.arange(*batch.impression_offsets[group : group + 2]) for group in order]
    )
    torch.testing.assert_close(shuffled, together[torch.from_numpy(places)], rtol=0, atol=1e-9)
