"""`uic experiment imn-*|lmn-*`, as a person runs them."""

import importlib.util
from pathlib import Path

import pytest
from typer.testing import CliRunner

from uic.jobs.cli import app
from uic.jobs.experiments.costs import MeasuredCost, cost_table, write_costs
from uic.jobs.experiments.sequence_cost import Cost, is_out_of_memory, measure
from uic.jobs.experiments.tables import COSTS, TABLES
from uic.models.errors import BadInputError
from uic.models.rankers.catalogue import MODELS
from uic.models.training.run_spec import apply_settings
from uic.models.training.settings import TrainSettings

pytestmark = pytest.mark.slow

_PATH = Path(__file__).parents[1] / "models" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("models_conftest", _PATH)
samples = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(samples)

TINY = ["--set", "item_width=4", "--set", "category_width=2", "--set", "head_widths=[8]"]
TINY += ["--set", "epochs=1", "--repeats", "1"]


@pytest.fixture
def workspace(tmp_path):
    samples.publish_samples(tmp_path / "samples" / "small", samples.random_rows(60))
    return tmp_path


def run(workspace, *words):
    words = ["experiment", *words, "--samples", "small", "-w", str(workspace)]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def cells(printed, label):
    line = next(line for line in printed.splitlines() if line.startswith(f"| {label} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_every_row_of_every_table_can_be_built():
    for table in TABLES.values():
        for row in table.rows:
            assert len(row.printed) == len(table.printed), row.label
            if row.model:
                apply_settings(row.model, TrainSettings(), list(row.settings))


def test_imn_rows_have_length_and_entropies_beside_their_auc(workspace):
    printed = run(workspace, "imn-ablation", "--rows", "imn", "--set", "history_limit=5", *TINY)
    full = cells(printed, "full")
    assert full[1] == "5"
    assert 0 <= float(full[2]) <= 1
    assert len(full[9].split(",")) == 3
    assert full[10:] == ["0.8692", "0.8862", "0.7423"]
    assert cells(printed, "w/o attention")[7:10] == ["-", "-", "-"]
    folder = workspace / "reports/experiments"
    assert (folder / "imn-ablation-small.csv").read_text().startswith("model,")
    assert (folder / "imn-ablation-small.png").read_bytes()[:4] == b"\x89PNG"


def test_improvements_are_over_the_base(workspace):
    words = ["lmn-table1", "--rows", "dnn,average_pooling", *TINY]
    printed = run(workspace, *words)
    base, pooling = cells(printed, "Base"), cells(printed, "Pooling")
    assert base[7:9] == ["-", "-"]
    gain = (float(pooling[2]) - 0.5) / (float(base[2]) - 0.5) - 1
    assert float(pooling[7].strip("%")) / 100 == pytest.approx(gain, abs=0.02 + abs(gain) * 0.02)
    assert float(pooling[8].strip("%")) / 100 == pytest.approx(
        float(pooling[6]) / float(base[6]) - 1, abs=1e-3
    )
    assert run(workspace, *words) == printed


def test_a_row_that_needs_too_much_memory_is_a_result(workspace):
    words = ["lmn-table1", "--rows", "dnn,lmn", *TINY]
    words += ["--set", "lmn_user_rows=200000000", "--memory-limit-gib", "0.5"]
    printed = run(workspace, *words)
    assert cells(printed, "LMN")[1:3] == ["50", "out of memory (> 0.5 GiB)"]
    assert float(cells(printed, "Base")[2]) > 0
    assert run(workspace, *words) == printed


def test_other_errors_are_not_out_of_memory():
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes do not match"))


def test_costs_are_measured_in_a_process_of_their_own(tmp_path):
    paths = cost_table(tmp_path, "imn-efficiency", ["average_pooling"], [100], 0.0)
    printed = paths[0].read_text()
    assert [cells(printed, "average_pooling")[n] for n in (1, 5)] == ["100", "-"]
    forward, steps, memory = (float(cell) for cell in cells(printed, "average_pooling")[2:5])
    assert forward > 0
    assert steps > 0
    assert memory > 0
    assert set(COSTS.models) <= set(MODELS)


def test_the_exponent_is_that_of_time_over_length(tmp_path):
    costs = [MeasuredCost("din", length, Cost(length / 10, 1.0, 3)) for length in (50, 100, 1000)]
    costs.append(MeasuredCost("sasrec", 1000, None))
    text = write_costs(tmp_path, "imn-table2", costs, "remark")[0].read_text()
    assert "| din | CROSS | O(L d) | O(1) | infinite | 1.00 |" in text
    assert "| sasrec | ENC, CROSS | O(L^2 d) | O(1) | O(1) | - |" in text
    text = write_costs(tmp_path, "imn-efficiency", costs, "remark")[0].read_text()
    assert "| sasrec | 1000 | out of memory | out of memory | out of memory | - |" in text


def test_a_cost_is_measured():
    cost = measure("imn", 60, 0, 0.01)
    assert cost.forward_ms > 0
    assert cost.steps_per_second > 0


def test_no_such_row_lists_the_known(workspace):
    words = ["experiment", "lmn-table2", "--rows", "mimn", "--samples", "small"]
    with pytest.raises(BadInputError, match=r"--rows mimn: .* known: dnn, lmn"):
        CliRunner().invoke(app, [*words, "-w", str(workspace)], catch_exceptions=False)
