"""The trained part of an image's way: features of a fixed encoder to 12 floats (DICM, section 5.1).

The vector of an image depends on nothing but the image. So it can be computed once a batch,
on another machine (`uic.models.sharding.ams`), or ahead of all requests.
"""

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from uic.models.errors import BadInputError

FEATURE_WIDTH: Final = 4096
EMBEDDING_WIDTHS: Final = (256, 64, 12)


class ImageEmbeddingError(BadInputError):
    """Features are not as wide as the network that should embed them."""


class ImageEmbedding(nn.Module):
    """A fully connected network, 4096-256-64-12, PReLU after each hidden layer.

    Features are brought to length 1 and the first layer begins with a standard deviation of 1: a
    step of Adam moves each of 4,096 weights by as much as each of 12, and at the scale of FC6,
    which the paper leaves open, one step would throw the outputs about. 1,066,380 weights at the
    paper's widths: 1,066,060 of layers and biases, 320 of PReLU. An item without an image has a
    learned vector of its own, `default`.

    Args:
        features: width of the fixed encoder's output.
        widths: of the layers; the last one is the embedding's.

    Raises:
        ImageEmbeddingError: no layer, or a width below 1.
    """

    def __init__(
        self, features: int = FEATURE_WIDTH, widths: Sequence[int] = EMBEDDING_WIDTHS
    ) -> None:
        super().__init__()
        if not widths or min(features, *widths) < 1:
            msg = f"image embedding: widths {features}-{'-'.join(map(str, widths))}; each >= 1"
            raise ImageEmbeddingError(msg)
        layers: list[nn.Module] = []
        inputs = features
        for width in widths[:-1]:
            layers += [nn.Linear(inputs, width), nn.PReLU(width)]
            inputs = width
        layers.append(nn.Linear(inputs, widths[-1]))
        self.features = features
        self.layers = nn.Sequential(*layers)
        nn.init.normal_(next(self.layers.parameters()))
        self.default = nn.Parameter(torch.zeros(widths[-1]))

    @property
    def width(self) -> int:
        """Of an embedding."""
        return self.default.shape[0]

    def forward(self, features: Tensor) -> Tensor:
        """Features to embeddings.

        Args:
            features: (n, features), of the dtype of the weights.

        Returns:
            (n, width).

        Raises:
            ImageEmbeddingError: another width of features.
        """
        if features.shape[1] != self.features:
            msg = (
                f"image features are {features.shape[1]} wide, the model embeds {self.features}; "
                "use features of the encoder that it was trained with"
            )
            raise ImageEmbeddingError(msg)
        embedded: Tensor = self.layers(functional.normalize(features))
        return embedded

    def with_default(self, embedded: Tensor) -> Tensor:
        """Embeddings, and the default after them as row -1: (n, width) to (n + 1, width)."""
        return torch.cat([embedded, self.default.unsqueeze(0)])
