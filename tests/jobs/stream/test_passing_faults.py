"""What the world around a stream does to it: what passes is waited for, the rest ends the run."""

import resource
from pathlib import Path

import pytest
import redis

from uic.feature_repo.store.errors import (
    EmptyStoreError,
    StoreFellBehindError,
    StoreFullError,
    StorePermissionError,
    StoreReadOnlyError,
    StoreUnavailableError,
    translated,
    typed_errors,
)
from uic.feature_repo.store.server import EmbeddedRedis
from uic.jobs.drills.trial import start_trial, trial_context
from uic.jobs.stream.run.attempt_watch import fell_behind
from uic.jobs.stream.run.failures import read_failure
from uic.jobs.stream.run.planner import Planner, RunOptions
from uic.jobs.stream.run.supervisor import Supervisor
from uic.jobs.stream.topics.event_files import LoggedPayload, write_event_file
from uic.models.errors import ManifestError

pytestmark = pytest.mark.slow


@pytest.fixture
def planner(tmp_path):
    """Of a stream with one event that is folded already, so that a run ends at once."""
    write_event_file(tmp_path / "events" / "0.jsonl.gz", [LoggedPayload(b"{}", 0, 0, 5)])
    context = trial_context(
        tmp_path,
        {"source": "files", "files": tmp_path / "events", "attempts": 3, "backoff_seconds": 0.01},
    )
    server, _ = start_trial(context)
    planner = Planner(context, RunOptions(until_end=True))
    planner.client.hset(planner.keys.markers(1), "1:0", 0)
    yield planner
    server.stop()


def _run(planner: Planner, mend) -> list[str]:
    """What a run says; `mend` puts the fault right after the first failed attempt."""
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if line.startswith("attempt 1 failed"):
            mend()

    Supervisor(planner, say).run()
    return said


def test_a_disk_that_takes_nothing_is_waited_for(planner):
    """No file may grow, as on a full disk: the system refuses each write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        said = _run(planner, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert said[0].startswith("attempt 1 failed: ")
    assert "File too large" in said[0]
    assert said[-1] == "attempt 2 finished (there was nothing to read)"


def test_a_redis_that_takes_no_writes_while_an_attempt_is_planned_is_waited_for(planner):
    """A fail-over: the address leads to what is a replica now."""
    planner.client.replicaof("127.0.0.1", 1)
    said = _run(planner, lambda: planner.client.replicaof("NO", "ONE"))
    assert "Redis takes no writes" in said[0]
    assert said[-1] == "attempt 2 finished (there was nothing to read)"


def test_a_damaged_bundle_ends_the_run_before_a_worker_meets_it(planner):
    weights = planner.context.bundles / "mimn" / "untrained" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ManifestError, match=r"model\.safetensors: sha256 is"):
        _run(planner, lambda: None)


@pytest.mark.parametrize(
    ("error", "ends_attempt", "ends_run"),
    [
        ("uic.feature_repo.store.errors.StoreUnavailableError: away", False, False),
        ("uic.feature_repo.store.errors.StoreFellBehindError: behind", True, False),
        ("uic.pipelines.log.positions.LogGapError: offset 9 follows 3", True, False),
        ("uic.models.errors.ManifestError: sha256 is", True, True),
        ("uic.feature_repo.store.errors.EmptyStoreError: wiped", True, True),
        ("uic.another.OfAnotherVersionError: what", False, False),
        ("KeyError: 'x'", False, False),
    ],
)
def test_what_a_workers_error_means_is_asked_of_its_class(error, ends_attempt, ends_run):
    failure = read_failure(f"java.lang.RuntimeException: Traceback\n  File x\n{error}\n\tat y")
    assert (failure.ends_attempt, failure.ends_run) == (ends_attempt, ends_run)


def test_of_several_errors_the_one_that_cannot_be_mended_is_told():
    text = (
        "uic.feature_repo.store.errors.StoreFellBehindError: behind\n"
        "Caused by: uic.feature_repo.store.errors.StoreUnavailableError: away\n"
    )
    assert read_failure(text).error is StoreFellBehindError


def _full(client: redis.Redis) -> None:
    client.config_set("maxmemory", 1)


def _read_only(client: redis.Redis) -> None:
    client.replicaof("127.0.0.1", 1)


def _denied(client: redis.Redis) -> None:
    client.acl_setuser("default", enabled=True, nopass=True, commands=["-set", "-eval"])


_WAYS = {
    "plain": lambda client: client.set("key", "x"),
    "transaction": lambda client: client.pipeline().set("key", "x").set("other", "y").execute(),
    "pipeline": lambda client: client.pipeline(transaction=False).set("key", "x").execute(),
    "script": lambda client: client.eval("return redis.call('set', KEYS[1], 'x')", 1, "key"),
}


@pytest.mark.parametrize("way", _WAYS)
@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (_full, StoreFullError),
        (_read_only, StoreReadOnlyError),
        (_denied, StorePermissionError),
    ],
)
def test_refusals_are_known_however_the_command_is_sent(tmp_path: Path, fault, expected, way):
    server = EmbeddedRedis(tmp_path / "store")
    client = redis.Redis(port=server.start().port)
    try:
        fault(client)
        with pytest.raises(expected), typed_errors("here"):
            _WAYS[way](client)
    finally:
        server.stop()


@pytest.mark.parametrize(
    "error",
    [
        redis.exceptions.BusyLoadingError("Redis is loading the dataset in memory"),
        redis.exceptions.MasterDownError("Link with MASTER is down"),
        redis.exceptions.ClusterDownError("The cluster is down"),
        redis.exceptions.ResponseError("CLUSTERDOWN Hash slot not served"),
    ],
)
def test_a_redis_that_cannot_answer_now_is_away(error):
    assert isinstance(translated(error, "here"), StoreUnavailableError)


def test_markers_never_fall_by_themselves():
    assert fell_behind({0: 5}, {0: 5, 1: 2}, 1) == ""
    assert "was at 5 and is at 3" in fell_behind({0: 5, 1: 9}, {0: 3, 1: 9}, 1)
    assert "was at 5 and is at -1" in fell_behind({0: 5}, {}, 1)


def test_an_empty_store_ends_a_run(planner):
    planner.client.flushall()
    with pytest.raises(EmptyStoreError):
        _run(planner, lambda: None)
