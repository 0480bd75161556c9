"""What the world around a stream does to it: what passes is waited for, the rest ends the run."""

from pathlib import Path

import pytest
import redis

from uic.feature_repo.store.connection import Address, connect
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
from uic.jobs.drills.hostile.stream_rows import quiet_stream, run_mended
from uic.jobs.stream.run.attempt_watch import fell_behind
from uic.jobs.stream.run.failures import read_failure

pytestmark = pytest.mark.slow


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
    client = connect(Address.at(server.start().address))
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


def test_an_empty_store_ends_a_run(tmp_path):
    with quiet_stream(tmp_path) as planner:
        planner.client.flushall()
        with pytest.raises(EmptyStoreError):
            run_mended(planner, lambda: None)
