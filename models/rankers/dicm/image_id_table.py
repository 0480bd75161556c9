"""Ids of images as a sparse field (DICM, section 7.4: the baseline has them too).

The id of an image is its content's hash, so that it is the same in every publication of the
features; it is hashed to a fixed number of rows.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from uic.models.hashing import stable_hash
from uic.models.images.features import ImageFeatures
from uic.models.layers.row_table import RowTable, distinct_rows
from uic.models.rankers.dicm.batch_images import BatchImages

# Independent of the hashes that place users in partitions, ids in spare rows and users in rows.
_SEED = 3


@dataclass(frozen=True)
class ImageIds:
    """The ids of a batch's images.

    Attributes:
        rows: (rows,) int64, distinct, ascending.
        embeddings: (rows, width).
        index: (distinct images + 1,) int64: which row each image has; last, that of no image.
    """

    rows: Tensor
    embeddings: Tensor
    index: Tensor


class ImageIdTable(nn.Module):
    """Embeddings of image ids; the last row is that of items without an image.

    Args:
        rows: that ids are hashed to.
        width: of an embedding.
        std: standard deviation of initial values.
    """

    def __init__(self, rows: int, width: int, std: float) -> None:
        super().__init__()
        self.rows = rows
        self.table = RowTable(rows + 1, width, std)
        self._of_image: NDArray[np.int64] = np.zeros(0, dtype=np.int64)

    def know(self, images: ImageFeatures) -> None:
        """Hash the ids of all images once."""
        contents = np.array([int(text[:15], 16) for text in images.sha256], dtype=np.int64)
        self._of_image = self.hashed(contents)

    def hashed(self, contents: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of images, by the first 60 bits of their sha256: (n,) to (n,)."""
        rows = stable_hash(contents, seed=_SEED) % np.uint64(self.rows)
        return rows.astype(np.int64)

    def find(
        self, images: BatchImages, of_image: NDArray[np.int64] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Distinct rows that a batch wants, and `ImageIds.index`.

        Args:
            images: of the batch.
            of_image: (images,), which row each image has; default: those that `know` hashed.
        """
        known = self._of_image if of_image is None else of_image
        rows = np.append(known[images.rows], self.rows)
        return distinct_rows(torch.from_numpy(rows).to(images.history.device), self.rows + 1)

    def of(self, images: BatchImages, of_image: NDArray[np.int64] | None = None) -> ImageIds:
        """The embeddings of a batch; a step moves them (`uic.models.training.optimizer`).

        Args:
            images: of the batch.
            of_image: see `find`.
        """
        self.table.forget()
        rows, index = self.find(images, of_image)
        return ImageIds(rows, self.table.take(rows), index)
