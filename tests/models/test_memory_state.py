"""The state as tensors and as the float16 part of a record."""

import numpy as np
import torch

from tests.models.memory_examples import network
from uic.models.memory.network import MemoryConfig, MemoryState, StateLayout
from uic.models.memory.state import MAX_EVENTS
from uic.models.records.record import empty_records, header_view, record_bytes, state_view

LAYOUT = StateLayout.of(MemoryConfig())


def test_a_record_of_8_slots_of_32_has_1276_bytes_and_a_fixed_order():
    assert record_bytes(LAYOUT.floats) == 1276
    places = {field.name: (field.start, field.shape) for field in LAYOUT.fields}
    assert places == {
        "M": (0, (8, 32)),
        "S": (256, (8, 32)),
        "h": (512, (32,)),
        "r": (544, (32,)),
        "g": (576, (8,)),
        "pool": (584, (32,)),
    }


def test_unpacking_what_was_packed_gives_it_back():
    halves = np.random.default_rng(0).normal(size=(7, LAYOUT.floats)).astype(np.float16)
    rows = torch.from_numpy(halves).float()
    count = torch.tensor([0, 1, 2, 3, 1000, 2**31, MAX_EVENTS])
    state = MemoryState.from_rows(rows, count, LAYOUT)
    records = empty_records(7, LAYOUT.floats)
    state.pack(records)
    assert np.array_equal(state_view(records), halves)
    again = MemoryState.unpack(records, LAYOUT)
    assert torch.equal(again.to_rows(), rows)
    assert torch.equal(again.count, count)
    assert torch.equal(again.S, state.S)


def test_a_full_counter_stays_full():
    memory = network()
    state = memory.initial(1)
    state = MemoryState.from_rows(state.to_rows(), torch.tensor([MAX_EVENTS]), memory.layout)
    after = memory.step(state, torch.ones(1, 32))
    assert after.count.tolist() == [MAX_EVENTS]
    records = empty_records(1, LAYOUT.floats)
    after.pack(records)
    assert header_view(records)["events"].tolist() == [MAX_EVENTS]


def test_new_users_hold_the_initial_memory_and_zeros():
    memory = network()
    state = memory.initial(2)
    expected = memory.initial_memory.detach().half().float()
    assert torch.equal(state.M[0], expected)
    assert torch.equal(state.M[1], expected)
    for name in ("S", "h", "r", "g", "pool", "count"):
        assert not getattr(state, name).any()
