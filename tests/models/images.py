"""What the tests of image models share: published features for the ids that samples hold."""

import hashlib

import numpy as np

from models.image_features import write_image_features

ENCODER = "test-encoder sha256:0"


def publish_features(path, *, items=40, images=25, width=9, seed=0, encoder=ENCODER):
    """Random features; every seventh item has no image, and several items share one."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(images, width)).astype(np.float32)
    ids = np.array([item for item in range(items) if item % 7 != 3])
    sums = [hashlib.sha256(f"{seed}-{row}".encode()).hexdigest() for row in range(images)]
    return write_image_features(
        path, features, sums, ids, random.integers(0, images, ids.size), encoder=encoder
    )
