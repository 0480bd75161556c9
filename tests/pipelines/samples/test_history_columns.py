"""Columns of events in histories: each beside its event, through the shuffle and into batches."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from uic.models.errors import BadInputError
from uic.models.features.event_columns import EventColumn
from uic.models.features.feature_file import load_features
from uic.models.features.raw import MISSING
from uic.models.samples.groups import concatenate
from uic.models.samples.reader import BatchPlan, SamplesReader
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.writer import LogWriter, Part
from uic.pipelines.samples.features import FeatureJoin
from uic.pipelines.samples.run import make_samples

from .small_run import random_tables, request_for

COLUMNS = [
    EventColumn(name="price", kind="number", field="price"),
    EventColumn(name="shop", kind="categorical", field="shop"),
]
FILE = "version: 1\nevent: {price: {type: number}, shop: {type: categorical, column: store}}\n"


def price_of(items):
    """A price that an item tells; that of every seventh is none."""
    return np.where(items % 7 == 0, np.nan, items * 1.5)


@pytest.fixture
def log(tmp_path):
    behaviors, impressions = random_tables()
    items = behaviors.column("item_id").to_numpy()
    prices = pa.array(price_of(items), mask=(items % 7 == 0) & (items % 77 != 0))
    shops = pa.array(items % 3, mask=items % 5 == 0)
    behaviors = behaviors.append_column("event.price", prices)
    behaviors = behaviors.append_column("event.shop", shops)
    log = EventLog(tmp_path / "log")
    with LogWriter(log, Part("test"), time_zone="UTC") as writer:
        writer.add_behaviors(behaviors)
        writer.add_impressions(impressions)
        writer.note_columns(COLUMNS)
        writer.publish()
    return log


def made(log, tmp_path, text=FILE):
    (tmp_path / "features.yaml").write_text(text)
    request = request_for(log)
    join = FeatureJoin.of_file(tmp_path / "features.yaml", tmp_path)
    make_samples(replace(request, features=join))
    return SamplesReader(request.output)


def check(batch):
    items = batch.history_item_ids
    np.testing.assert_array_equal(batch.history_columns["price"], price_of(items))
    shops = np.where(items % 5 == 0, MISSING, items % 3)
    assert batch.history_columns["shop"].tolist() == shops.tolist()
    assert all(len(values) == batch.events for values in batch.history_columns.values())


def test_each_value_stands_beside_its_event(log, tmp_path):
    reader = made(log, tmp_path)
    assert reader.event_features.to_json()[1]["column"] == "store"
    batches = list(reader.batches(BatchPlan(batch_impressions=64)))
    assert sum(batch.events for batch in batches) > 2000
    for batch in batches:
        check(batch)
        check(batch.ungrouped())
    check(concatenate(batches))


def test_what_a_fold_refuses_is_in_no_history(log, tmp_path):
    """An item of a multiple of 77 has a wrong price here: NaN, and no null."""
    batches = list(made(log, tmp_path).batches(BatchPlan()))
    items = np.concatenate([batch.history_item_ids for batch in batches])
    assert not (items % 77 == 0).any()
    plain = list(made(log, tmp_path, "version: 1\n").batches(BatchPlan()))
    items = np.concatenate([batch.history_item_ids for batch in plain])
    assert (items % 77 == 0).any()
    assert plain[0].history_columns == {}


def test_a_bundle_wants_the_columns_that_it_was_trained_with(log, tmp_path):
    (tmp_path / "other.yaml").write_text("version: 1\nevent: {brand: {type: categorical}}\n")
    wanted = load_features(tmp_path / "other.yaml")
    with pytest.raises(BadInputError, match=r"event\.brand is not there, mimn/1 wants"):
        made(log, tmp_path).require(wanted, "mimn/1")


def test_a_column_of_another_kind_is_refused_before_anything_runs(log, tmp_path):
    with pytest.raises(BadInputError, match=r"event\.shop is int64, expected double"):
        made(log, tmp_path, "version: 1\nevent: {shop: {type: number}}\n")
