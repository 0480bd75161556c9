"""The network's step against a literal transcription of the eight steps, and its switches."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tests.models.memory_examples import network
from uic.models.memory.network import MemoryConfig, MemoryNetwork, MemoryState, pick_channels

SETTINGS = [
    {},
    {"utilization": False, "induction": False},
    {"induction": False},
    {"utilization_input": "sum"},
    {"sharpening": False, "slots": 4},
    {"slots": 6, "top_k": 3, "slot_width": 12, "channel_width": 20, "controller": 24},
    {"item_width": 5, "category_width": 0, "slots": 1},
    {"utilization_gradient": "regularization", "utilization_horizon_events": 2},
    {"pool_horizon_events": 1, "clip": 0.5},
    {"routing": True, "slots": 6, "top_k": 2, "slot_width": 12},
]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def gru(cell, x, h):
    w_x, w_h, b_x, b_h = (p.detach().numpy() for p in cell.parameters())
    n = len(h)
    a, b = w_x @ x + b_x, w_h @ h + b_h
    reset, update = sigmoid(a[:n] + b[:n]), sigmoid(a[n : 2 * n] + b[n : 2 * n])
    return (1 - update) * np.tanh(a[2 * n :] + reset * b[2 * n :]) + update * h


def cosine(a, b, epsilon):
    return a @ b / np.sqrt((a @ a) * (b @ b) + epsilon)


def eight_steps(memory, state, x):
    """One user, one event, in float64 and in the words of docs/concepts.md."""
    config, width = memory.config, memory.config.memory_width
    m = config.slots
    old = {name: None if v is None else v.copy() for name, v in state.items()}
    n = old["count"] + 1
    new = {"count": n}
    # 1. Controller: h <- GRUCell([x; r], h), r the previous read vector.
    new["h"] = h = gru(memory.controller, np.concatenate([x, old["r"]]), old["h"])
    # 2. One linear layer, clipped; keys and add through tanh, erase through sigmoid.
    out = memory.heads.weight.detach().numpy() @ h + memory.heads.bias.detach().numpy()
    out = np.clip(out, -config.clip, config.clip)
    read_key, write_key = np.tanh(out[:width]), np.tanh(out[width : 2 * width])
    erase, add = sigmoid(out[2 * width : 3 * width]), np.tanh(out[3 * width : 4 * width])
    beta = 1 + np.log1p(np.exp(out[4 * width :])) if config.sharpening else np.ones(2)
    # 3. Addressing on M before the write.
    memory_before, epsilon = old["M"], config.cosine_epsilon
    to_read = to_write = np.zeros(m)
    if config.routing:  # a score of each slot for this very event, to read and to write
        to_read, to_write = np.split(memory.route.weight.detach().numpy() @ x, 2)
    reads = np.array([beta[0] * cosine(read_key, row, epsilon) for row in memory_before])
    writes = np.array([beta[1] * cosine(write_key, row, epsilon) for row in memory_before])
    w_read, w_write = softmax(reads + to_read), softmax(writes + to_write)
    # 4. Utilisation with g of the events before this one.
    if config.utilization:
        transfer = softmax((memory.balance.weight.detach().numpy() @ old["g"]).reshape(m, m))
        w_write = w_write @ transfer
        if config.utilization_input == "sum":
            new["g"] = old["g"] + w_write
        else:
            new["g"] = old["g"] + (w_write - old["g"]) / min(n, config.utilization_horizon_events)
    # 5. Read before the write. 6. Write.
    new["r"] = sum(w_read[i] * memory_before[i] for i in range(m))
    new["M"] = np.stack(
        [(1 - w_write[i] * erase) * memory_before[i] + w_write[i] * add for i in range(m)]
    )
    # 7. Induction on the picked channels, with M after the write.
    if config.induction:
        new["S"] = old["S"].copy()
        for i in sorted(range(m), key=lambda i: (-w_read[i], i))[: config.top_k]:
            new["S"][i] = gru(memory.channel, np.concatenate([x, new["M"][i]]), old["S"][i])
    # 8. Pool.
    new["pool"] = old["pool"] + max(1 / n, 1 / config.pool_horizon_events) * (x - old["pool"])
    return new


@pytest.mark.parametrize("settings", SETTINGS)
def test_step_is_the_eight_steps(settings):
    memory = network(**settings).double()
    random = np.random.default_rng(3)
    xs = random.normal(size=(4, 3, memory.config.event_width))  # events, users, width
    state = memory.initial(3)
    literal = [
        {
            name: None
            if getattr(state, name) is None
            else np.asarray(getattr(state, name)[user].detach())
            for name in ("M", "S", "h", "r", "g", "pool", "count")
        }
        for user in range(3)
    ]
    for x in xs:
        state = memory.step(state, torch.from_numpy(x), rounding=False)
        literal = [eight_steps(memory, literal[user], x[user]) for user in range(3)]
    for user in range(3):
        for name, expected in literal[user].items():
            found = getattr(state, name)[user].detach().numpy()
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12, err_msg=name)


def test_a_part_that_is_switched_off_has_no_state_and_no_weights():
    plain = MemoryNetwork(MemoryConfig(utilization=False, induction=False))
    assert [field.name for field in plain.layout.fields] == ["M", "h", "r", "pool"]
    assert not hasattr(plain, "balance")
    assert not hasattr(plain, "channel")
    state = plain.initial(2)
    assert state.S is None
    assert state.g is None


def test_every_step_leaves_numbers_that_float16_holds():
    memory = network()
    state = memory.step(memory.initial(5), torch.randn(5, 32))
    rows = state.to_rows()
    assert torch.equal(rows, rows.half().float())
    assert torch.equal(state.count, torch.ones(5, dtype=torch.int64))


def test_ties_go_to_the_lowest_channel():
    weights = torch.tensor([[0.2, 0.4, 0.4], [0.5, 0.25, 0.25]])
    assert pick_channels(weights, 1).tolist() == [[1], [0]]
    assert pick_channels(weights, 2).tolist() == [[1, 2], [0, 1]]


def test_a_zero_slot_is_addressed_without_nan_and_has_a_gradient():
    memory = network()
    rows = torch.zeros(1, memory.layout.floats, requires_grad=True)
    state = MemoryState.from_rows(rows, torch.zeros(1, dtype=torch.int64), memory.layout)
    after = memory.step(state, torch.ones(1, 32)).to_rows()
    after.sum().backward()
    assert bool(after.isfinite().all())
    assert bool(rows.grad.isfinite().all())


def test_the_initial_memory_is_the_same_in_every_run():
    torch.manual_seed(1)
    first = MemoryNetwork(MemoryConfig())
    torch.manual_seed(2)
    second = MemoryNetwork(MemoryConfig(initial_memory="fixed"))
    assert torch.equal(first.initial_memory, second.initial_memory)
    assert first.initial_memory.requires_grad
    assert not second.initial_memory.requires_grad


def test_gradients_of_a_step_agree_with_finite_differences():
    settings = {"item_width": 2, "category_width": 1, "slots": 3, "controller": 3}
    memory = network(**settings, channel_width=2, top_k=2).double()
    torch.manual_seed(0)
    rows = torch.randn(2, memory.layout.floats, dtype=torch.float64, requires_grad=True)
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)

    def step(rows, x, *weights):
        state = MemoryState.from_rows(rows, torch.tensor([0, 7]), memory.layout)
        names = [name for name, _ in memory.named_parameters()]
        after, writes = torch.func.functional_call(
            StepOnly(memory),
            {f"memory.{n}": w for n, w in zip(names, weights, strict=True)},
            (state, x),
        )
        return after.to_rows(), writes

    assert torch.autograd.gradcheck(step, (rows, x, *memory.parameters()), fast_mode=True)


class StepOnly(torch.nn.Module):
    """The step as a module's forward, so that `functional_call` can put weights into it."""

    def __init__(self, memory):
        super().__init__()
        self.memory = memory

    def forward(self, state, x):
        return self.memory.step_with_writes(state, x, rounding=False)


