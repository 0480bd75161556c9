"""Items with images in the shop, and the vectors that a bundle makes of them."""

import hashlib

import numpy as np

from tests.jobs.serving.shop import FIRST_ITEM, ITEM_COUNT, Shop
from tests.models.images import write_image_features
from uic.feature_repo.snapshots.item_images import ItemImages
from uic.models.images.features import ImageFeatures
from uic.pipelines.images.embed import EmbedRequest, embedded, write_item_images

WIDTH = 6
SMALL = {
    "images": "shop",
    "image_width": WIDTH,
    "image_encoder": "test",
    "image_widths": (5, 4),
    "item_width": 4,
    "category_width": 3,
    "head_widths": (8,),
    "image_id_rows": 64,
}
# The paper's baseline: which image it is, and nothing of what it shows.
IDS_ALONE = {"ad_image": False, "behavior_images": False}


def publish_features(shop: Shop) -> ImageFeatures:
    """Every third item has no image; two items show each image."""
    items = np.arange(FIRST_ITEM, FIRST_ITEM + ITEM_COUNT)
    items = items[items % 3 != 0]
    images = len(items) // 2 + 1
    random = np.random.default_rng(0)
    return write_image_features(
        shop.workspace / "images" / "shop",
        random.normal(size=(images, WIDTH)).astype(np.float32),
        [hashlib.sha256(str(row).encode()).hexdigest() for row in range(images)],
        items,
        np.arange(len(items)) // 2,
        encoder="test",
    )


def publish_version(shop: Shop, bundle, features: ImageFeatures, version: int):
    path = shop.workspace / "item_images" / f"version={version:03d}"
    request = EmbedRequest(features.path, bundle.path, path, version, 1_700_000_000_000)
    write_item_images(request, features, bundle, embedded(bundle, features.features))
    return ItemImages.open(path)
