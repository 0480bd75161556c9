"""Each expectation of the log's gates fails on a log with just its fault, and says where."""

import itertools
import json
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.pipelines.quality.conftest import LogFolder, Row, at, behavior_row
from uic.models.errors import BadInputError, QualityGateError
from uic.pipelines.log.event_log import LogFile
from uic.pipelines.log.schemas import BEHAVIOR_EVENTS, BEHAVIORS, TIMESTAMP
from uic.pipelines.quality.checks import log_checks
from uic.pipelines.quality.facts import BEHAVIORS_TABLE, IMPRESSIONS_TABLE, LogRules, log_facts
from uic.pipelines.quality.gates import GateReport, gate_behaviors, gate_impressions, require
from uic.pipelines.quality.sample_facts import sample_checks
from uic.pipelines.settings import QualitySettings

DAY = date(2024, 3, 3)
RULES = LogRules(QualitySettings(min_judged_rows=10), "UTC", 300)


def failed(report: GateReport) -> set[str]:
    return {result.check.metric for result in report.failed}


def judge_behaviors(folder: LogFolder, rules: LogRules = RULES) -> GateReport:
    return gate_behaviors(folder.publish(), folder.days[0], folder.days[-1], rules)


def judge_impressions(folder: LogFolder, rules: LogRules = RULES) -> GateReport:
    return gate_impressions(folder.publish(), folder.days[0], folder.days[-1], rules)


def test_a_sound_log_passes(log_folder):
    log = log_folder.publish()
    first, last = log_folder.days[0], log_folder.days[-1]
    reports = [gate(log, first, last, RULES) for gate in (gate_behaviors, gate_impressions)]
    assert [failed(report) for report in reports] == [set(), set()]
    assert [report.rows for report in reports] == [200, 200]
    assert [report.remarks for report in reports] == [(), ()]
    require(reports)


def set_value(column: str, value: object) -> Callable[[list[Row]], None]:
    def change(rows: list[Row]) -> None:
        rows[5][column] = value

    return change


BEHAVIOR_FAULTS = {
    **{f"{column}.nulls": (set_value(column, None), set()) for column in (
        "user_id", "item_id", "category_id", "behavior", "event_time")},
    # A position or a log time that is not there is also not where it should be.
    "log_time.nulls": (set_value("log_time", None), {"log_time.falls"}),
    "offset.nulls": (set_value("offset", None), {"offset.out_of_order"}),
    "partition.nulls": (set_value("partition", None), set()),
    "epoch.nulls": (set_value("epoch", None), {"offset.out_of_order"}),
    **{f"{column}.negative": (set_value(column, -1), set()) for column in (
        "user_id", "item_id", "category_id")},
    "offset.negative": (
        # It also lies before the days before, whose log times are earlier.
        set_value("offset", -1), {"offset.out_of_order", "log_time.falls"},
    ),
    "partition.negative": (set_value("partition", -1), {"offset.out_of_order"}),
    "epoch.negative": (set_value("epoch", -1), {"offset.out_of_order"}),
    "behavior.unknown": (set_value("behavior", "view"), set()),
    "event_time.future": (set_value("event_time", at(DAY, 5 * 60 + 301)), set()),
    "log_time.falls": (set_value("log_time", at(DAY, 4 * 60 - 1)), set()),
    "offset.duplicates": (set_value("offset", 2 * 20 + 4), set()),
    "offset.out_of_order": (set_value("offset", 2 * 20 + 3), set()),
}  # fmt: skip


@pytest.mark.parametrize("metric", BEHAVIOR_FAULTS)
def test_a_behaviour_fault_is_named_with_its_day_and_row(log_folder, metric):
    change, follows = BEHAVIOR_FAULTS[metric]
    change(log_folder.behaviors[DAY])
    report = judge_behaviors(log_folder)
    assert failed(report) == {metric} | follows
    (result,) = [result for result in report.failed if result.check.metric == metric]
    assert result.verdict.failing == (("2024-03-03", 1.0),)
    assert any(example["file"] == "dt=2024-03-03/0.parquet" for example in result.examples)
    changed = log_folder.behaviors[DAY][5][result.check.column]
    shown = [example[result.check.column] for example in result.examples]
    assert (changed.isoformat() if hasattr(changed, "isoformat") else changed) in shown


