"""The named tuples that the fold's kernels are called with.

They stand here because the order of their fields is a part of what is compiled.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Sizes(NamedTuple):
    """Sizes and switches of a network, and the first rows of its state's fields."""

    slots: int
    event: int
    width: int
    controller: int
    channel: int
    top_k: int
    utilization_horizon: float
    pool_horizon: float
    clip: float
    epsilon: float
    sharpening: bool
    utilization: bool
    induction: bool
    routing: bool
    state: int
    S: int
    h: int
    r: int
    g: int
    pool: int


class Gates(NamedTuple):
    """A packed GRU: reset and update gates over [input; hidden], and the two parts of the new."""

    both: Floats
    both_bias: Floats
    new: Floats
    new_bias: Floats
    hidden: Floats
    hidden_bias: Floats


class Weights(NamedTuple):
    """All packed weights; those of a part that is switched off are empty."""

    controller: Gates
    heads: Floats
    heads_bias: Floats
    balance: Floats
    balance_bias: Floats
    channel: Gates
    route: Floats
    route_bias: Floats


class FoldBuffers(NamedTuple):
    """A tile's working memory, each (rows, 16) and aligned to 64 bytes."""

    state: Floats
    halves: NDArray[np.uint16]
    inputs: Floats  # [x; r; h], then [x; M(i); S(i)]
    gates: Floats
    fresh: Floats
    recurrent: Floats
    heads: Floats
    read_weights: Floats
    write_weights: Floats
    routes: Floats  # to read, then to write; zeros without routing
    balanced: Floats
    logits: Floats
    totals: Floats
    seen: Floats  # one row: events folded


class Matrix(NamedTuple):
    """A packed matrix and its bias, here zeros."""

    weight: Floats
    bias: Floats


class Transposed(NamedTuple):
    """The transposed weights: from gradients of outputs to gradients of inputs."""

    controller: Matrix
    heads: Matrix
    balance: Matrix
    channel: Matrix
    route: Matrix


class GradientBuffers(NamedTuple):
    """A tile's working memory (rows, 16); those from `event_gradient` on are parts of `written`."""

    state: Floats
    halves: NDArray[np.uint16]
    carry: Floats
    seen: Floats
    inputs: Floats
    controller: Floats
    channel: Floats
    heads: Floats
    slopes: Floats
    norms: Floats
    routes: Floats
    read_cosines: Floats
    read_inverses: Floats
    read_weights: Floats
    write_cosines: Floats
    write_inverses: Floats
    write_weights: Floats
    balanced: Floats
    logits: Floats
    left: Floats
    read_gradient: Floats
    write_gradient: Floats
    total_gradient: Floats
    upstream: Floats
    back: Floats
    written: Floats
    event_gradient: Floats
    controller_gates: Floats
    heads_gradient: Floats
    logits_gradient: Floats
    channel_gates: Floats
    channel_inputs: Floats
    routes_gradient: Floats
