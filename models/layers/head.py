"""The fully connected network at the end of every ranker: 200 x 80 x 2 (MIMN, section 5.1)."""

from typing import Final

import torch
from torch import Tensor, nn

from uic.models.layers.batch_sums import BatchSums
from uic.models.layers.ranker_settings import Activation, InputNorm

# Keeps a column that never varies (a switched-off feature) from being divided by zero.
_NORM_EPSILON: Final = 1e-6


class RunningNorm(BatchSums):
    """Normalisation by running mean and variance, the same in training and in serving.

    Batch normalisation would not do: batches hold histories of one length
        (`uic.models.samples.reader`), so
    that their statistics are not those of the data. Here a batch only moves the running ones,
    which then normalise it: what is trained is what is served, and no row sees its neighbours.

    Args:
        width: of the input.
    """

    # After this many batches the running values are a moving, no longer a plain, mean.
    HORIZON_BATCHES: Final = 200

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.variance: Tensor
        self.batches: Tensor
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def forward(self, values: Tensor) -> Tensor:
        """(n, width) to (n, width)."""
        # A rank without a row of a batch still takes part in the sums.
        if self.training and (values.shape[0] or self.sum_over_ranks is not None):
            self._move(values.detach())
        normalised: Tensor = (values - self.mean) * (self.variance + _NORM_EPSILON).rsqrt()
        return normalised

    @torch.no_grad()
    def _move(self, values: Tensor) -> None:
        self.batches += 1
        step = 1.0 / self.batches.clamp(max=self.HORIZON_BATCHES).to(values.dtype)
        mean = self._mean(values)
        # Spread around the running mean, so that means that differ by batch count as variance.
        spread = self._mean((values - (self.mean + step * (mean - self.mean))).square())
        self.variance += step * (spread - self.variance)
        self.mean += step * (mean - self.mean)

    def _mean(self, values: Tensor) -> Tensor:
        """Of the rows of a batch, here and on other ranks: (n, width) to (width,)."""
        if self.sum_over_ranks is None:
            return values.mean(0)
        count = values.new_full((1,), values.shape[0])
        total = self.over_ranks(torch.cat([values.sum(0), count]))
        return total[:-1] / total[-1]


class Dice(nn.Module):
    """Dice (DIN, section 5.3): `p x + (1 - p) a x` with p = sigmoid of the normalised x.

    Args:
        width: of the input; one `a` a column.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.normalise = RunningNorm(width)
        self.slope = nn.Parameter(torch.zeros(width))

    def forward(self, values: Tensor) -> Tensor:
        """(n, width) to (n, width)."""
        gate = torch.sigmoid(self.normalise(values))
        return values * (gate + (1 - gate) * self.slope)


def activation(kind: Activation, width: int) -> nn.Module:
    """The activation after a layer of `width`."""
    return Dice(width) if kind is Activation.DICE else nn.PReLU(width)


def input_norm(kind: InputNorm, width: int) -> nn.Module:
    """What brings the head's input to one scale."""
    if kind is InputNorm.RUNNING:
        return RunningNorm(width)
    if kind is InputNorm.LAYER:
        return nn.LayerNorm(width)
    return nn.Identity()


class Head(nn.Module):
    """Features of a candidate to the logit of a click.

    The last layer has two outputs, as in the paper; their difference is the logit, since the
    cross-entropy of a softmax over two is that of a sigmoid of the difference.

    Args:
        inputs: width of the features.
        widths: of the hidden layers.
        kind: activation.
        norm: of the input.
    """

    def __init__(
        self, inputs: int, widths: tuple[int, ...], kind: Activation, norm: InputNorm
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [input_norm(norm, inputs)]
        for width in widths:
            layers += [nn.Linear(inputs, width), activation(kind, width)]
            inputs = width
        layers.append(nn.Linear(inputs, 2))
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """(n, inputs) to logits (n,)."""
        outputs = self.layers(features)
        logits: Tensor = outputs[:, 1] - outputs[:, 0]
        return logits