def test_an_event_time_within_the_skew_is_no_fault(log_folder):
    log_folder.behaviors[DAY][5]["event_time"] = at(DAY, 5 * 60 + 300)
    assert failed(judge_behaviors(log_folder)) == set()


def test_a_log_time_of_another_day_is_named(log_folder):
    last_of_partition = log_folder.behaviors[DAY][19]
    last_of_partition["log_time"] = at(DAY + timedelta(days=1), 0)
    report = judge_behaviors(log_folder)
    assert failed(report) == {"log_time.other_day"}
    assert report.failed[0].examples[0]["log_time"] == "2024-03-04T00:00:00"


def test_days_are_those_of_the_time_zone(log_folder):
    shanghai = LogRules(RULES.quality, "Asia/Shanghai", 300)
    assert failed(judge_behaviors(log_folder, shanghai)) == set()
    utc_late = log_folder.behaviors[DAY][19]
    utc_late["log_time"] = utc_late["event_time"] = at(DAY, 16 * 3600)
    folder = LogFolder(log_folder.root.parent / "late", log_folder.days, log_folder.behaviors)
    assert failed(judge_behaviors(folder, shanghai)) == {"log_time.other_day"}


def test_the_same_position_in_two_files_is_found(log_folder):
    day_before = log_folder.behaviors[DAY - timedelta(days=1)]
    log_folder.behaviors[DAY][0]["offset"] = day_before[19]["offset"]
    report = judge_behaviors(log_folder)
    assert failed(report) == {"offset.duplicates"}
    result = report.failed[0]
    assert result.verdict.failing == (("2024-03-03", 1.0),)
    assert "partition 0 offset 39" in result.examples[0]["files"]


def test_files_with_interleaved_offsets_are_no_fault(log_folder):
    log = log_folder.publish(files_a_day=2)
    report = gate_behaviors(log, log_folder.days[0], log_folder.days[-1], RULES)
    assert failed(report) == set()


def test_a_log_time_that_falls_from_file_to_file_is_found(log_folder):
    for row in log_folder.behaviors[DAY][:20]:
        row["offset"] -= 20
    for row in log_folder.behaviors[DAY - timedelta(days=1)][:20]:
        row["offset"] += 20
    assert failed(judge_behaviors(log_folder)) == {"log_time.falls"}


def test_a_missing_day_is_named(log_folder):
    del log_folder.behaviors[DAY]
    report = judge_behaviors(log_folder)
    assert failed(report) == {"rows.missing_day"}
    assert report.failed[0].verdict.failing == (("2024-03-03", 1.0),)
    lenient = LogRules(QualitySettings(max_missing_days=1), "UTC", 300)
    folder = LogFolder(log_folder.root.parent / "again", log_folder.days, log_folder.behaviors)
    assert failed(judge_behaviors(folder, lenient)) == set()


@pytest.mark.parametrize(("first", "last"), [(-1, 0), (0, 1)])
def test_a_range_beyond_the_log_has_a_missing_day(log_folder, first, last):
    log = log_folder.publish()
    days = log_folder.days
    report = gate_behaviors(
        log, days[0] + timedelta(days=first), days[-1] + timedelta(days=last), RULES
    )
    assert failed(report) == {"rows.missing_day"}


def test_a_thin_day_is_held_against_the_days_before(log_folder):
    last = log_folder.days[-1]
    log_folder.behaviors[last] = [behavior_row(last, 0, 0, 80)]
    strict = LogRules(QualitySettings(min_volume_ratio=0.5, min_judged_rows=10), "UTC", 300)
    report = judge_behaviors(log_folder, strict)
    assert failed(report) == {"rows.volume_ratio"}
    assert report.failed[0].verdict.failing == (("2024-03-05", 1 / 40),)


def test_a_day_of_its_own_is_held_against_days_before_the_range(log_folder):
    last = log_folder.days[-1]
    log_folder.behaviors[last] = [behavior_row(last, 0, 0, 80)]
    strict = LogRules(QualitySettings(min_volume_ratio=0.5, min_judged_rows=10), "UTC", 300)
    report = gate_behaviors(log_folder.publish(), last, last, strict)
    assert failed(report) == {"rows.volume_ratio"}


