"""`--label`: columns of a table that tell what came of an impression."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.pipelines.imported import rejects, run
from uic.models.errors import BadInputError
from uic.models.features.definition import FeatureFileError, Owner
from uic.models.features.feature_file import load_features
from uic.pipelines.importers.labels import LabelColumn, label_columns
from uic.pipelines.importers.table import TableColumns, TableImporter
from uic.pipelines.log.event_log import EventLog

CSV = """who,what,when,hit,bought,seconds,note
1,10,1,1,1,61,fine
1,11,2,0,,60,fine
2,12,3,1,false,1e3,fine
2,13,4,0,TRUE,nan,fine
2,14,5,0,maybe,0,fine
"""


def labels_of(log: EventLog) -> dict[str, list[bool | None]]:
    (file,) = log.impression_files()
    table = pq.read_table(file.path)
    return {name: table[name].to_pylist() for name in table.column_names if "." in name}


def columns(*labels: str, clicked: str | None = "hit") -> TableColumns:
    return TableColumns("who", "what", "when", clicked=clicked, labels=label_columns(labels))


def test_truths_numbers_and_thresholds_of_a_csv_become_labels(tmp_path: Path) -> None:
    log, file = EventLog(tmp_path / "log"), tmp_path / "a.csv"
    file.write_text(CSV)
    summary = run(TableImporter(file, columns("buy=bought", "watched=seconds>60", "seconds")), log)
    assert rejects(summary) == [(6, "wrong_type")]
    assert labels_of(log) == {
        "label.buy": [True, None, False, True],
        "label.watched": [True, False, True, None],
        "label.seconds": [True, True, True, None],
    }


@pytest.mark.parametrize(
    "values",
    [
        pa.array([True, None, False]),
        pa.array([1, None, 0], pa.int8()),
        pa.array([0.5, float("nan"), 0.0]),
        pa.array([1, None, 0]).cast(pa.decimal128(20)),
        pa.array(["true", "", "0"]),
    ],
    ids=lambda values: str(values.type),
)
def test_a_parquet_column_of_any_type_of_truth(tmp_path: Path, values: pa.Array) -> None:
    log, file = EventLog(tmp_path / "log"), tmp_path / "a.parquet"
    one = pa.array([1, 2, 3])
    pq.write_table(
        pa.table({"who": one, "what": one, "when": one, "hit": one, "bought": values}), file
    )
    run(TableImporter(file, columns("bought")), log)
    assert labels_of(log) == {"label.bought": [True, None, False]}


def test_a_label_has_a_column_and_may_have_a_name_and_a_threshold() -> None:
    assert label_columns(["buy", "a=b", "long=play_ms>-1.5e3", "x>2"]) == (
        LabelColumn("buy", "buy"),
        LabelColumn("a", "b"),
        LabelColumn("long", "play_ms", -1500.0),
        LabelColumn("x", "x", 2.0),
    )


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["Buy"], "found 'Buy', expected"),
        (["buy="], "found 'buy=', expected"),
        (["click=bought"], "is not click"),
        (["label.buy"], "found 'label.buy', expected"),
        (["a>much"], "expected a number after >"),
        (["a>inf"], "expected a number after >"),
        (["a", "a=b"], "a is there twice"),
    ],
)
def test_what_is_no_label_is_refused(given: list[str], says: str) -> None:
    with pytest.raises(BadInputError, match=says):
        label_columns(given)


def test_labels_need_impressions(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(CSV)
    with pytest.raises(BadInputError, match="none without --clicked"):
        TableImporter(tmp_path / "a.csv", columns("bought", clicked=None))


def test_a_column_is_a_label_or_a_feature(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(CSV)
    both = replace(columns("buy=bought"), features={Owner.CONTEXT: {"buying": "bought"}})
    with pytest.raises(BadInputError, match="bought is a feature, too"):
        TableImporter(tmp_path / "a.csv", both)


def test_a_label_is_never_a_feature(tmp_path: Path) -> None:
    file = tmp_path / "features.yaml"
    file.write_text("version: 1\ncontext:\n  bought: {type: categorical, column: label.bought}\n")
    with pytest.raises(FeatureFileError, match=r"label\.bought is a label, and no feature"):
        load_features(file)
