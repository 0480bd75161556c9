"""Samples see what was shown before an impression, and never its own list: what `asof` says."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from uic.models.state.definition import StateDefinition
from uic.models.state.named import named_features
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.shown import with_lists
from uic.pipelines.log.writer import LogWriter, Part
from uic.pipelines.samples.features import FeatureJoin
from uic.pipelines.samples.run import make_samples
from uic.pipelines.state.asof import AsOfRequest, features_as_of

from .small_run import random_tables, request_for

SHARE = {"kind": "rates", "exposures": ["shown"], "successes": ["click"], "half_life": "7d"}
PARTS = {
    "items": {"kind": "counts", "size": 16},
    "shown": SHARE,
    "shelves": {**SHARE, "by": "category", "sample": 0.5},
}
STATE = StateDefinition.of_document({"version": 1, "parts": PARTS}, "test")


@pytest.mark.parametrize("lists", [True, False])
def test_samples_have_what_asof_says(tmp_path, lists) -> None:
    behaviors, impressions = random_tables()
    log = EventLog(tmp_path / "log")
    with LogWriter(log, Part("test"), time_zone="UTC") as writer:
        writer.add_behaviors(with_lists(behaviors, impressions) if lists else behaviors)
        writer.add_impressions(impressions)
        writer.publish()
    request = request_for(log)
    manifest = make_samples(replace(request, features=FeatureJoin().with_state(STATE)))
    table = pa.concat_tables(
        pq.read_table(request.output / file["path"]) for file in manifest["files"]
    ).to_pandas()
    sizes = table["item_ids"].map(len)
    rows = {
        "user_id": np.repeat(table["user_id"].to_numpy(), sizes),
        "time": np.concatenate(table["event_times"].tolist()).astype("datetime64[ms]"),
        "item_id": np.concatenate(table["item_ids"].tolist()),
        "category_id": np.concatenate(table["category_ids"].tolist()),
    }
    pq.write_table(pa.table(rows), tmp_path / "rows.parquet")
    out = tmp_path / "out.parquet"
    features_as_of(AsOfRequest(log.root, STATE), tmp_path / "rows.parquet", out)
    said = pq.read_table(out)
    for named, one in zip(named_features(STATE), STATE.described, strict=True):
        sampled = np.concatenate(table[named.key].tolist())
        np.testing.assert_array_equal(sampled, said.column(one.name).to_numpy())
    exposures = said.column("shown.exposures").to_numpy()
    assert bool(exposures.max() > 1) == lists
