"""Random numbers that belong to (user, number): the same whenever they are asked for."""

import numpy as np
from numpy.typing import NDArray

from uic.pipelines.simulator.world import Floats, Ints

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mixed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele, Lea, Flood 2014)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = words ^ (words >> np.uint64(31))
    return mixed


def hashed(seed: int, salt: int, user_ids: Ints, numbers: Ints | int = 0) -> Floats:
    """Uniform in [0, 1) by (seed, salt, user, number), float32, of the shape of `user_ids`."""
    words = np.full(np.shape(user_ids), seed, dtype=np.uint64)
    for part in (salt, user_ids, numbers):
        words = _mixed(words + _GOLDEN + np.asarray(part).astype(np.uint64))
    # 24 bits, so that the largest one is below 1 in float32.
    uniform: Floats = (words >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)
    return uniform
