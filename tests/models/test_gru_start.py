"""A GRU that begins as a decaying mean, and the form of MIMN that the paper has."""

import numpy as np
import pytest
import torch
from torch import nn

from uic.models.layers.gru_start import begin_as_mean
from uic.models.memory.network import MemoryNetwork
from uic.models.rankers.mimn import MimnSettings
from uic.models.training.run_spec import apply_settings
from uic.models.training.settings import TrainSettings


@pytest.mark.parametrize("half_life", [1.0, 3.0, 10.0])
@pytest.mark.parametrize(("states", "inputs"), [(8, 8), (8, 14), (5, 8), (12, 8)])
def test_it_begins_as_a_mean_whose_weights_halve(states, inputs, half_life):
    width = 8
    torch.manual_seed(3)
    gru = nn.GRUCell(inputs, states)
    begin_as_mean(gru, width, half_life)
    events = torch.randn(40, inputs) * 0.3
    h, mean = torch.zeros(1, states), torch.zeros(width)
    kept = 0.5 ** (1 / half_life)
    with torch.no_grad():
        for x in events:
            h = gru(x.unsqueeze(0), h)
            mean = (1 - kept) * x[:width].tanh() + kept * mean
    shared = min(states, width)
    found = np.corrcoef(h[0, :shared].numpy(), mean[:shared].numpy())[0, 1]
    assert found > 0.85
    assert (h[0, :shared] - mean[:shared]).abs().max() < 0.12
    assert h[0, shared:].abs().max() < 0.12 if states > shared else True
    assert all(weights.unique().numel() > 1 for weights in gru.parameters())  # they can learn apart


def test_mimn_begins_so_and_the_published_form_does_not():
    def mimn(*assignments):
        settings = apply_settings("mimn", TrainSettings(), list(assignments))[0]
        torch.manual_seed(1)
        return settings, MemoryNetwork(settings.memory_config()).controller.weight_ih

    own, began = mimn()
    published, random = mimn("form=published")
    assert own.form == "own"
    assert all(getattr(own, key) != value for key, value in MimnSettings.PUBLISHED.items())
    assert all(getattr(published, key) == value for key, value in MimnSettings.PUBLISHED.items())
    width, states = own.event_width, own.controller
    assert torch.diagonal(began[2 * states :, :width]).min() > 0.9
    assert torch.diagonal(random[2 * states :, :width]).abs().max() < 0.2


def test_what_is_said_beside_the_published_form_wins():
    settings = apply_settings("mimn", TrainSettings(), ["form=published", "routing=true"])[0]
    assert settings.routing
    assert not settings.readout_controller
