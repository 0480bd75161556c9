"""A GRU that begins as a decaying mean of its inputs, and learns from there."""

import math
from typing import Final

import torch
from torch import nn

# What is left of torch's random weights: enough to learn from.
_SMALL: Final = 0.1


def begin_as_mean(gru: nn.GRUCell, width: int, half_life_events: float) -> None:
    """Set the weights so that h' = (1 - z) tanh(x) + z h, nearly, with z = 0.5^(1 / half-life).

    A seldom item then shows in the state from its first event on, as what it is; random weights
    have to learn first what of x to keep. Not in a paper.

    Args:
        gru: of inputs whose first `width` are the event.
        width: of an event; where the state is wider or narrower, what they share is kept.
        half_life_events: after so many events an event weighs half; above 0.
    """
    kept = 0.5 ** (1 / half_life_events)
    states = gru.hidden_size
    with torch.no_grad():
        for weights in gru.parameters():
            weights.mul_(_SMALL)
        # Rows in torch's order: the reset gate, the update gate, the new state.
        gru.weight_ih[2 * states :, :width].add_(torch.eye(states, width))
        gru.bias_ih[states : 2 * states].add_(math.log(kept / (1 - kept)))
