"""Each expectation of the samples' gate fails on samples with just its fault."""

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from uic.models.errors import BadInputError
from uic.pipelines.quality.gates import GateReport, gate_samples
from uic.pipelines.settings import QualitySettings

DAY = date(2024, 3, 3)
QUALITY = QualitySettings(min_judged_rows=10)
Row = dict[str, Any]


@pytest.fixture
def groups(group_row) -> list[Row]:
    return [group_row(user_id, DAY) for user_id in range(10)]


def failed(report: GateReport) -> set[str]:
    return {result.check.metric for result in report.failed}


def test_sound_samples_pass(write_samples, groups):
    root, manifest = write_samples(groups)
    report = gate_samples(root, manifest, QUALITY)
    assert failed(report) == set()
    assert report.rows == 10


def put(column: str, value: object) -> Callable[[Row], None]:
    def change(row: Row) -> None:
        row[column] = value

    return change


def put_entry(column: str, value: object) -> Callable[[Row], None]:
    def change(row: Row) -> None:
        row[column] = [row[column][0], value]

    return change


def no_impression(row: Row) -> None:
    for column in ("item_ids", "category_ids", "event_times", "labels", "history_lengths"):
        row[column] = []


LISTS = (
    "history_item_ids", "history_category_ids", "history_behaviors", "history_times",
    "item_ids", "category_ids", "event_times", "labels", "history_lengths",
)  # fmt: skip
FAULTS = {
    "user_id.nulls": put("user_id", None),
    "dt.nulls": put("dt", None),
    **{f"{column}.nulls": put_entry(column, None) for column in LISTS},
    "user_id.range": put("user_id", -1),
    "history_item_ids.range": put_entry("history_item_ids", -1),
    "history_category_ids.range": put_entry("history_category_ids", -1),
    "history_behaviors.range": put_entry("history_behaviors", 4),
    "item_ids.range": put_entry("item_ids", -1),
    "category_ids.range": put_entry("category_ids", -1),
    "history_item_ids.lengths": put("history_times", []),
    "item_ids.lengths": put("labels", [True]),
    "history_lengths.too_long": put_entry("history_lengths", 3),
    "item_ids.empty": no_impression,
}


@pytest.mark.parametrize("metric", FAULTS)
def test_a_fault_is_named_with_its_file_and_group(write_samples, groups, metric):
    FAULTS[metric](groups[6])
    root, manifest = write_samples(groups)
    report = gate_samples(root, manifest, QUALITY)
    assert failed(report) == {metric}
    (result,) = report.failed
    assert result.verdict.failing == (("part.parquet", 1.0),)
    (example,) = result.examples
    assert example["user_id"] == (groups[6]["user_id"])
    assert result.check.column in result.sentence()


def test_a_negative_history_length_is_out_of_its_history(write_samples, groups):
    groups[6]["history_lengths"] = [-1, 2]
    root, manifest = write_samples(groups)
    assert failed(gate_samples(root, manifest, QUALITY)) == {"history_lengths.too_long"}


@pytest.mark.parametrize("label", [True, False])
def test_labels_of_one_kind_cannot_be_learnt_from(write_samples, groups, label):
    for row in groups:
        row["labels"] = [label, label]
    root, manifest = write_samples(groups)
    report = gate_samples(root, manifest, QUALITY)
    assert failed(report) == {"labels.rate"}
    assert report.failed[0].verdict.failing == (("all", float(label)),)


def test_fewer_rows_than_the_manifest_says_is_a_fault(write_samples, groups):
    root, manifest = write_samples(groups)
    manifest["files"][0]["rows"] = 11
    assert failed(gate_samples(root, manifest, QUALITY)) == {"rows.not_as_manifest"}


def test_no_file_at_all_is_a_fault(tmp_path):
    report = gate_samples(tmp_path, {"files": []}, QUALITY)
    assert failed(report) == {"rows.impressions"}


def test_a_long_history_is_shown_by_its_ends(write_samples, groups):
    for column in ("history_item_ids", "history_category_ids", "history_behaviors"):
        groups[0][column] = [2] * 100
    groups[0]["history_times"] = groups[0]["history_times"] * 50
    groups[0]["history_item_ids"] = [*range(98), 98, -99]
    root, manifest = write_samples(groups)
    report = gate_samples(root, manifest, QUALITY)
    assert failed(report) == {"history_item_ids.range"}
    shown = report.failed[0].examples[0]["history_item_ids"]
    assert shown == "[0, 1, 2, … 98, -99] (100)"


def test_a_file_that_is_no_parquet_is_bad_input(write_samples, groups):
    root, manifest = write_samples(groups)
    (root / "part.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(BadInputError, match=r"part\.parquet: cannot be read as Parquet"):
        gate_samples(root, manifest, QUALITY)
