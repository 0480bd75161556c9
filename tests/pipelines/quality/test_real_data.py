"""The default thresholds let the real logs pass, uneven as they are."""

import pytest

from uic.pipelines.importers.ali_brand import AliBrand
from uic.pipelines.importers.kuairand import KuaiRand
from uic.pipelines.importers.run import run_import
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.quality.facts import LogRules
from uic.pipelines.quality.gates import gate_behaviors, gate_impressions, log_days
from uic.pipelines.settings import QualitySettings

RULES = LogRules(QualitySettings(), "UTC", 300)


def gate(log, gate_table, files):
    first, last = log_days(files)
    return gate_table(log, first, last, RULES)


@pytest.fixture
def log(tmp_path):
    return EventLog(tmp_path / "log")


def test_kuairand_passes(shared_data, log):
    run_import(KuaiRand(shared_data / "kuairand_pure_14d"), log, time_zone="UTC", partitions=4)
    behaviors = gate(log, gate_behaviors, log.behavior_files())
    impressions = gate(log, gate_impressions, log.impression_files())
    assert (behaviors.failed, impressions.failed) == ((), ())
    assert (behaviors.rows, impressions.rows) == (918_087, 228_329)


def test_ali_brand_passes(shared_data, log):
    file = shared_data / "ali_brand_2013" / "behaviors.parquet"
    run_import(AliBrand(file, "UTC"), log, time_zone="UTC", partitions=4)
    report = gate(log, gate_behaviors, log.behavior_files())
    assert (report.failed, report.rows) == ((), 182_880)
    # 23 April 2013 is thin in the source itself.
    assert report.frame["rows.volume_ratio"].min() == pytest.approx(0.02932761)


def test_a_tighter_volume_names_the_two_thin_days_of_ali_brand(shared_data, log):
    file = shared_data / "ali_brand_2013" / "behaviors.parquet"
    run_import(AliBrand(file, "UTC"), log, time_zone="UTC", partitions=4)
    first, last = log_days(log.behavior_files())
    tight = LogRules(QualitySettings(min_volume_ratio=0.1), "UTC", 300)
    report = gate_behaviors(log, first, last, tight)
    (result,) = report.failed
    assert [day for day, _ in result.verdict.failing] == ["2013-04-23", "2013-05-12"]
