"""Which partition a user belongs to, where the topic's partitioner is declared."""

import functools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from uic.models.hashing import murmur2_partition


def home_of(
    partitioner: str, partitions: int
) -> Callable[[NDArray[np.int64]], NDArray[np.int64]] | None:
    """Where a declared partitioner places users; None if it is not declared."""
    if partitioner == "any":
        return None
    return functools.partial(murmur2_partition, partitions=partitions)
