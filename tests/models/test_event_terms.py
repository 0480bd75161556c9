"""What an event tells beside its item: the same bits in training and in a fold, piece by piece."""

import dataclasses

import numpy as np
import pytest
import torch

from uic.models.memory.event_terms import NO_EVENT, event_codes, times_before
from uic.models.memory.fold import EventBatch, MemoryFolder
from uic.models.memory.settings import EventFeature
from uic.models.rankers.catalogue import model_kind
from uic.models.records.record import state_view
from uic.models.samples.batch import Encoder
from uic.models.samples.groups import GroupBatch, offsets_of
from uic.models.samples.vocabulary import IdTable, Vocabulary

ALL = tuple(EventFeature)
VOCABULARY = Vocabulary(IdTable(np.arange(50), 4), IdTable(np.arange(9), 2))


def mimn(features=ALL):
    kind = model_kind("mimn")
    torch.manual_seed(3)
    settings = kind.settings(slots=2, controller=4, item_width=4, category_width=4, channel_width=5)
    settings = settings.model_copy(update={"event_features": features})
    model = kind.build(settings, VOCABULARY.item.rows, VOCABULARY.category.rows).eval()
    if model.memory.event_terms is not None:
        for table in model.memory.event_terms.tables.values():
            torch.nn.init.normal_(table, std=0.5)
    return model


class Served:
    """A model as a fold sees a bundle."""

    hash8 = b"12345678"
    has_memory = True
    state = None

    def __init__(self, model):
        self.model, self.memory = model, model.memory.requires_grad_(requires_grad=False)

    @torch.no_grad()
    def embed(self, item_ids, category_ids):
        items = torch.from_numpy(VOCABULARY.item.lookup(item_ids))
        categories = torch.from_numpy(VOCABULARY.category.lookup(category_ids))
        return self.model.embedding(items, categories)


def histories(seed, users=6, longest=15):
    """Events of some users; times mostly rise, now and then one comes late."""
    draw = np.random.default_rng(seed)
    counts = draw.integers(0, longest, users)
    total = int(counts.sum())
    steps = (draw.pareto(0.4, total) * 1000).clip(max=10**9).astype(np.int64)
    steps[draw.random(total) < 0.1] *= -1
    return EventBatch(
        user_index=np.repeat(np.arange(users), counts),
        item_ids=draw.integers(0, 60, total),
        category_ids=draw.integers(0, 11, total),
        behaviors=draw.integers(0, 4, total).astype(np.int8),
        event_times_ms=1_700_000_000_000 + np.cumsum(steps),
        log_times_ms=1_700_000_000_000 + np.cumsum(steps),
        epochs=np.ones(total, np.int64),
        partitions=np.zeros(total, np.int64),
        offsets=np.arange(total),
    ), counts


def as_group_batch(events, counts):
    """The same events as groups of samples, each with one impression that sees all."""
    users = len(counts)
    return GroupBatch(
        user_ids=np.arange(users),
        days=np.full(users, np.datetime64("2026-01-01")),
        history_offsets=offsets_of(counts),
        history_item_ids=events.item_ids,
        history_category_ids=events.category_ids,
        history_behaviors=events.behaviors,
        history_times_ms=events.event_times_ms,
        impression_offsets=np.arange(users + 1),
        item_ids=np.arange(users),
        category_ids=np.zeros(users, np.int64),
        event_times_ms=np.full(users, 1_900_000_000_000),
        labels=np.zeros(users, np.bool_),
        history_lengths=counts,
    )


@pytest.mark.parametrize("features", [ALL, *((one,) for one in ALL)])
def test_training_and_fold_give_the_same_bits_in_any_pieces(features):
    events, counts = histories(1)
    model = mimn(features)
    batch = Encoder(VOCABULARY).encode(as_group_batch(events, counts))
    with torch.no_grad():
        trained = model.fold(batch, model.embedding.rows(batch)).states
    folder = MemoryFolder(Served(model), generation=1)
    at_once = folder.fold(folder.initial_records(len(counts)), events).records
    packed = folder.initial_records(len(counts))
    trained.pack(packed)
    order = batch.cuts.numpy()
    assert np.array_equal(state_view(packed)[order], state_view(at_once))
    in_pieces = folder.initial_records(len(counts))
    for start in range(0, len(events), 7):
        in_pieces = folder.fold(in_pieces, events.select(slice(start, start + 7))).records
    assert np.array_equal(in_pieces, at_once)


@pytest.mark.parametrize("feature", ALL)
def test_each_changes_what_is_stored_and_none_is_as_before(feature):
    events, counts = histories(2)
    records = {}
    for features in ((), (feature,)):
        folder = MemoryFolder(Served(mimn(features)), generation=1)
        records[features] = folder.fold(folder.initial_records(len(counts)), events).records
    assert records[()].shape == records[feature,].shape
    assert not np.array_equal(state_view(records[()]), state_view(records[feature,]))


def test_a_purchase_is_more_than_a_click():
    events, counts = histories(3)
    folder = MemoryFolder(Served(mimn((EventFeature.BEHAVIOR,))), generation=1)
    bought = dataclasses.replace(events, behaviors=np.full(len(events), 3, np.int8))
    start = folder.initial_records(len(counts))
    one, other = (state_view(folder.fold(start, some).records) for some in (events, bought))
    assert not np.array_equal(one, other)


def test_gaps_double_and_know_a_first_event():
    times = np.array([0, 0, 999, 1000, 3000, 2**62, 5])
    before = np.array([NO_EVENT, 0, 0, 0, 0, 0, 50])
    codes = event_codes(EventFeature.GAP, np.zeros(7, np.int8), times, before)
    assert codes.tolist() == [0, 1, 1, 2, 3, 26, 1]
    hours = event_codes(
        EventFeature.HOUR, np.zeros(2, np.int8), np.array([3_599_999, 90_000_000]), before[:2]
    )
    assert hours.tolist() == [0, 1]
    assert times_before(np.array([5, 7, 9]), np.array([0, 2])).tolist() == [-1, 5, -1]


def test_terms_learn():
    events, counts = histories(4)
    model = mimn().train()
    batch = Encoder(VOCABULARY).encode(as_group_batch(events, counts))
    model(batch).sum().backward()
    for name, table in model.memory.event_terms.tables.items():
        assert table.grad.abs().sum() > 0, name
