"""Attention over windows: distinct pairs are all pairs, and compiled numbers are torch's."""

import copy
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from uic.models.layers.attention import AttentionUnit
from uic.models.layers.distinct_pairs import DistinctPairs, window_distinct_pairs
from uic.models.layers.recurrent import AttentionalGru, gru_states
from uic.models.samples.batch import Encoder, RankerBatch
from uic.models.samples.groups import GroupBatch, offsets_of
from uic.models.samples.vocabulary import IdTable, Vocabulary

_SPEC = importlib.util.spec_from_file_location(
    "literal_models", Path(__file__).parent / "literal_models.py"
)
literal = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(literal)

ITEMS, LIMIT = 4, 5
# Items of a history, and of each impression its item and how many events it sees.
GROUP = st.tuples(
    st.lists(st.integers(0, ITEMS - 1), max_size=12),
    st.lists(st.tuples(st.integers(0, ITEMS - 1), st.integers(0, 12)), min_size=1, max_size=4),
)


def encoded(groups, moved: int | None = None) -> RankerBatch:
    """Category 0 for even items, 1 for odd ones; the event `moved` has the other one."""
    histories = [np.array(history, dtype=np.int64) for history, _ in groups]
    shown = [np.array(impressions, dtype=np.int64) for _, impressions in groups]
    items, impressions = np.concatenate(histories), np.concatenate(shown)
    owners = np.repeat([len(history) for history in histories], [len(rows) for rows in shown])
    categories = items % 2
    if moved is not None:
        categories[moved] = 1 - categories[moved]
    batch = GroupBatch(
        user_ids=np.arange(len(groups)),
        days=np.zeros(len(groups), dtype="datetime64[D]"),
        history_offsets=offsets_of(np.array([len(history) for history in histories])),
        history_item_ids=items,
        history_category_ids=categories,
        history_behaviors=np.zeros(len(items), np.int8),
        history_times_ms=np.zeros(len(items), np.int64),
        impression_offsets=offsets_of(np.array([len(rows) for rows in shown])),
        item_ids=impressions[:, 0],
        category_ids=impressions[:, 0] % 2,
        event_times_ms=np.zeros(len(impressions), np.int64),
        labels=np.zeros(len(impressions), np.bool_),
        history_lengths=np.minimum(impressions[:, 1], owners),
    )
    vocabulary = Vocabulary(IdTable(np.arange(ITEMS), 1), IdTable(np.arange(2), 1))
    return Encoder(vocabulary).encode(batch)


def unit_and_vectors(query_width: int, key_width: int, queries: int, keys: int):
    """A unit whose slopes tell features apart, and vectors, in float32."""
    torch.manual_seed(3)
    unit = AttentionUnit(query_width, key_width)
    for layer in (unit.rest[0], unit.rest[2]):
        nn.init.uniform_(layer.weight, -0.5, 0.5)
    return unit, torch.randn(queries, query_width), torch.randn(keys, key_width)


def vectors_of(table, items, categories):
    """Any function of item and category; rows of `table` are (item, category)."""
    return table[items * 2 + categories]


@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
@settings(max_examples=30, deadline=None)
@given(st.lists(GROUP, min_size=1, max_size=3), st.one_of(st.none(), st.integers(0, 11)))
@example([([1, 1, 1, 2, 1], [(3, 5), (3, 4), (1, 5), (1, 0)])], None)
@example([([1, 1, 1], [(1, 3)]), ([1, 2, 1], [(1, 2)])], 1)
def test_a_repeated_event_counts_as_often_as_it_occurs(dtype, near, groups, moved):
    events = sum(len(history) for history, _ in groups)
    batch = encoded(groups, moved if moved is not None and moved < events else None)
    unit, table, _ = unit_and_vectors(5, 5, 2 * ITEMS + 2, 0)
    unit, table = unit.to(dtype), table.to(dtype)
    keys = vectors_of(table, batch.history_items, batch.history_categories)
    queries = vectors_of(table, batch.candidate_items, batch.candidate_categories)
    pairs = window_distinct_pairs(batch, LIMIT, events_alike=True)
    with torch.no_grad():
        weights, found = unit.attend(queries[pairs.queries], keys[pairs.keys], pairs)
    named = {f"u.{name}": value.double().numpy() for name, value in unit.state_dict().items()}
    for index in range(len(batch.lengths)):
        start = int(batch.history_starts[batch.groups[index]])
        length = int(batch.lengths[index])
        window = keys[start + max(0, length - LIMIT) : start + length].double().numpy()
        expected = np.zeros(5)
        if len(window):
            query = queries[index].double().numpy()
            scores = np.array([literal.attention_score(named, "u", query, k) for k in window])
            expected = literal.softmax(scores) @ window
            entries = slice(*pairs.entry_offsets[index : index + 2].tolist())
            assert float(weights[entries].sum()) == pytest.approx(1, abs=near)
        assert found[index].tolist() == pytest.approx(expected, abs=near)


