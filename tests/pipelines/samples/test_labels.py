"""Labels beside the click, from the log into samples."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from tests.pipelines.samples.small_run import contents, random_tables, request_for
from uic.models.published import MANIFEST_NAME
from uic.models.samples.groups import NOT_KNOWN
from uic.models.samples.reader import BatchPlan, SamplesReader
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.writer import LogWriter, Part
from uic.pipelines.samples.labels import LabelError
from uic.pipelines.samples.run import make_samples


def written(root, impressions):
    log = EventLog(root)
    with LogWriter(log, Part("test", ()), time_zone="UTC", partitions=3) as writer:
        writer.add_behaviors(random_tables()[0])
        writer.add_impressions(impressions)
        writer.publish()
    return log


def bought(impressions):
    """True of odd items, not known of every fifth."""
    items = impressions["item_id"].to_numpy()
    return pa.array(items % 2 == 1, mask=items % 5 == 0)


@pytest.fixture
def log(tmp_path):
    impressions = random_tables()[1]
    labels = {"label.buy": bought(impressions), "label.wish": pa.array([None] * 900, pa.bool_())}
    for name, values in labels.items():
        impressions = impressions.append_column(name, values)
    return written(tmp_path / "log", impressions)


def test_each_impression_has_its_own_label(log):
    request = request_for(log, labels=("buy", "wish"))
    manifest = make_samples(request)
    assert manifest["labels"] == ["buy", "wish"]
    assert "labels" not in manifest["settings"]
    reader = SamplesReader(request.output)
    assert reader.labels == ("buy", "wish")
    known = true = 0
    for batch in reader.batches(BatchPlan(batch_impressions=100)):
        items = batch.item_ids
        expected = np.where(items % 5 == 0, NOT_KNOWN, items % 2)
        assert np.array_equal(batch.extra_labels["buy"], expected)
        assert (batch.extra_labels["wish"] == NOT_KNOWN).all()
        known += int((expected >= 0).sum())
        true += int((expected == 1).sum())
    share = manifest["label_shares"]["buy"]
    assert share["known"] == pytest.approx(known / manifest["impressions"], abs=1e-5)
    assert share["true"] == pytest.approx(true / known, abs=1e-5)
    assert manifest["label_shares"]["wish"] == {"known": 0.0, "true": 0.0}


def test_labels_that_are_not_asked_for_change_nothing(log, tmp_path):
    plain = written(tmp_path / "plain" / "log", random_tables()[1])
    for one in (log, plain):
        make_samples(request_for(one))
    with_labels = contents(tmp_path / "samples" / "s")
    without = contents(tmp_path / "plain" / "samples" / "s")
    assert {name for name in without if name != MANIFEST_NAME} == {
        name for name in with_labels if name != MANIFEST_NAME
    }
    assert all(without[name] == with_labels[name] for name in without if name != MANIFEST_NAME)


def test_a_label_that_the_log_does_not_have_is_refused_with_those_it_has(log):
    request = request_for(log, labels=("sell",))
    with pytest.raises(LabelError, match=r"--label sell: .* there is: buy, wish"):
        make_samples(request)
    assert not request.output.exists()


def test_a_label_of_numbers_is_refused(tmp_path):
    impressions = random_tables()[1]
    impressions = impressions.append_column("label.buy", pa.array(range(900)))
    with pytest.raises(LabelError, match=r"label\.buy is int64, expected bool"):
        make_samples(request_for(written(tmp_path / "log", impressions), labels=("buy",)))


def test_labels_of_the_request_go_before_those_of_the_settings(log):
    request = request_for(log, labels=("wish",))
    assert make_samples(replace(request, labels=("buy", "buy")))["labels"] == ["buy"]
    assert "labels" not in make_samples(replace(request, labels=()))
