"""The stable hash never changes: stored partitions and vocabularies depend on it."""

import numpy as np

from uic.models.hashing import stable_hash


def test_values_are_fixed_for_ever():
    assert stable_hash([0, 1, -1, 2**63 - 1]).tolist() == [
        16294208416658607535,
        10451216379200822465,
        16490336266968443936,
        3055647633038352039,
    ]


def test_shape_is_kept_and_seeds_are_independent():
    ids = np.arange(6).reshape(2, 3)
    assert stable_hash(ids).shape == (2, 3)
    assert not np.any(stable_hash(ids) == stable_hash(ids, seed=1))


def test_partitions_are_even():
    counts = np.unique(stable_hash(np.arange(100_000)) % 8, return_counts=True)[1]
    assert counts.min() > 12_000