def test_the_volume_of_a_sale_day_is_not_judged(log_folder):
    last = log_folder.days[-1]
    log_folder.behaviors[last] = [behavior_row(last, place, 0, 80 + place) for place in range(400)]
    strict = QualitySettings(max_volume_ratio=5, min_judged_rows=10)
    assert failed(judge_behaviors(log_folder, LogRules(strict, "UTC", 300))) == {
        "rows.volume_ratio"
    }
    folder = LogFolder(log_folder.root.parent / "sale", log_folder.days, log_folder.behaviors)
    sale = LogRules(strict, "UTC", 300, frozenset({last}))
    assert failed(judge_behaviors(folder, sale)) == set()


IMPRESSION_FAULTS = {
    **{f"{column}.nulls": set_value(column, None) for column in (
        "user_id", "item_id", "category_id", "event_time", "clicked")},
    **{f"{column}.negative": set_value(column, -5) for column in (
        "user_id", "item_id", "category_id")},
}  # fmt: skip


@pytest.mark.parametrize("metric", IMPRESSION_FAULTS)
def test_an_impression_fault_is_named_with_its_day_and_row(log_folder, metric):
    IMPRESSION_FAULTS[metric](log_folder.impressions[DAY])
    report = judge_impressions(log_folder)
    assert failed(report) == {metric}
    assert report.failed[0].verdict.failing == (("2024-03-03", 1.0),)
    assert len(report.failed[0].examples) == 1


def test_an_impression_after_its_day_is_in_the_future(log_folder):
    rows = log_folder.impressions[DAY]
    rows[5]["event_time"] = at(DAY + timedelta(days=1), 301)
    assert failed(judge_impressions(log_folder)) == {"event_time.future", "event_time.other_day"}


def test_an_impression_before_its_day_is_of_another_day(log_folder):
    log_folder.impressions[DAY][5]["event_time"] = at(DAY, -1)
    assert failed(judge_impressions(log_folder)) == {"event_time.other_day"}


@pytest.mark.parametrize("clicked", [True, False])
def test_a_day_of_one_label_has_no_credible_click_rate(log_folder, clicked):
    for row in log_folder.impressions[DAY]:
        row["clicked"] = clicked
    report = judge_impressions(log_folder)
    assert failed(report) == {"clicked.rate"}
    assert report.failed[0].verdict.failing == (("2024-03-03", float(clicked)),)


def test_small_days_are_judged_together(log_folder):
    for rows in log_folder.impressions.values():
        for row in rows:
            row["clicked"] = False
    rules = LogRules(QualitySettings(min_judged_rows=100), "UTC", 300)
    report = judge_impressions(log_folder, rules)
    assert failed(report) == {"clicked.rate"}
    assert report.failed[0].verdict.failing == (("all", 0.0),)


def test_rows_that_the_manifest_does_not_know_are_a_fault(log_folder):
    log = log_folder.publish()
    path = log_folder.root / "manifests" / "000001-test.json"
    path.write_text(path.read_text().replace('"rows": 40', '"rows": 41', 1))
    report = gate_behaviors(log, log_folder.days[0], log_folder.days[-1], RULES)
    assert failed(report) == {"rows.not_as_manifest"}


def test_the_error_names_the_expectation_the_column_and_the_counts(log_folder):
    log_folder.behaviors[DAY][5]["item_id"] = -1
    log_folder.behaviors[DAY][6]["item_id"] = -2
    log_folder.behaviors[DAY][7]["behavior"] = "view"
    report = judge_behaviors(log_folder)
    with pytest.raises(QualityGateError) as caught:
        require([report])
    assert str(caught.value) == (
        "quality gate of behaviors (2024-03-01 to 2024-03-05): column item_id: expected item_id "
        "is at least 0 (item_id.negative at most 0 rows: quality.max_faulty_rows), "
        "found 2 (2024-03-03: 2); "
        "also failed: behaviors behavior.unknown"
    )
    assert caught.value.exit_code == 3


def test_examples_are_as_many_as_asked_for(log_folder):
    for row in log_folder.behaviors[DAY]:
        row["item_id"] = -1
    rules = LogRules(QualitySettings(examples=2, min_judged_rows=10), "UTC", 300)
    report = judge_behaviors(log_folder, rules)
    assert len(report.failed[0].examples) == 2
    assert "40 (2024-03-03: 40)" in report.failed[0].sentence()


def test_a_missing_column_is_bad_input(log_folder):
    log = log_folder.publish()
    path = log_folder.root / "behaviors" / f"dt={DAY}" / "0.parquet"
    rewrite(path, lambda table: table.drop_columns(["item_id"]), log_folder)
    with pytest.raises(BadInputError, match=r"0\.parquet: column item_id is missing"):
        gate_behaviors(log, DAY, DAY, RULES)


