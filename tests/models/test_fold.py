"""Laws of the fold: the same bits however events and users are batched."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.memory_examples import TableBundle, events, network
from tests.models.test_memory import SETTINGS
from uic.models.errors import BadInputError
from uic.models.memory.fold import EventValueError, MemoryFolder, fold_groups
from uic.models.memory.network import MemoryNetwork
from uic.models.records.record import header_view, state_view

FOLDER = MemoryFolder(TableBundle(network()), generation=3)


def batch_of(histories):
    """One batch of all histories, items in rows, interleaved as a log would have them."""
    pairs = [
        (position, user, item)
        for user, items in enumerate(histories)
        for position, item in enumerate(items)
    ]
    pairs.sort()
    return events([p[1] for p in pairs], [p[2] for p in pairs], [p[0] for p in pairs])


def fold_all(histories, folder=FOLDER):
    return folder.fold(folder.initial_records(len(histories)), batch_of(histories)).records


def fold_one_by_one(items, folder=FOLDER):
    record = folder.initial_records(1)
    for position, item in enumerate(items):
        record = folder.fold(record, events([0], [item], [position])).records
    return record


history = st.lists(st.integers(0, 99), max_size=25)


@settings(max_examples=25, deadline=None)
@given(st.lists(history, min_size=1, max_size=40))
def test_one_event_at_a_time_is_any_batch_of_users_to_the_bit(histories):
    together = fold_all(histories)
    for user, items in enumerate(histories[:5]):
        assert np.array_equal(together[user : user + 1], fold_one_by_one(items))


@settings(max_examples=25, deadline=None)
@given(st.lists(history, min_size=1, max_size=40), st.randoms())
def test_the_order_of_users_changes_nothing(histories, random):
    order = list(range(len(histories)))
    random.shuffle(order)
    shuffled = fold_all([histories[user] for user in order])
    assert np.array_equal(fold_all(histories)[order], shuffled)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(history, history), min_size=1, max_size=20))
def test_fold_of_a_and_b_is_fold_of_b_after_fold_of_a(halves):
    whole = batch_of([a + b for a, b in halves])
    in_first = np.array([len(a) for a, _ in halves])[whole.user_index] > whole.offsets
    parts = [
        events(whole.user_index[part], whole.item_ids[part], whole.offsets[part])
        for part in (in_first, ~in_first)
    ]
    start = FOLDER.initial_records(len(halves))
    after_a = FOLDER.fold(start, parts[0])
    after_b = FOLDER.fold(after_a.records, parts[1])
    assert not after_b.skipped.any()
    assert np.array_equal(after_b.records, FOLDER.fold(start, whole).records)


@pytest.mark.parametrize("options", [s for s in SETTINGS if "utilization_input" not in s])
def test_every_configuration_folds_the_same_in_any_batch(options):
    folder = MemoryFolder(TableBundle(network(**options)), generation=1)
    histories = [[7 * user + 13 * k for k in range(user % 9)] for user in range(37)]
    together = fold_all(histories, folder)
    for user in (8, 17, 36):
        assert np.array_equal(together[user : user + 1], fold_one_by_one(histories[user], folder))


def test_the_number_of_threads_changes_nothing():
    histories = [[user + k for k in range(user)] for user in range(40)]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = fold_all(histories)
        torch.set_num_threads(2)
        assert np.array_equal(fold_all(histories), one)
    finally:
        torch.set_num_threads(threads)


def groups(memory, lengths):
    generator = torch.Generator().manual_seed(4)
    width = memory.config.event_width
    return torch.randn(int(sum(lengths)), width, generator=generator), torch.tensor(lengths)


@pytest.mark.parametrize("options", SETTINGS)
def test_training_and_serving_have_the_same_bits_at_every_cut(options):
    memory = network(**options)
    x, lengths = groups(memory, [0, 3, 17, 5])
    cut_groups, cut_lengths = torch.tensor([2, 0, 1, 2, 2, 3]), torch.tensor([17, 0, 2, 0, 17, 5])
    trained = fold_groups(memory, x, lengths, cut_groups, cut_lengths)
    with torch.no_grad():
        served = fold_groups(memory, x, lengths, cut_groups, cut_lengths)
        alone = fold_groups(memory, x[3:20], lengths[2:3], torch.tensor([0]), torch.tensor([17]))
    assert trained.states.M.requires_grad
    assert torch.equal(trained.states.to_rows(), served.states.to_rows())
    assert trained.states.count.tolist() == [17, 0, 2, 0, 17, 5]
    if memory.config.fits_record:
        assert torch.equal(trained.states.to_rows()[0], alone.states.to_rows()[0])


@pytest.mark.parametrize("options", [s for s in SETTINGS if "utilization_input" not in s])
def test_the_kernel_is_the_networks_step_up_to_a_float16_place(options):
    memory = network(**options)
    x, lengths = groups(memory, [6] * 33)
    before, after = (
        fold_groups(memory, x, lengths, torch.arange(33), torch.full((33,), seen)).states
        for seen in (5, 6)
    )
    expected = memory.step(before, x[5::6])
    found, expected = after.to_rows().detach(), expected.to_rows().detach()
    # Where two channels are almost equally near, either may be picked: all other users agree.
    place = torch.from_numpy(np.spacing(expected.abs().clamp(min=2**-14).half().numpy())).float()
    agrees = ((found - expected).abs() <= place + 1e-6).all(dim=1)
    assert agrees.float().mean() >= 0.95
    assert (found == expected).float().mean() > 0.98


def test_cuts_are_the_states_after_that_many_events():
    memory = network()
    x, lengths = groups(memory, [4, 2])
    state, seen = memory.initial(1), []
    for k in range(5):
        seen.append(state.to_rows().detach())
        state = memory.step(state, x[k : k + 1])
    fold = fold_groups(memory, x, lengths, torch.zeros(5, dtype=torch.int64), torch.arange(5))
    torch.testing.assert_close(fold.states.to_rows(), torch.cat(seen), rtol=2e-3, atol=2e-4)


def test_a_fold_may_start_from_memories():
    memory = network()
    x, lengths = groups(memory, [9])
    cut = torch.tensor([0])
    whole = fold_groups(memory, x, lengths, cut, torch.tensor([9])).states
    first = fold_groups(memory, x[:4], torch.tensor([4]), cut, torch.tensor([4])).states
    rest = fold_groups(memory, x[4:], torch.tensor([5]), cut, torch.tensor([5]), start=first)
    assert torch.equal(rest.states.to_rows(), whole.to_rows())
    assert rest.states.count.tolist() == [9]


def test_no_groups_and_no_events_are_fine():
    memory = network()
    none = torch.zeros(0, dtype=torch.int64)
    fold = fold_groups(memory, torch.zeros(0, 32), none, none, none)
    assert fold.states.users == 0
    records = FOLDER.initial_records(3)
    outcome = FOLDER.fold(records, events([], [], []))
    assert np.array_equal(outcome.records, records)
    assert outcome.skipped.shape == (0,)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 70000.0])
def test_an_unusable_embedding_is_refused_by_name(value):
    bundle = TableBundle(network())
    bundle.table[42, 7] = value
    folder = MemoryFolder(bundle, generation=1)
    with pytest.raises(EventValueError, match=r"embedding of event 1 is (nan|inf|70000.0) at 7"):
        folder.fold(folder.initial_records(1), events([0, 0], [1, 42], [0, 1]))


def test_wrong_lengths_and_cuts_are_refused():
    memory = network()
    x, lengths = groups(memory, [2, 3])
    none = torch.zeros(0, dtype=torch.int64)
    with pytest.raises(BadInputError, match="add up to 5, but there are 4 events"):
        fold_groups(memory, x[:4], lengths, none, none)
    with pytest.raises(BadInputError, match="cut 1 is after 4 events, its group has 3"):
        fold_groups(memory, x, lengths, torch.tensor([0, 1]), torch.tensor([2, 4]))
    with pytest.raises(BadInputError, match=r"shape \(5, 30\), expected \(events, 32\)"):
        fold_groups(memory, x[:, :30], lengths, none, none)


def test_the_papers_running_sum_is_refused_in_serving():
    bundle = TableBundle(network(utilization_input="sum"))
    with pytest.raises(BadInputError, match="utilization_input is sum"):
        MemoryFolder(bundle, generation=1)


def long_fold(memory, events_per_user):
    random = torch.Generator().manual_seed(0)
    x = torch.randn(2 * events_per_user, memory.config.event_width, generator=random)
    lengths = torch.tensor([events_per_user] * 2)
    with torch.no_grad():
        return fold_groups(memory, x, lengths, torch.arange(2), lengths)


def row_maxima(memory, g):
    """The largest entry of each row of P: 1 if P sends a slot's share to one place only."""
    slots = memory.config.slots
    logits = torch.nn.functional.linear(g, memory.balance.weight).view(-1, slots, slots)
    return logits.softmax(2).amax(2)


