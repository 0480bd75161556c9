"""The rows of the hostile drill that start Flink or a broker."""

import pytest

from uic.jobs.drills.hostile.matrix import ROWS
from uic.jobs.drills.hostile.row import HostileRow, RowVerdict, run_row
from uic.jobs.drills.hostile.stage import open_stage

# Java takes a minute to start on a busy machine, and some rows start it more than once.
pytestmark = [pytest.mark.timeout(1800), pytest.mark.kafka, pytest.mark.slow]


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    with open_stage(tmp_path_factory.mktemp("hostile")) as made:
        yield made


@pytest.mark.parametrize("row", [row for row in ROWS if not row.short], ids=lambda row: row.name)
def test_what_must_hold_holds_and_the_control_is_told(row: HostileRow, stage):
    result = run_row(row, stage)
    assert result.verdict is RowVerdict.GREEN, result
    assert result.control