def test_regularization_is_the_spread_of_the_totals_per_event_and_slot():
    memory = network(slots=2, utilization_loss_weight=0.5)
    totals = torch.tensor([[3.0, 1.0], [1.0, 1.0]])
    # Group 1 spreads by 1 around its mean 2, group 2 not at all; 6 events, 2 slots.
    loss = memory.regularization(totals, torch.tensor([4, 2]))
    assert loss.item() == pytest.approx(0.5 * (1 + 1) / (6 * 2))


def test_w_g_learns_from_all_losses_or_from_the_regularization_alone():
    for where, learns in (("all", True), ("regularization", False)):
        memory = network(utilization_gradient=where)
        state = memory.step(memory.initial(2), torch.randn(2, 32))
        after, writes = memory.step_with_writes(state, torch.randn(2, 32))
        weight = memory.balance.weight
        (through_state,) = torch.autograd.grad(
            after.M.sum(), weight, retain_graph=True, allow_unused=True
        )
        assert (through_state is not None) == learns
        (through_loss,) = torch.autograd.grad(writes.square().sum(), weight)
        assert bool(through_loss.any())


def test_more_channels_than_slots_are_refused():
    with pytest.raises(ValidationError, match="top_k is 5, but there are only 4 slots"):
        MemoryConfig(slots=4, top_k=5)