def test_a_column_of_another_type_is_bad_input(log_folder):
    log = log_folder.publish()
    path = log_folder.root / "behaviors" / f"dt={DAY}" / "0.parquet"
    text = pa.array(["11"] * 40)
    rewrite(path, lambda table: table.set_column(1, "item_id", text), log_folder)
    with pytest.raises(BadInputError, match="column item_id is string, expected int64"):
        gate_behaviors(log, DAY, DAY, RULES)


def test_a_truncated_file_is_bad_input(log_folder):
    log = log_folder.publish()
    path = log_folder.root / "behaviors" / f"dt={DAY}" / "0.parquet"
    path.write_bytes(path.read_bytes()[:-8] + b"\0" * 8)
    with pytest.raises(BadInputError, match=r"0\.parquet: cannot be read as Parquet"):
        gate_behaviors(log, DAY, DAY, RULES)


def test_reversed_days_are_bad_input(log_folder):
    log = log_folder.publish()
    with pytest.raises(BadInputError, match="first 2024-03-05 is after last 2024-03-01"):
        gate_behaviors(log, log_folder.days[-1], log_folder.days[0], RULES)


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table], folder: LogFolder) -> None:
    """Change a published file, and the size that its manifest names."""
    pq.write_table(change(pq.read_table(path)), path)
    manifest = folder.root / "manifests" / "000001-test.json"
    document = json.loads(manifest.read_text())
    for entry in document["files"]:
        entry["bytes"] = (folder.root / entry["path"]).stat().st_size
    manifest.write_text(json.dumps(document))


@pytest.mark.parametrize("seed", range(2))
def test_counts_equal_an_obvious_count_on_a_large_file(tmp_path, seed):
    """Neighbours are compared across batches and row groups, with every kind of fault about."""
    generator = np.random.default_rng(seed)
    rows, day = 300_000, DAY
    partition = np.sort(generator.integers(0, 3, rows)).astype(np.int32)
    offset = np.cumsum(generator.choice([-1, 0, 1, 2], rows, p=[0.01, 0.02, 0.9, 0.07]))
    log_time = np.cumsum(generator.choice([-1, 0, 1], rows, p=[0.01, 0.2, 0.79]))
    start = int(np.datetime64(day, "ms").astype(np.int64))
    table = pa.table(
        {
            "user_id": np.arange(rows),
            "item_id": np.arange(rows),
            "category_id": np.zeros(rows, np.int64),
            "behavior": pa.DictionaryArray.from_arrays(np.zeros(rows, np.int8), list(BEHAVIORS)),
            "event_time": pa.array(start + log_time).cast(TIMESTAMP),
            "log_time": pa.array(start + log_time).cast(TIMESTAMP),
            "epoch": np.ones(rows, np.int32),
            "partition": partition,
            "offset": offset,
            "source": pa.nulls(rows, pa.string()),
        },
        schema=BEHAVIOR_EVENTS,
    )
    path = tmp_path / "large.parquet"
    pq.write_table(table, path, row_group_size=70_001)
    file = LogFile(path, day, rows, path.stat().st_size, 1)
    frame, _ = log_facts(BEHAVIORS_TABLE, [file], [day], RULES)
    positions = list(zip(partition.tolist(), offset.tolist(), strict=True))
    pairs = list(itertools.pairwise(positions))
    falls = [
        later < sooner
        for (a, b), sooner, later in zip(pairs, log_time, log_time[1:], strict=False)
        if a[0] == b[0]
    ]
    assert frame["offset.duplicates"][0] == sum(a == b for a, b in pairs)
    assert frame["offset.out_of_order"][0] == sum(b < a for a, b in pairs)
    assert frame["log_time.falls"][0] == sum(falls)


def test_every_setting_that_a_check_names_is_there():
    rules = LogRules(QualitySettings(), "UTC", 300)
    checks = [*log_checks(IMPRESSIONS_TABLE, rules), *sample_checks(rules.quality)]
    named = {name for check in checks for name in check.settings}
    assert named == {
        "max_faulty_rows", "max_missing_days", "min_volume_ratio", "max_volume_ratio",
        "min_click_rate", "max_click_rate",
    }  # fmt: skip
    assert named <= QualitySettings.model_fields.keys()
