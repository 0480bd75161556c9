"""The demo's stages: what it runs, what it refuses, and how it says where it failed."""

import json

import pytest

from jobs.demo import STATE_NAME, Plan, Stage, StageFailedError, make_plan, run_plan
from models.errors import BadInputError

GOOD = Stage("settings", "show them", ("config", "show"))
BAD = Stage(
    "samples", "without a log", ("samples", "--first", "2025-01-01", "--last", "2025-01-02")
)


def plan(*stages):
    return Plan("nothing", "UTC", stages)


def test_real_data_is_used_where_it_is_and_the_simulator_elsewhere(tmp_path):
    assert make_plan(tmp_path).stages[0].arguments == ("simulate",)
    (tmp_path / "kuairand_pure_14d").mkdir()
    real = make_plan(tmp_path)
    assert real.stages[0].arguments[:2] == ("import", "kuairand")
    assert real.time_zone == "Asia/Shanghai"


def test_every_stage_is_printed_as_the_command_that_one_could_type(tmp_path):
    said = []
    run_plan(plan(GOOD), tmp_path / "w", None, said.append)
    assert said == [
        "[1/1] settings: show them",
        f"$ uic config show --workspace {tmp_path / 'w'}",
    ]
    assert "time_zone: UTC" in (tmp_path / "w" / "logs" / "settings.log").read_text()


def test_a_stage_that_fails_names_itself_its_log_and_how_to_go_on(tmp_path):
    with pytest.raises(StageFailedError) as caught:
        run_plan(plan(GOOD, BAD), tmp_path / "w", None, str)
    text = str(caught.value)
    assert "stage samples failed with exit status 2" in text
    assert str(tmp_path / "w" / "logs" / "samples.log") in text
    assert f"uic demo --from samples --workspace {tmp_path / 'w'}" in text
    assert json.loads((tmp_path / "w" / STATE_NAME).read_text())["done"] == ["settings"]


def test_a_rerun_from_a_stage_keeps_what_earlier_stages_made(tmp_path):
    run_plan(plan(GOOD, GOOD), tmp_path / "w", None, str)
    (tmp_path / "w" / "kept").write_text("")
    run_plan(plan(GOOD), tmp_path / "w", "settings", str)
    assert (tmp_path / "w" / "kept").exists()
    run_plan(plan(GOOD), tmp_path / "w", None, str)
    assert not (tmp_path / "w" / "kept").exists()


def test_a_folder_that_no_demo_made_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("three years")
    with pytest.raises(BadInputError, match="holds data that no demo made"):
        run_plan(plan(GOOD), tmp_path, None, str)
    assert (tmp_path / "thesis.txt").exists()


def test_unknown_and_premature_stages_are_refused(tmp_path):
    with pytest.raises(BadInputError, match="--from nap: no such stage; stages are settings"):
        run_plan(plan(GOOD), tmp_path / "w", "nap", str)
    with pytest.raises(BadInputError, match="stage settings has not run"):
        run_plan(plan(GOOD, BAD), tmp_path / "w", "samples", str)
