"""Gradients of a fold: in float64 against finite differences, on the CPU against plain autograd."""

from dataclasses import replace

import pytest
import torch

from tests.models.memory_examples import network
from tests.models.test_memory import SETTINGS
from uic.models.memory import gradient as fold_gradient
from uic.models.memory.fold import fold_groups
from uic.models.memory.group_fold import _fold_stepwise  # the plain twin of the compiled forward
from uic.models.memory.plan import FoldPlan

LENGTHS = torch.tensor([3, 0, 5, 1])
CUT_GROUPS = torch.tensor([2, 0, 1, 2, 2, 3, 0])
CUT_LENGTHS = torch.tensor([5, 3, 0, 2, 0, 1, 3])


@pytest.mark.parametrize("induction", [True, False])
def test_a_ragged_fold_agrees_with_finite_differences(induction):
    memory = network(
        item_width=2, category_width=1, slots=2, controller=2, channel_width=2, induction=induction
    ).double()
    x = torch.randn(9, 3, dtype=torch.float64, requires_grad=True)

    def fold(x, *weights):
        names = [name for name, _ in memory.named_parameters()]
        given = {f"memory.{n}": w for n, w in zip(names, weights, strict=True)}
        return torch.func.functional_call(Fold(memory), given, (x,))

    # Fast mode: random directions instead of every entry of the Jacobian.
    torch.manual_seed(0)
    assert torch.autograd.gradcheck(fold, (x, *memory.parameters()), fast_mode=True)


class Fold(torch.nn.Module):
    """A fold as a module's forward, so that `functional_call` can put weights into it."""

    def __init__(self, memory):
        super().__init__()
        self.memory = memory

    def forward(self, x):
        fold = fold_groups(self.memory, x, LENGTHS, CUT_GROUPS, CUT_LENGTHS, rounding=False)
        return fold.states.to_rows(), fold.regularization


def gradients(states, totals, memory, x):
    weights = [x, *[w for w in memory.parameters() if w.requires_grad]]
    look = torch.linspace(-1, 1, states.to_rows().numel()).view(states.users, -1)
    loss = (states.to_rows() * look).sum() + totals.square().sum()
    return torch.autograd.grad(loss, weights, allow_unused=True)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"utilization": False},
        {"initial_memory": "fixed", "utilization_gradient": "regularization"},
        {"induction": False, "slot_width": 8},
        {"routing": True, "routing_std": 0.5},
        {"routing": True, "routing_std": 0.5, "utilization": False, "induction": False},
    ],
)
def test_the_compiled_fold_has_the_gradients_of_the_plain_one(options):
    memory = network(**options)
    with torch.no_grad():  # moderate weights: rounding differs in a place, and chaos grows it
        for weight in memory.parameters():
            weight.mul_(0.5)
    x = torch.randn(9, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    compiled = fold_groups(memory, x, LENGTHS, CUT_GROUPS, CUT_LENGTHS)
    plan = FoldPlan.of(LENGTHS, CUT_GROUPS, CUT_LENGTHS)
    states, totals = _fold_stepwise(memory, plan, x, memory.initial(4), rounding=True)
    found_totals = totals.new_zeros(()) if compiled.write_totals is None else compiled.write_totals
    torch.testing.assert_close(compiled.states.to_rows(), states.to_rows(), rtol=2e-3, atol=1e-3)
    if compiled.write_totals is not None:
        torch.testing.assert_close(compiled.write_totals, totals, rtol=1e-3, atol=1e-3)
    found = gradients(compiled.states, found_totals, memory, x)
    expected = gradients(states, totals, memory, x)
    for got, wanted in zip(found, expected, strict=True):
        assert (got is None) == (wanted is None)
        if wanted is not None:
            torch.testing.assert_close(
                got, wanted, rtol=0.02, atol=0.01 * float(wanted.abs().max())
            )


@pytest.mark.parametrize(
    "options", [s for s in SETTINGS if not {"utilization_input", "utilization_gradient"} & {*s}]
)
def test_both_ways_to_the_gradient_agree(options, monkeypatch):
    memory = network(**options)
    width = memory.config.event_width
    generator = torch.Generator().manual_seed(5)
    lengths = torch.arange(40) % 7
    cut_groups = torch.arange(40).repeat(2)
    cut_lengths = torch.cat([lengths, lengths // 2])
    x = torch.randn(int(lengths.sum()), width, generator=generator).requires_grad_()
    start = replace(memory.initial(40), count=torch.arange(40))
    found = []
    for way in (fold_gradient._compiled, fold_gradient._by_steps):
        monkeypatch.setattr(fold_gradient, "_compiled", way)
        fold = fold_groups(memory, x, lengths, cut_groups, cut_lengths, start=start)
        totals = x.new_zeros(()) if fold.write_totals is None else fold.write_totals
        found.append(gradients(fold.states, totals, memory, x))
    for compiled, plain in zip(*found, strict=True):
        # Steps repeated in torch see h and M before their rounding.
        torch.testing.assert_close(
            compiled, plain, rtol=0.02, atol=0.01 * float(plain.abs().max() + 1e-3)
        )


def test_starting_memories_get_a_gradient_too():
    memory = network()
    x = torch.randn(4, 32)
    rows = memory.initial(1).to_rows().detach().requires_grad_()
    start = memory.initial(1).from_rows(rows, torch.tensor([5]), memory.layout)
    fold = fold_groups(
        memory, x, torch.tensor([4]), torch.tensor([0, 0]), torch.tensor([0, 4]), start=start
    )
    fold.states.to_rows()[0].sum().backward(retain_graph=True)
    assert torch.equal(rows.grad, torch.ones_like(rows))  # the cut before any event is the start
    fold.states.to_rows()[1].sum().backward()
    assert bool((rows.grad != 1).any())


def test_a_batch_without_any_event_has_a_gradient_of_zero_in_the_cell():
    memory = network()
    x = torch.zeros(0, memory.config.event_width, requires_grad=True)
    nothing = torch.zeros(2, dtype=torch.int64)
    fold = fold_groups(memory, x, nothing, torch.tensor([0, 1]), nothing)
    fold.states.to_rows().sum().backward()
    assert x.grad.shape == (0, memory.config.event_width)
    assert not memory.heads.weight.grad.any()
