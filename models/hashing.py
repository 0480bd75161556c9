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
