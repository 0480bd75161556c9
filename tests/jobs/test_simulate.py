"""`uic simulate`: what it writes, that it writes it again, and what it refuses."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from uic.jobs.cli import app
from uic.jobs.commands.simulation_options import GAINS, SIZES
from uic.models.errors import UicError
from uic.models.published import sha256_of
from uic.pipelines.log.event_log import EventLog
from uic.pipelines.log.schemas import BEHAVIOR_EVENTS, IMPRESSIONS
from uic.pipelines.sale_calendar import SaleCalendar
from uic.pipelines.simulator import BestAuc
from uic.pipelines.simulator.plan import PRESETS, SIGNALS, SimulationPlan

SMALL = ["--users", "60", "--items", "120", "--days", "6", "--first-day", "2025-03-01"]


def simulate(workspace: Path, *arguments: str) -> str:
    result = CliRunner().invoke(
        app, ["simulate", "--workspace", str(workspace), *SMALL, *arguments],
        catch_exceptions=False,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return result.output


def sums(workspace: Path) -> dict[str, str]:
    files = (path for path in sorted(workspace.rglob("*")) if path.is_file())
    return {path.relative_to(workspace).as_posix(): sha256_of(path) for path in files}


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        simulate(tmp_path / name, "--sale-day", "2025-03-04", "--late-share", "0.1")
    assert sums(tmp_path / "one") == sums(tmp_path / "two")
    # Six days of behaviours and of impressions, items, manifest, epochs, lock, calendar.
    assert len(sums(tmp_path / "one")) == 17


def test_features_are_files_of_the_same_bytes_and_their_worth_is_told(tmp_path):
    output = simulate(tmp_path / "one", "--features")
    simulate(tmp_path / "two", "--features")
    assert sums(tmp_path / "one") == sums(tmp_path / "two")
    assert {"features.yaml", "features/users.parquet"} <= sums(tmp_path / "one").keys()
    best, unaided = (
        float(re.search(rf"{words} +(0[.][0-9]+)", output)[1])
        for words in ("best reachable AUC", "without features")
    )
    assert best > unaided + 0.03
    assert "without features" not in simulate(tmp_path / "plain")


def test_explain_tells_what_each_knowledge_is_worth_and_the_manifest_keeps_it(tmp_path):
    options = ["--session-gain", "1", "--pair-gain", "0.5", "--impressions-per-user-day", "8"]
    output = simulate(tmp_path, *options, "--explain")
    details = EventLog(tmp_path / "log").manifests()[0]["details"]
    assert details["plan"]["session_gain"] == 1.0
    assert "order_gain" not in details["plan"]
    ceilings = details["ceilings"]
    assert set(ceilings) == {
        "everything", "all but items", "all but interests", "all but session", "all but pair",
        "interests only", "nothing of the user",
    }  # fmt: skip
    for name, auc in ceilings.items():
        assert re.search(rf"{name} +{auc:.4f} +{ceilings['everything'] - auc:.4f}", output)
    assert ceilings["everything"] > ceilings["all but session"] + 0.02


def test_a_log_without_signals_is_explained_too_and_its_manifest_stays_as_it_was(tmp_path):
    assert "interests only" in simulate(tmp_path / "one", "--explain")
    assert "interests only" not in simulate(tmp_path / "two")
    assert sums(tmp_path / "one") == sums(tmp_path / "two")


def test_options_and_their_told_defaults_are_those_of_the_plan():
    assert set(GAINS) == {"interest_gain", *(f"{name}_gain" for name in SIGNALS)}
    command = get_command(app).commands["simulate"]
    options = {option.name: option for option in command.params}
    told = [(name, default) for name, _, default, _ in SIZES]
    told += [(name, float(options[name].show_default)) for name in GAINS]
    for name, default in told:
        assert SimulationPlan.model_fields[name].default == default
        assert float(options[name].show_default) == default


def test_a_preset_gives_what_is_not_given(tmp_path):
    simulate(tmp_path, "--preset", "signals", "--pair-gain", "0")
    plan = EventLog(tmp_path / "log").manifests()[0]["details"]["plan"]
    assert (plan["users"], plan["order_gain"]) == (60, PRESETS["signals"]["order_gain"])
    assert "pair_gain" not in plan


def test_another_seed_gives_other_bytes(tmp_path):
    for seed in ("1", "2"):
        simulate(tmp_path / seed, "--seed", seed)
    one, two = sums(tmp_path / "1"), sums(tmp_path / "2")
    assert one.keys() == two.keys()
    assert not set(one.values()) & {two[name] for name in one if name.endswith(".parquet")}


def test_the_log_holds_what_the_command_says(tmp_path):
    # More items than anybody sees.
    options = ["--sale-day", "2025-03-04", "--late-share", "0.2", "--items", "5000"]
    output = simulate(tmp_path, *options)
    log = EventLog(tmp_path / "log")
    behaviors = [pq.read_table(file.path) for file in log.behavior_files()]
    impressions = [pq.read_table(file.path) for file in log.impression_files()]
    rows, shown = (sum(t.num_rows for t in tables) for tables in (behaviors, impressions))
    assert f"{rows:,} behaviours and {shown:,} impressions of 60 users on 6 days" in output
    assert [str(file.dt) for file in log.behavior_files()] == [f"2025-03-0{d}" for d in range(1, 7)]
    assert behaviors[0].column_names == BEHAVIOR_EVENTS.names
    assert impressions[0].column_names == [*IMPRESSIONS.names, "click_probability"]
    late = [(t["event_time"].to_numpy() != t["log_time"].to_numpy()).mean() for t in behaviors]
    assert 0.1 < np.mean(late) < 0.3
    manifest = log.manifests()[0]
    details = manifest["details"]
    assert f"best reachable AUC    {details['best_reachable_auc']:.4f}" in output
    assert f"without sale days   {details['best_reachable_auc_without_sale_days']:.4f}" in output
    clicked = sum(t["clicked"].to_numpy().sum() for t in impressions)
    assert details["impressions_clicked"] == clicked
    ordinary = BestAuc()
    for table in impressions[:3] + impressions[4:]:
        ordinary.add(table["click_probability"].to_numpy(), table["clicked"].to_numpy())
    assert details["best_reachable_auc_without_sale_days"] == ordinary.auc()
    assert details["plan"]["sale_days"] == ["2025-03-04"]
    assert json.dumps(manifest).count(str(tmp_path)) == 0
    assert pq.read_table(log.items_file()).num_rows == 5000


def test_the_written_calendar_covers_the_sale_day(tmp_path):
    config = tmp_path / "uic.yaml"
    config.write_text("time_zone: Asia/Shanghai\n", encoding="utf-8")
    simulate(tmp_path / "var", "--sale-day", "2025-03-04", "--config", str(config))
    calendar = SaleCalendar.load(tmp_path / "var" / "simulated_sale_days.yaml")
    for file in EventLog(tmp_path / "var" / "log").behavior_files():
        times = pq.read_table(file.path)["log_time"].to_numpy().astype(np.int64)
        assert (calendar.covers(times) == (str(file.dt) == "2025-03-04")).all()


def test_no_impressions_are_no_error(tmp_path):
    assert "and 0 impressions" in simulate(tmp_path, "--impressions-per-user-day", "0")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--users", "9"], "--users: found 9"),
        (["--items", "99"], "--items: found 99"),
        (["--days", "1"], "--days: found 1"),
        (["--seed", "-1"], "--seed: found -1"),
        (
            ["--preset", "real"],
            "--preset: found 'real': expected one of plain, signals, sessions, public",
        ),
        (["--order-gain", "4"], "--order-gain: found 4.0"),
        (["--late-share", "1.5"], "--late-share: found 1.5"),
        (["--visits-per-user-day", "0"], "--visits-per-user-day: found 0.0"),
        (["--impressions-per-user-day", "nan"], "--impressions-per-user-day: found nan"),
        (
            ["--sale-day", "2025-03-07"],
            "sale day 2025-03-07 is outside the simulated days, 2025-03-01 to 2025-03-06",
        ),
        (["--first-day", "1960-01-01"], "first_day 1960-01-01 is not between"),
    ],
)
def test_an_argument_out_of_range_is_named_and_nothing_is_written(tmp_path, arguments, said):
    result = CliRunner().invoke(
        app, ["simulate", "--workspace", str(tmp_path / "var"), *SMALL, *arguments]
    )
    assert isinstance(result.exception, UicError)
    assert result.exception.exit_code == 2
    assert said in str(result.exception)
    assert "\n" not in str(result.exception)
    assert not (tmp_path / "var").exists()


@pytest.mark.parametrize("option", ["--sale-day", "--first-day"])
def test_a_day_that_is_none_is_refused(tmp_path, option):
    result = CliRunner().invoke(
        app, ["simulate", "--workspace", str(tmp_path), option, "2025-2-30"]
    )
    assert result.exit_code == 2
    assert option in result.output
    assert "2025-2-30" in result.output


def test_a_log_that_holds_something_is_left_alone(tmp_path):
    simulate(tmp_path)
    before = sums(tmp_path)
    with pytest.raises(UicError, match=r"holds 'simulated' already; .* another --workspace"):
        simulate(tmp_path, "--seed", "2")
    assert sums(tmp_path) == before


def test_fast_clocks_that_the_log_would_reject_are_refused(tmp_path):
    config = tmp_path / "uic.yaml"
    config.write_text("log: {max_clock_skew_seconds: 60}\n", encoding="utf-8")
    simulate(tmp_path / "on-time", "--config", str(config))
    with pytest.raises(UicError, match="max_clock_skew_seconds is 60; raise it"):
        simulate(tmp_path / "late", "--config", str(config), "--late-share", "0.1")


def test_a_workspace_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "log").write_text("in the way", encoding="utf-8")
    with pytest.raises(UicError) as caught:
        simulate(tmp_path / "var")
    assert caught.value.exit_code == 2
    assert "var/log: cannot be written (File exists)" in str(caught.value)


def test_a_killed_run_leaves_nothing_to_read_and_the_next_one_succeeds(tmp_path):
    arguments = ["--users", "300", "--items", "200", "--days", "40", "--seed", "3"]
    command = [sys.executable, "-m", "uic", "simulate", "--workspace"]
    killed = subprocess.Popen([*command, str(tmp_path / "killed"), *arguments])
    first_day = tmp_path / "killed" / "log" / "behaviors"
    try:
        deadline = time.monotonic() + 60
        while not first_day.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        killed.kill()
    assert killed.wait() == -signal.SIGKILL
    log = EventLog(tmp_path / "killed" / "log")
    assert first_day.exists()
    assert log.epochs() == ()
    assert log.behavior_files() == []
    for name in ("killed", "whole"):
        simulate(tmp_path / name, *arguments)
    assert sums(tmp_path / "killed") == sums(tmp_path / "whole")