def test_ten_thousand_events_stay_finite_and_p_does_not_collapse():
    options = {"slots": 4, "controller": 8, "item_width": 4, "category_width": 4}
    memory: MemoryNetwork = network(**options)
    fold = long_fold(memory, 10_000)
    assert bool(fold.states.to_rows().isfinite().all())
    assert fold.states.g.sum(1).tolist() == pytest.approx([1, 1], abs=0.01)
    assert fold.write_totals.sum(1).tolist() == pytest.approx([1e4, 1e4], rel=1e-3)
    with torch.no_grad():
        assert row_maxima(memory, fold.states.g).max() < 0.99
        # The paper's sum, after a fifth of that: the reason for the mean.
        summed = network(**options, utilization_input="sum")
        assert row_maxima(summed, long_fold(summed, 2000).states.g).min() > 0.99


def test_after_a_hundred_thousand_events_the_pool_still_moves():
    folder = MemoryFolder(TableBundle(network(slots=1, controller=1)), generation=1)
    config = folder._bundle.memory.config
    pool = folder._bundle.memory.layout.columns("pool")
    count, more = 100_000, 5000
    same = events([0] * count, [5] * count, np.arange(count))
    old = folder.fold(folder.initial_records(1), same).records
    before = state_view(old)[0, pool].astype(np.float32)
    np.testing.assert_allclose(before, folder._bundle.table[5].numpy(), rtol=1e-3, atol=1e-4)
    # A mean of 1 / count would now move by 5 %, and in float16 not at all.
    other = events([0] * more, [6] * more, count + np.arange(more))
    new = folder.fold(old, other).records
    after = state_view(new)[0, pool]
    left = np.abs(folder._bundle.table[6].numpy() - after)
    # It stops where a step would be less than half a float16 place.
    assert (left <= config.pool_horizon_events * np.spacing(np.abs(after)) / 2 + 1e-3).all()
    assert header_view(new)["events"].tolist() == [count + more]