def test_what_occurs_twice_is_scored_once():
    # Both impressions are item 3 and see 1, 2, 1; the second also sees the last 2.
    batch = encoded([([1, 2, 1, 2], [(3, 3), (3, 4)])])
    pairs = window_distinct_pairs(batch, None, events_alike=True)
    assert pairs.key_of.tolist() == [0, 1]
    assert pairs.entries.tolist() == [0, 1, 0, 1]
    assert pairs.times.tolist() == [2, 1, 2, 2]
    # As states of a recurrent network the four events are four keys.
    apart = window_distinct_pairs(batch, None, events_alike=False)
    assert apart.key_of.tolist() == [0, 1, 2, 3]
    assert apart.entries.tolist() == [0, 1, 2, 0, 1, 2, 3]


def gradients(inputs, run, module):
    """The result of `run`, the gradients of its inputs, and of the module's weights."""
    module.zero_grad()
    leaves = [value.clone().requires_grad_() for value in inputs]
    outputs = run(module, *leaves)
    generator = torch.Generator().manual_seed(1)
    factors = [torch.randn(out.shape, generator=generator).to(out.dtype) for out in outputs]
    sum((out * by).sum() for out, by in zip(outputs, factors, strict=True)).backward()
    found = {f"output {at}": out.detach() for at, out in enumerate(outputs)}
    found |= {f"input {at}": leaf.grad for at, leaf in enumerate(leaves)}
    return found | {name: weight.grad for name, weight in module.named_parameters()}


def assert_compiled_is_torch(inputs, run, module):
    """Float32 is compiled; the same in float64 is torch's."""
    compiled = gradients(inputs, run, module)
    exact = gradients([value.double() for value in inputs], run, copy.deepcopy(module).double())
    for name, value in compiled.items():
        torch.testing.assert_close(value.double(), exact[name], rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize(("query_width", "key_width"), [(32, 32), (7, 20)])
def test_the_compiled_attention_is_torchs(query_width, key_width):
    # The second query has no pair, the third more than a tile of the kernel.
    counts = np.array([3, 0, 150, 9])
    random = np.random.default_rng(2)
    offsets = torch.from_numpy(offsets_of(counts))
    pairs = DistinctPairs(
        queries=torch.arange(4),
        keys=torch.arange(11),
        offsets=offsets,
        key_of=torch.from_numpy(random.integers(0, 11, counts.sum())),
        entry_offsets=torch.from_numpy(offsets_of(np.array([5, 0, 160, 2]))),
        entries=torch.from_numpy(random.integers(0, counts.sum(), 167)),
        times=torch.from_numpy(random.integers(1, 4, 167)),
    )
    unit, queries, keys = unit_and_vectors(query_width, key_width, 4, 11)
    assert_compiled_is_torch([queries, keys], lambda module, q, k: module.attend(q, k, pairs), unit)


@pytest.mark.parametrize(("inputs", "width"), [(32, 32), (5, 20)])
def test_the_compiled_augru_is_torchs(inputs, width):
    torch.manual_seed(4)
    counts = torch.tensor([3, 0, 7, 1, *range(2, 24)])  # more than a tile of the kernel
    steps = int(counts.sum())
    input_of = torch.randint(0, 9, (steps,))
    assert_compiled_is_torch(
        [torch.randn(9, inputs), torch.rand(steps)],
        lambda module, x, attention: [module(x, input_of, attention, counts)],
        AttentionalGru(inputs, width),
    )


@pytest.mark.parametrize(("inputs", "width"), [(32, 32), (5, 20)])
def test_the_compiled_gru_is_torchs(inputs, width):
    torch.manual_seed(4)
    counts = torch.tensor([6, 0, 4, 1, 6])
    asked = torch.arange(6) < counts.unsqueeze(1)
    assert_compiled_is_torch(
        [torch.randn(5, 6, inputs)],
        lambda module, x: [gru_states(module, x, counts)[asked]],
        nn.GRU(inputs, width, batch_first=True),
    )
