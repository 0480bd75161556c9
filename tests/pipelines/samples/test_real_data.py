"""The pipeline's samples equal the reference, on every row of the real data sets."""

from datetime import date

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest

from uic.models.published import read_manifest, verify_checksums
from uic.models.samples.schema import SAMPLES, SAMPLES_KIND, SAMPLES_SCHEMA_VERSION
from uic.pipelines.importers.ali_brand import AliBrand
from uic.pipelines.importers.kuairand import KuaiRand
from uic.pipelines.importers.run import run_import
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.writer import LogWriter, Part
from uic.pipelines.samples.run import SamplesRequest, make_samples
from uic.pipelines.settings import SaleSettings, SamplesSettings

pytestmark = pytest.mark.slow


def published(root):
    """The rows of samples in order of (dt, bucket), as the manifest names them."""
    manifest = read_manifest(root, SAMPLES_KIND, SAMPLES_SCHEMA_VERSION)
    verify_checksums(root, manifest)
    files = [root / entry["path"] for entry in manifest["files"]]
    table = ds.dataset(files, schema=SAMPLES).to_table()
    return table.sort_by([("dt", "ascending"), ("user_id", "ascending")]), manifest


def test_kuairand_equals_the_reference(oracle, shared_data, tmp_path):
    log = EventLog(tmp_path / "log")
    run_import(
        KuaiRand(shared_data / "kuairand_pure_14d"), log, time_zone="Asia/Shanghai", partitions=4
    )
    days = sorted({file.dt for file in log.impression_files()})
    request = SamplesRequest(
        log.root,
        tmp_path / "samples" / "all",
        days[0],
        days[-1],
        "Asia/Shanghai",
        SamplesSettings(buckets=3),
        SaleSettings(),
    )
    make_samples(request)
    table, manifest = published(request.output)
    behaviors, impressions = oracle.read_log(log)
    plan = oracle.plan(days[0], days[-1], zone="Asia/Shanghai")
    oracle.assert_same(table, oracle.reference(behaviors, impressions, plan))
    assert manifest["impressions"] == impressions.num_rows == 228_329
    assert manifest["grouping"]["ratio"] > 1


def test_ali_brand_over_120_days_with_a_sale_day_equals_the_reference(
    oracle, shared_data, tmp_path
):
    log = EventLog(tmp_path / "log")
    run_import(
        AliBrand(shared_data / "ali_brand_2013" / "behaviors.parquet", "UTC"),
        log,
        time_zone="UTC",
        partitions=4,
    )
    behaviors = oracle.read_behaviors(log)
    # The data has no impressions. Every purchase is one that was clicked, every fourth click one
    # that was not: at the very time of an event, which they then must not see.
    bought = pc.equal(behaviors["behavior"].cast(pa.string()), "buy")
    every_fourth = pc.equal(pc.bit_wise_and(behaviors["offset"], 3), 0)
    shown = behaviors.append_column("clicked", bought).filter(pc.or_(bought, every_fourth))
    with LogWriter(log, Part("shown"), time_zone="UTC") as writer:
        writer.add_impressions(
            shown.select(["user_id", "item_id", "category_id", "event_time", "clicked"])
        )
        writer.publish()

    calendar = tmp_path / "sale_calendar.yaml"
    calendar.write_text(
        'time_zone: UTC\nsales:\n  - {name: "6.18", first: 2013-06-18, last: 2013-06-18}\n'
    )
    days = sorted({file.dt for file in log.impression_files()})
    assert (days[-1] - days[0]).days >= 119
    request = SamplesRequest(
        log.root,
        tmp_path / "samples" / "all",
        days[0],
        days[-1],
        "UTC",
        SamplesSettings(),
        SaleSettings(calendar=calendar),
    )
    make_samples(request)
    table, manifest = published(request.output)
    behaviors, impressions = oracle.read_log(log)
    plan = oracle.plan(days[0], days[-1], sale=[date(2013, 6, 18)])
    oracle.assert_same(table, oracle.reference(behaviors, impressions, plan))
    assert manifest["empty_days"] == ["2013-06-18"]
    assert manifest["left_out"]["sale_day_impressions"] > 0
    assert manifest["left_out"]["sale_day_behaviors"] > 0
    assert manifest["impressions"] + manifest["left_out"]["sale_day_impressions"] == len(
        impressions
    )


@pytest.mark.parametrize("cut", ["impression", "day_start"])
def test_next_item_impressions_equal_the_reference(oracle, shared_data, tmp_path, cut):
    from uic.pipelines.importers.next_item import NextItemOptions

    log = EventLog(tmp_path / "log")
    run_import(
        AliBrand(shared_data / "ali_brand_2013" / "behaviors.parquet", "UTC"),
        log,
        time_zone="UTC",
        partitions=4,
        next_item=NextItemOptions(min_length=5),
    )
    days = sorted({file.dt for file in log.impression_files()})
    request = SamplesRequest(
        log.root,
        tmp_path / "samples" / "all",
        days[0],
        days[-1],
        "UTC",
        SamplesSettings(cut=cut, history_cap=50, buckets=2),
        SaleSettings(),
    )
    make_samples(request)
    table, _ = published(request.output)
    behaviors, impressions = oracle.read_log(log)
    plan = oracle.plan(days[0], days[-1], cut=cut, history_cap=50)
    oracle.assert_same(table, oracle.reference(behaviors, impressions, plan))
