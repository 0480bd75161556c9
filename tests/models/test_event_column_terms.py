"""Columns of events in the memory network: fitted once, and the same bits wherever they fold."""

import dataclasses

import numpy as np
import pytest
import torch

from uic.models.features.definition import FeatureSet, NamedFeature, Owner
from uic.models.features.feature_file import FeatureFile
from uic.models.features.fitted import FittedFeatures, fit_features
from uic.models.features.raw import MISSING, category_of
from uic.models.memory.event_terms import EventColumnsError, EventTerms, column_codes, in_buckets
from uic.models.memory.fold import MemoryFolder
from uic.models.records.record import state_view
from uic.models.samples.batch import Encoder

from .test_event_terms import VOCABULARY, Served, as_group_batch, histories, mimn

KEYS = ("behavior", "event.price", "event.shop")
SHOPS = np.array([category_of(text) for text in ("A", "B", "C")])


def features(**definitions) -> FeatureSet:
    file = FeatureFile.model_validate({"version": 1, "event": definitions})
    named = (NamedFeature(Owner.EVENT, name, one) for name, one in file.event.items())
    return in_buckets(FeatureSet(tuple(named)))


def fitted(**definitions) -> FittedFeatures:
    prices, shops = np.exp(np.linspace(-1, 6, 400)), np.repeat(SHOPS, (200, 190, 10))
    given = {"event.price": prices, "event.shop": shops}
    return fit_features(features(**definitions), [given])


BOTH = fitted(
    price={"type": "number", "scale": "log"}, shop={"type": "categorical", "min_count": 1}
)


def model(keys=KEYS):
    made = mimn(keys)
    made.attach_event_features(BOTH)
    torch.manual_seed(5)
    for table in made.memory.event_terms.tables.values():
        torch.nn.init.normal_(table, std=0.5)
    return made


def with_columns(events, seed=1):
    draw = np.random.default_rng(seed)
    price = np.where(draw.random(len(events)) < 0.2, np.nan, draw.lognormal(2, 1, len(events)))
    shop = draw.choice([MISSING, 5, *SHOPS.tolist()], len(events))
    return dataclasses.replace(events, columns={"price": price, "shop": shop})


def test_training_and_fold_give_the_same_bits_in_any_pieces():
    events, counts = histories(1)
    events = with_columns(events)
    ranker = model()
    groups = dataclasses.replace(as_group_batch(events, counts), history_columns=events.columns)
    batch = Encoder(VOCABULARY).encode(groups)
    with torch.no_grad():
        trained = ranker.fold(batch, ranker.embedding.rows(batch)).states
    folder = MemoryFolder(Served(ranker), generation=1)
    at_once = folder.fold(folder.initial_records(len(counts)), events).records
    packed = folder.initial_records(len(counts))
    trained.pack(packed)
    assert np.array_equal(state_view(packed)[batch.cuts.numpy()], state_view(at_once))
    in_pieces = folder.initial_records(len(counts))
    for start in range(0, len(events), 7):
        in_pieces = folder.fold(in_pieces, events.select(slice(start, start + 7))).records
    assert np.array_equal(in_pieces, at_once)


@pytest.mark.parametrize("name", ["price", "shop"])
def test_each_column_changes_what_is_stored(name):
    events, counts = histories(2)
    events = with_columns(events)
    other = events.columns | {name: with_columns(events, seed=9).columns[name]}
    folder = MemoryFolder(Served(model()), generation=1)
    start = folder.initial_records(len(counts))
    one, two = (
        state_view(folder.fold(start, some).records)
        for some in (events, dataclasses.replace(events, columns=other))
    )
    assert not np.array_equal(one, two)


def test_a_number_is_a_place_among_the_quantiles_whatever_its_scale():
    values = np.array([np.nan, 0.0, 7.0, 1e9])
    codes = [
        column_codes(fitted(price={"type": "number", **scale}).fitted[0], values).tolist()
        for scale in ({}, {"scale": "log"}, {"scale": "buckets"})
    ]
    assert codes[0] == codes[1] == codes[2]
    assert (codes[0][0], codes[0][1], codes[0][3]) == (0, 1, 16)
    few = fitted(price={"type": "number", "scale": "buckets", "buckets": 2}).fitted[0]
    assert column_codes(few, values).tolist() == [0, 1, 1, 2]


def test_categories_have_rows_of_their_own_or_share_hashed_ones():
    values = np.array([MISSING, *SHOPS.tolist(), 12345])
    own = fitted(shop={"type": "categorical"}).fitted[0]
    codes = column_codes(own, values)
    assert codes[0] == 0
    assert len(set(codes[1:].tolist())) == 4
    hashed = fitted(shop={"type": "categorical", "rows": 3}).fitted[0]
    assert set(column_codes(hashed, values)[1:].tolist()) <= {1, 2, 3}


def test_what_is_missing_takes_the_default_of_the_file():
    shop = fitted(shop={"type": "categorical", "default": "A"}).fitted[0]
    assert len(set(column_codes(shop, np.array([MISSING, SHOPS[0]])).tolist())) == 1
    price = fitted(price={"type": "number", "default": 7}).fitted[0]
    assert len(set(column_codes(price, np.array([np.nan, 7.0])).tolist())) == 1


def test_a_column_that_is_not_there_is_named():
    events, counts = histories(3)
    folder = MemoryFolder(Served(model()), generation=1)
    with pytest.raises(EventColumnsError, match="no column price, which the model reads as"):
        folder.fold(folder.initial_records(len(counts)), events)
    with pytest.raises(EventColumnsError, match=r"event\.brand is not among event\.price"):
        EventTerms(("event.brand",), 4).attach(BOTH)
