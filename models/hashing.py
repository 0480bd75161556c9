"""One hash for everything that must come out the same on every machine and in every year.

Used for the partition of an imported user, for the spare rows of a vocabulary and for sampling
by key. It is the finaliser of SplitMix64, vectorised; Python's `hash` is salted per process.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def stable_hash(ids: ArrayLike, seed: int = 0) -> NDArray[np.uint64]:
    """Hash int64 ids to uint64, equally on every platform (SplitMix64's finaliser).

    Args:
        ids: any shape, int64 or uint64.
        seed: another seed gives an independent hash.

    Returns:
        The same shape, uint64.
    """
    z = np.asarray(ids).astype(np.int64, copy=False).astype(np.uint64)
    offset = np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    with np.errstate(over="ignore"):
        z = z + offset
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def murmur2_partition(ids: NDArray[np.int64], partitions: int) -> NDArray[np.int64]:
    """The partition that Kafka's default partitioner gives to a key of decimal digits.

    Args:
        ids: (n,), 0 or more.
        partitions: of the topic.

    Returns:
        (n,), int64.
    """
    digits = ids.astype("S20")
    lengths = np.char.str_len(digits)
    hashes = np.zeros(len(ids), dtype=np.uint32)
    for length in np.unique(lengths).tolist():
        rows = np.flatnonzero(lengths == length)
        keys = digits[rows].view(np.uint8).reshape(len(rows), 20)[:, :length]
        hashes[rows] = _murmur2(keys.astype(np.uint32))
    return (hashes & np.uint32(0x7FFFFFFF)).astype(np.int64) % partitions


def _murmur2(keys: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """(n, length) bytes of keys -> (n,): MurmurHash2 with Kafka's seed."""
    factor, length = np.uint32(0x5BD1E995), keys.shape[1]
    hashes = np.full(len(keys), 0x9747B28C ^ length, dtype=np.uint32)
    shifts = np.array([0, 8, 16, 24], dtype=np.uint32)
    whole = length - length % 4
    for at in range(0, whole, 4):
        word = (keys[:, at : at + 4] << shifts).sum(axis=1, dtype=np.uint32) * factor
        word = (word ^ (word >> np.uint32(24))) * factor
        hashes = (hashes * factor) ^ word
    if whole < length:
        rest = (keys[:, whole:] << shifts[: length - whole]).sum(axis=1, dtype=np.uint32)
        hashes = (hashes ^ rest) * factor
    hashes = (hashes ^ (hashes >> np.uint32(13))) * factor
    result: NDArray[np.uint32] = hashes ^ (hashes >> np.uint32(15))
    return result
