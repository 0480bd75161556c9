"""Reads item vectors of one item version, through Feast pinned to that version."""

import asyncio
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from feast import FeatureStore
from numpy.typing import NDArray

from uic.feature_repo.plugin.pinned import pinned
from uic.feature_repo.store.errors import StoreError
from uic.feature_repo.store.item_vectors import ITEM_VIEW
from uic.jobs.serving.read.breaker import CircuitBreaker

ITEM_KEY: Final = "item_id"


@dataclass(frozen=True)
class VectorSource:
    """Where the vectors of one bundle are.

    Args:
        store: Feast.
        version: item version; None if the store has none of the bundle.
        bundle: first 8 bytes of the bundle's hash.
        breaker: around the store.
        timeout_seconds: of a read in a request; Redis' own comes first.
    """

    store: FeatureStore
    version: int | None
    bundle: bytes
    breaker: CircuitBreaker
    timeout_seconds: float = 5.0

    def read(self, item_ids: NDArray[np.int64]) -> list[bytes]:
        """Packed vectors of items, (n,); empty where there is none.

        Raises:
            StoreError: the store does not answer, or is left alone for a moment.
        """
        if self.version is None or not len(item_ids):
            return [b""] * len(item_ids)
        self._allow()
        try:
            with pinned(ITEM_VIEW, self.version):
                answer = self.store.get_online_features(*_asked(item_ids))
        except (StoreError, OSError) as error:
            self.breaker.failed()
            raise StoreError(str(error)) from error
        return self._values(answer)

    async def read_async(self, item_ids: NDArray[np.int64]) -> list[bytes]:
        """As `read`, while the loop goes on.

        Raises:
            StoreError: as in `read`, or it took too long.
        """
        if self.version is None or not len(item_ids):
            return [b""] * len(item_ids)
        self._allow()
        try:
            async with asyncio.timeout(self.timeout_seconds):
                with pinned(ITEM_VIEW, self.version):
                    answer = await self.store.get_online_features_async(*_asked(item_ids))
        except (StoreError, TimeoutError, OSError) as error:
            self.breaker.failed()
            raise StoreError(str(error) or "the store takes too long") from error
        return self._values(answer)

    def _allow(self) -> None:
        if not self.breaker.allow():
            msg = "the store failed a moment ago"
            raise StoreError(msg)

    def _values(self, answer: Any) -> list[bytes]:
        self.breaker.succeeded()
        names = list(answer.proto.metadata.feature_names.val)
        column = answer.proto.results[names.index("embedding")]
        return [value.bytes_val for value in column.values]


def _asked(item_ids: NDArray[np.int64]) -> tuple[list[str], dict[str, Any]]:
    """What Feast is asked for."""
    return [f"{ITEM_VIEW}:embedding"], {ITEM_KEY: item_ids.tolist()}
