"""What the supervisor makes of failures, without Java: refusals, retries, one stream at a time."""

import subprocess
import sys
import textwrap

import pytest
from typer.testing import CliRunner

from uic.jobs.cli import app
from uic.jobs.drills.trial import start_trial, trial_context
from uic.jobs.stream.run.attempt_watch import AttemptWatch
from uic.jobs.stream.run.failures import failure_of, read_failure
from uic.jobs.stream.run.planner import Planner, RunOptions
from uic.jobs.stream.run.start_positions import folder_name
from uic.jobs.stream.run.supervisor import (
    StreamBusyError,
    StreamFailedError,
    Supervisor,
    running,
)
from uic.jobs.stream.topics.event_files import LoggedPayload, write_event_file
from uic.jobs.stream.topics.kafka_server import free_port
from uic.models.errors import UicError
from uic.pipelines.log.event_log import EventLog

pytestmark = pytest.mark.slow


@pytest.fixture
def context(tmp_path):
    context = trial_context(
        tmp_path,
        {"brokers": f"127.0.0.1:{free_port()}", "attempts": 2, "backoff_seconds": 0.01},
    )
    server, _ = start_trial(context)
    yield context
    server.stop()


def test_the_error_of_a_worker_is_found_in_javas_stack_trace():
    text = textwrap.dedent(
        """\
        org.apache.flink.runtime.taskmanager.AsynchronousException: Caught exception
        Caused by: java.lang.RuntimeException: Error received from SDK harness: Traceback
          File "fold_function.py", line 180, in _open_partitions
        uic.feature_repo.store.errors.StoreFellBehindError: epoch 1, partition 0: it fell behind
            at org.apache.beam.runners.fnexecution
        """
    )
    assert read_failure(text).reason == "StoreFellBehindError: epoch 1, partition 0: it fell behind"


def test_without_one_of_ours_the_last_cause_is_told():
    text = "org.apache.flink.SomeException: no\nCaused by: java.io.IOException: disk full\n\tat x"
    assert read_failure(text).reason == "Caused by: java.io.IOException: disk full"


def test_a_lost_java_process_is_called_so(tmp_path):
    (tmp_path / "failure").write_text("An error occurred while calling o142.await")
    assert failure_of(tmp_path).reason == "its Java process is gone"


def test_a_process_that_left_nothing_was_killed(tmp_path):
    assert failure_of(tmp_path).reason.startswith("its process was killed")


def test_it_gives_up_after_its_attempts(context):
    """No broker: that may pass, so it is tried again, up to the limit."""
    said: list[str] = []
    with pytest.raises(StreamFailedError, match=r"2 attempts failed.*no Kafka broker answers"):
        Supervisor(Planner(context, RunOptions()), said.append).run()
    assert [line[:16] for line in said] == ["attempt 1 failed", "attempt 2 failed"]


def test_a_generation_streams_once(context):
    """A second process holds the lock that a running stream holds."""
    folder = context.workspace / "stream" / folder_name(1)
    folder.mkdir(parents=True)
    script = (
        "import fcntl, sys, time; stream = open(sys.argv[1], 'w'); "
        "fcntl.flock(stream, fcntl.LOCK_EX); print('locked', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(folder / ".lock")], stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        with pytest.raises(StreamBusyError, match="generation 1 streams already"):
            Supervisor(Planner(context, RunOptions()), print).run()
        other.kill()


def test_a_run_file_of_a_dead_process_does_not_count(tmp_path):
    with subprocess.Popen([sys.executable, "-c", "pass"]) as process:
        process.wait()
    (tmp_path / "run.json").write_text(f'{{"pid": {process.pid}, "created": 1.0}}')
    assert running(tmp_path) is None
    assert running(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["stream", "run", "--source", "pigeons"], "--source: .*pigeons"),
        (["stream", "run", "--parallelism", "0"], "--parallelism: .*0"),
        (["drill", "crash", "--kills", "worker,cat"], "--kills: found 'cat'"),
        (["events", "produce"], "no events to send"),
        (["memories", "upgrade", "--bundle", "mimn/none"], "no bundle 'mimn/none'; there is: none"),
    ],
)
def test_a_wrong_argument_is_one_line(tmp_path, arguments, text):
    extra = [] if arguments[0] == "drill" else ["--workspace", str(tmp_path)]
    result = CliRunner().invoke(app, [*arguments, *extra])
    assert isinstance(result.exception, UicError)
    with pytest.raises(UicError, match=text):
        raise result.exception


def test_where_nothing_has_streamed_there_is_nothing_to_compact(tmp_path):
    result = CliRunner().invoke(app, ["log", "compact", "2026-03-01", "-w", str(tmp_path)])
    assert result.exit_code == 0
    assert "nothing new" in result.stdout


def test_without_an_archive_what_has_streamed_cannot_be_compacted(tmp_path):
    log = EventLog(tmp_path / "log")
    log.append_epoch(kind="topic", name="files.events", partitions=1, first_offsets={0: 0})
    result = CliRunner().invoke(app, ["log", "compact", "2026-03-01", "-w", str(tmp_path)])
    with pytest.raises(UicError, match="no archive: nothing has streamed"):
        raise result.exception


def test_without_letters_there_is_nothing_to_show(tmp_path):
    result = CliRunner().invoke(app, ["dead-letters", "show", "--workspace", str(tmp_path)])
    assert result.exit_code == 0


def test_progress_of_an_attempt_is_the_markers(tmp_path):
    write_event_file(tmp_path / "events" / "0.jsonl.gz", [LoggedPayload(b"{}", 0, 0, 5)])
    context = trial_context(tmp_path, {"source": "files", "files": tmp_path / "events"})
    server, _ = start_trial(context)
    try:
        planner = Planner(context, RunOptions())
        ended = []
        for marker in (None, 0, 0):
            plan, _ = planner.plan(1, 1)
            with subprocess.Popen([sys.executable, "-c", "exit(1)"]) as process:
                if marker is not None:
                    planner.client.hset(planner.keys.markers(1), "1:0", marker)
                outcome = AttemptWatch(plan, process, planner, lambda: False, print).until_end()
            ended.append((outcome.kind, outcome.progressed))
        assert ended == [("failed", False), ("failed", True), ("failed", False)]
    finally:
        server.stop()
