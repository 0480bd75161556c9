"""The stable hash never changes: stored partitions and vocabularies depend on it."""

import numpy as np

from uic.models.hashing import murmur2_partition, stable_hash


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


def plain_murmur2(key: bytes) -> int:
    """Kafka's `Utils.murmur2`, a byte at a time."""
    factor, every = 0x5BD1E995, 2**32
    result = 0x9747B28C ^ len(key)
    for at in range(0, len(key) - len(key) % 4, 4):
        word = int.from_bytes(key[at : at + 4], "little") * factor % every
        word = (word ^ word >> 24) * factor % every
        result = result * factor % every ^ word
    rest = key[len(key) - len(key) % 4 :]
    if rest:
        result = (result ^ int.from_bytes(rest, "little")) * factor % every
    result = (result ^ result >> 13) * factor % every
    return result ^ result >> 15


def test_a_partition_is_that_of_kafkas_default_partitioner() -> None:
    # From Kafka's own tests: murmur2("21") is -973932308, which it makes positive.
    assert murmur2_partition(np.array([21]), 2**31).tolist() == [-973932308 & 0x7FFFFFFF]
    ids = [0, 7, 10, 21, *(10**power + 3 for power in range(2, 19)), 2**63 - 1]
    expected = [(plain_murmur2(str(one).encode()) & 0x7FFFFFFF) % 12 for one in ids]
    assert murmur2_partition(np.array(ids), 12).tolist() == expected
    assert murmur2_partition(np.zeros(0, np.int64), 12).tolist() == []
