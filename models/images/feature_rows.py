"""The rows of several files as one array, so that adding to features never copies what is there."""

from collections.abc import Sequence
from typing import overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

Features = NDArray[np.float32]


class FeatureRows:
    """(images, width), float32, in files; nothing is read until it is asked for.

    A slice is a view, rows by number are a copy, as of a memory map.

    Args:
        parts: arrays of one width, one after the other.
        chosen: (rows,), which of all rows a view has; None for all.
    """

    dtype = np.dtype(np.float32)
    ndim = 2

    def __init__(
        self, parts: Sequence["Features | FeatureRows"], chosen: NDArray[np.int64] | None = None
    ) -> None:
        self.parts = tuple(parts)
        self._chosen = chosen
        self._starts = np.cumsum([0, *(len(part) for part in self.parts)])
        rows = int(self._starts[-1]) if chosen is None else len(chosen)
        width: int = self.parts[0].shape[1]
        self.shape: tuple[int, int] = (rows, width)

    def __len__(self) -> int:
        """Rows."""
        return self.shape[0]

    @overload
    def __getitem__(self, key: slice) -> "FeatureRows": ...

    @overload
    def __getitem__(self, key: ArrayLike) -> Features: ...

    def __getitem__(self, key: slice | ArrayLike) -> "FeatureRows | Features":
        """A view of a slice, or a copy of rows: (n,) int to (n, width), one int to (width,).

        Raises:
            IndexError: there is no such row.
        """
        if isinstance(key, slice):
            return FeatureRows(self.parts, self._numbers()[key])
        asked = np.asarray(key)
        if not np.issubdtype(asked.dtype, np.integer) and asked.size:
            msg = f"rows are asked for by number, found {asked.dtype}"
            raise IndexError(msg)
        rows = asked.reshape(-1).astype(np.int64)
        if len(rows) and not (-len(self) <= rows.min() and rows.max() < len(self)):
            msg = f"rows {rows.min()} to {rows.max()} of {len(self)}"
            raise IndexError(msg)
        rows = np.where(rows < 0, rows + len(self), rows)
        features = self._gathered(rows if self._chosen is None else self._chosen[rows])
        return features.reshape(*asked.shape, self.shape[1])

    def __array__(
        self,
        dtype: DTypeLike = None,
        copy: bool | None = None,  # noqa: FBT001 - numpy's protocol
    ) -> Features:
        """All rows in memory."""
        del copy  # it is one in any case
        return self._gathered(self._numbers()).astype(dtype or self.dtype, copy=False)

    def _numbers(self) -> NDArray[np.int64]:
        """Rows of the files."""
        return np.arange(len(self)) if self._chosen is None else self._chosen

    def _gathered(self, rows: NDArray[np.int64]) -> Features:
        if len(self.parts) == 1:
            return np.asarray(self.parts[0][rows])
        features = np.empty((len(rows), self.shape[1]), dtype=np.float32)
        owners = np.searchsorted(self._starts, rows, side="right") - 1
        for owner in np.unique(owners):
            mine = owners == owner
            features[mine] = self.parts[owner][rows[mine] - self._starts[owner]]
        return features
