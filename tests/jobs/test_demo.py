"""The demo's stages: what it runs, what it refuses, and how it says where it failed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace

import psutil
import pytest

from uic.jobs.demo.processes import StageFailedError, ready_line_of
from uic.jobs.demo.run import STATE_NAME, run_plan
from uic.jobs.demo.stages import DemoStage, Plan, make_plan
from uic.models.errors import BadInputError

pytestmark = pytest.mark.slow

GOOD = DemoStage("settings", "show them", ("config", "show"))
BAD = DemoStage(
    "samples", "without a log", ("samples", "--first", "2025-01-01", "--last", "2025-01-02")
)


GOOD_TOO = DemoStage("settings-too", "show them", ("config", "show"))


def plan(*stages):
    return Plan("nothing", "UTC", stages)


def test_real_data_is_used_where_it_is_and_the_simulator_elsewhere(tmp_path):
    assert make_plan(tmp_path).stages[0].arguments == ("simulate", "--preset", "sessions")
    (tmp_path / "kuairand_pure_14d").mkdir()
    real = make_plan(tmp_path)
    assert real.stages[0].arguments[:2] == ("import", "kuairand")
    assert real.time_zone == "Asia/Shanghai"
    names = [stage.name for stage in real.stages]
    assert names.index("store") < names.index("features") < names.index("serve")


def test_through_kafka_the_same_stages_and_a_broker_and_todays_log(tmp_path):
    files = {stage.name: stage for stage in make_plan(tmp_path, quick=True).stages}
    plan_of_kafka = make_plan(tmp_path, quick=True, kafka=True)
    stages = {stage.name: stage for stage in plan_of_kafka.stages}
    assert set(stages) - set(files) == {"broker"}
    names = list(stages)
    assert names.index("store") < names.index("broker") < names.index("begin")
    port = plan_of_kafka.environment["UIC_STREAM__BROKERS"].removeprefix("127.0.0.1:")
    assert ("--port", port) == stages["broker"].arguments[2:4]
    for name in ("begin", "replay", "stream"):
        assert "kafka" in stages[name].arguments
        assert "kafka" not in files[name].arguments
    # The broker stamps events with the time of now, so they are of today's log.
    assert stages["compact"].arguments[2] >= "2026"
    assert files["compact"].arguments[2] == "2025-01-14"
    assert plan_of_kafka.data != make_plan(tmp_path, quick=True).data


def test_a_broker_is_ready_when_its_output_says_so(tmp_path):
    [broker] = [stage for stage in make_plan(tmp_path, kafka=True).stages if stage.ready_line]
    log = tmp_path / "broker.log"
    log.write_text("")
    assert ready_line_of(broker, log) == ""
    log.write_text("starting\nKafka at 127.0.0.1:9092, topic behaviours (process 7)\n")
    assert ready_line_of(broker, log).startswith("Kafka at 127.0.0.1:9092")


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


def test_how_to_go_on_names_the_options_of_the_same_demo(tmp_path):
    assert make_plan(tmp_path, quick=True, kafka=True).options == ("--quick", "--kafka")
    failing = replace(plan(BAD), options=("--quick", "--kafka"))
    with pytest.raises(StageFailedError, match=r"uic demo --from samples --quick --kafka --work"):
        run_plan(failing, tmp_path / "w", None, str)


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


def test_the_plan_names_each_stage_once_and_goes_on_from_a_stage_before(tmp_path):
    stages = make_plan(tmp_path).stages
    names = [stage.name for stage in stages]
    assert len(set(names)) == len(names)
    for at, stage in enumerate(stages):
        if stage.resume_from is not None:
            assert names.index(stage.resume_from) < at
    # Every command is one that `uic` has.
    for stage in stages:
        assert ("--help" in stage.command(tmp_path)) is False
        assert stage.arguments[0] in _commands()


def test_a_store_that_a_stage_started_is_stopped_when_a_later_one_fails(tmp_path):
    store = DemoStage("store", "a Redis", ("store", "start"), ended_by=("store", "stop"))
    with pytest.raises(StageFailedError, match="stage samples failed"):
        run_plan(plan(store, BAD), tmp_path / "w", None, str)
    server = json.loads((tmp_path / "w" / "store" / "server.json").read_text())
    assert not psutil.pid_exists(server["pid"])


def test_going_on_later_starts_the_store_again_and_leaves_earlier_stages_alone(tmp_path):
    store = DemoStage(
        "store", "a Redis", ("store", "start"), ended_by=("store", "stop"), again=True
    )
    said = []
    run_plan(plan(GOOD, store, GOOD_TOO), tmp_path / "w", None, str)
    run_plan(plan(GOOD, store, GOOD_TOO), tmp_path / "w", "settings-too", said.append)
    ran = [line for line in said if line.startswith("[")]
    assert ran == ["[2/3] store: a Redis", "[3/3] settings-too: show them"]


def test_a_stage_in_the_background_that_dies_is_said_with_its_log(tmp_path):
    dying = DemoStage("serve", "no models", ("serve", "--port", "0"), background=True, port=1)
    with pytest.raises(StageFailedError, match="stage serve failed with exit status 2"):
        run_plan(plan(dying), tmp_path / "w", None, str)


def test_ctrl_c_ends_everything_that_was_started(tmp_path):
    script = f"""
import signal
from uic.jobs.demo.run import run_plan
from uic.jobs.demo.stages import Plan, DemoStage
from pathlib import Path
signal.signal(signal.SIGTERM, signal.default_int_handler)
store = DemoStage("store", "a Redis", ("store", "start"), ended_by=("store", "stop"))
long = DemoStage("broker", "waits", ("store", "start"), background=True, port=1)
run_plan(Plan("none", "UTC", (store, long)), Path({str(tmp_path / "w")!r}), None, print)
"""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    demo = subprocess.Popen([sys.executable, "-c", script], env=environment)
    server = tmp_path / "w" / "store" / "server.json"
    until = time.monotonic() + 120
    while not server.exists() and time.monotonic() < until:
        time.sleep(0.1)
    pid = json.loads(server.read_text())["pid"]
    assert psutil.pid_exists(pid)
    demo.send_signal(signal.SIGINT)
    assert demo.wait(120) != 0
    assert not psutil.pid_exists(pid)


def test_each_plan_takes_a_port_that_is_free(tmp_path):
    [serve] = [stage for stage in make_plan(tmp_path).stages if stage.background]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", serve.port))


def _commands():
    from uic.jobs.cli import app

    names = {command.name or command.callback.__name__ for command in app.registered_commands}
    return names | {group.name for group in app.registered_groups}
